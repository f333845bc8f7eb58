/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the reading of the Accept header. Pure. */
#include "http.h"

#include <string.h>
#include <strings.h>

#define BLANKS " \t"

/* One element of the header: "type/subtype;version=1.0.0;q=0.5". */
struct range {
	const char *type;
	size_t type_len;
	const char *version;
	size_t version_len; /* 0: none given */
	unsigned int q; /* thousandths */
};

static bool text_is(const char *text, size_t len, const char *word)
{
	return len == strlen(word) && !strncasecmp(text, word, len);
}

static void trim(const char **text, size_t *len)
{
	while (*len && strchr(BLANKS, **text)) {
		(*text)++;
		(*len)--;
	}
	while (*len && strchr(BLANKS, (*text)[*len - 1]))
		(*len)--;
}

/* "0", "1", "0.5": at most three digits follow the point. What cannot be read wants nothing. */
static unsigned int parse_q(const char *text, size_t len)
{
	unsigned int q = 0, unit = 100;
	size_t i;

	if (!len || (text[0] != '0' && text[0] != '1') || (len > 1 && text[1] != '.') || len > 5)
		return 0;
	if (text[0] == '1')
		return 1000;
	for (i = 2; i < len; i++, unit /= 10) {
		if (text[i] < '0' || text[i] > '9')
			return 0;
		q += (unsigned int)(text[i] - '0') * unit;
	}
	return q;
}

static void parse_parameter(const char *text, size_t len, struct range *range)
{
	const char *equals = memchr(text, '=', len);
	const char *value;
	size_t name_len, value_len;

	if (!equals)
		return;
	name_len = (size_t)(equals - text);
	value = equals + 1;
	value_len = len - name_len - 1;
	trim(&text, &name_len);
	trim(&value, &value_len);
	if (value_len >= 2 && value[0] == '"' && value[value_len - 1] == '"') {
		value++;
		value_len -= 2;
	}
	if (text_is(text, name_len, "q"))
		range->q = parse_q(value, value_len);
	else if (text_is(text, name_len, "version")) {
		range->version = value;
		range->version_len = value_len;
	}
}

static struct range parse_range(const char *text, size_t len)
{
	struct range range = {.q = 1000};
	const char *end = text + len;
	bool first = true;

	while (text <= end) {
		const char *semicolon = memchr(text, ';', (size_t)(end - text));
		size_t part_len = (size_t)((semicolon ? semicolon : end) - text);

		if (first) {
			range.type = text;
			range.type_len = part_len;
			trim(&range.type, &range.type_len);
			first = false;
		} else {
			parse_parameter(text, part_len, &range);
		}
		text += part_len + 1;
	}
	return range;
}

static bool range_is(const struct range *range, const char *type, const char *version)
{
	return text_is(range->type, range->type_len, type) &&
	       (!range->version_len || text_is(range->version, range->version_len, version));
}

bool http_accepts_openmetrics(const char *accept)
{
	unsigned int openmetrics = 0, text = 0;

	while (accept && *accept) {
		size_t len = strcspn(accept, ",");
		struct range range = parse_range(accept, len);

		if (range_is(&range, "application/openmetrics-text", "1.0.0"))
			openmetrics = MAX(openmetrics, range.q);
		else if (range_is(&range, "text/plain", "0.0.4") ||
			 range_is(&range, "text/*", "") || range_is(&range, "*/*", ""))
			text = MAX(text, range.q);
		accept += len + (accept[len] == ',');
	}
	return openmetrics && openmetrics >= text;
}
