/* SPDX-License-Identifier: BSD-2-Clause */
/* Any file: refused with a place and a reason, or taken, and then its dump is taken and dumps the
 * same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *dump(const struct conf *conf, size_t *ret_len)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, ret_len);

	if (!out)
		abort();
	conf_dump(conf, out);
	fclose(out);
	return text;
}

static void check_dump(const struct conf *conf)
{
	size_t len, again_len;
	char *text = dump(conf, &len), *again_text;
	struct conf_error error = {""};
	struct conf *again = conf_read_text(text, len, "dump", &error);

	if (!again) {
		fprintf(stderr, "%s\n%s\n", error.text, text);
		abort();
	}
	again_text = dump(again, &again_len);
	if (len != again_len || memcmp(text, again_text, len) != 0)
		abort();
	free(text);
	free(again_text);
	conf_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf_error error = {""};
	char *text = malloc(size ? size : 1); /* no terminator: a read past the end is seen */
	struct conf *conf;
	unsigned int line;

	if (!text)
		return 0;
	memcpy(text, data, size);
	conf = conf_read_text(text, size, "fuzz", &error);
	if (conf)
		check_dump(conf);
	else if (sscanf(error.text, "fuzz:%u: ", &line) != 1 || line < 1)
		abort();
	conf_free(conf);
	free(text);
	return 0;
}
