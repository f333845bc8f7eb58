/* SPDX-License-Identifier: BSD-2-Clause */
/* "METHOD PATH\nBODY": refused with a status and a reason, or taken, and then every field is in its
 * range. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_taken(const struct control_request *request)
{
	const char *slash = memchr(request->server, '/', sizeof(request->server));

	if ((unsigned int)request->kind >= CONTROL_KIND_COUNT)
		abort();
	if (request->kind == CONTROL_SERVER &&
		(!memchr(request->server, '\0', sizeof(request->server)) || !slash ||
			slash == request->server || !slash[1] ||
			!(request->has_state || request->has_weight)))
		abort();
	if (request->has_weight &&
		(request->weight < SERVER_WEIGHT_CONFIGURED || request->weight > 256))
		abort();
	if ((unsigned int)request->state > SERVER_MAINT ||
		(unsigned int)request->level > LOG_LEVEL_DEBUG)
		abort();
}

static void check_refused(int status, const char *err)
{
	if (status == -ENOENT)
		return;
	if ((status != 400 && status != 404 && status != 405) || !err[0])
		abort();
}

static char *copy(const uint8_t *data, size_t len)
{
	char *text = malloc(len + 1);

	if (!text)
		abort();
	memcpy(text, data, len);
	text[len] = '\0';
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
	size_t head_len = newline ? (size_t)(newline - data) : size;
	size_t body_len = newline ? size - head_len - 1 : 0;
	char *head = copy(data, head_len), *path = strchr(head, ' ');
	char *body =
		malloc(body_len ? body_len : 1); /* no terminator: a read past the end is seen */
	struct control_request request;
	char err[64] = "";
	int status;

	if (!body)
		abort();
	if (body_len)
		memcpy(body, newline + 1, body_len);
	if (path)
		*path++ = '\0';
	memset(&request, 0xff, sizeof(request));
	status = control_parse(head, path ? path : "", body, body_len, &request, err, sizeof(err));
	if (status)
		check_refused(status, err);
	else
		check_taken(&request);
	free(head);
	free(body);
	return 0;
}
