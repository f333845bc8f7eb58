/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns what handlers need around requests and responses. Pure, and without the HTTP library. */
#include "http.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool http_decode(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		int high, low;

		if (*from != '%') {
			*to++ = *from;
			continue;
		}
		high = hex_value(from[1]);
		low = high < 0 ? -1 : hex_value(from[2]);
		/* A NUL would hide the rest of the text from everything that compares it. */
		if (low < 0 || !(high | low))
			return false;
		*to++ = (char)(high << 4 | low);
		from += 2;
	}
	*to = '\0';
	return true;
}

const char *http_request_query(const struct http_request *request, const char *name)
{
	for (unsigned int i = 0; i < request->nquery; i++)
		if (!strcmp(request->query[i].name, name))
			return request->query[i].value;
	return NULL;
}

int http_respond_text(struct http_response *response, unsigned int status, const char *text)
{
	int len = asprintf(&response->body, "%s\n", text);

	if (len < 0) {
		response->body = NULL;
		return -ENOMEM;
	}
	response->status = status;
	response->content_type = "text/plain; charset=utf-8";
	response->len = (size_t)len;
	return 0;
}
