/* SPDX-License-Identifier: BSD-2-Clause */
/* Any text: what is taken reads back as itself; what the kernel might hand over never overruns the
 * text. */
#include <stdlib.h>
#include <string.h>

#include "addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text)
{
	char first[ADDR_TEXT_MAX], second[ADDR_TEXT_MAX];
	struct addr addr, again;
	const char *error = NULL;

	if (addr_parse(text, &addr, &error) < 0) {
		if (!error)
			abort();
		return;
	}
	addr_format(&addr, first, sizeof(first));
	if (addr_parse(first, &again, &error) < 0 || !addr_equal(&addr, &again))
		abort();
	addr_format(&again, second, sizeof(second));
	if (strcmp(first, second) != 0)
		abort();
}

static void check_bytes(const uint8_t *data, size_t size)
{
	char text[ADDR_TEXT_MAX];
	struct addr addr;

	memset(&addr, 0, sizeof(addr));
	memcpy(&addr.un, data, MIN(size, sizeof(addr.un)));
	addr.len = (socklen_t)MIN(size, sizeof(addr.un));
	addr_format(&addr, text, sizeof(text));
	if (strlen(text) >= sizeof(text) || !addr_equal(&addr, &addr))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text =
		malloc(size + 1); /* exactly as large as the text: a read past its end is seen */

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	check_text(text);
	check_bytes(data, size);
	free(text);
	return 0;
}
