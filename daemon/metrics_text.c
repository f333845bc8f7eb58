/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the two text formats: names, escaping, numbers. */
#include "metrics_text.h"

#include <inttypes.h>
#include <string.h>

static const struct {
	const char *suffix, *text, *openmetrics;
} types[] = {
	[METRICS_COUNTER] = {"_total", "counter", "counter"},
	[METRICS_GAUGE] = {"", "gauge", "gauge"},
	[METRICS_INFO] = {"_info", "gauge", "info"},
	[METRICS_HISTOGRAM] = {"", "histogram", "histogram"},
};

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);

	return len >= end_len && !strcmp(text + len - end_len, end);
}

void metrics_text_family(
	struct metrics_text *text, const char *name, enum metrics_type type, const char *help)
{
	FILE *file = text->file;

	text->name = name;
	text->type = type;
	if (!text->openmetrics) {
		const char *suffix = types[type].suffix;

		fprintf(file, "# HELP %s%s %s\n", name, suffix, help);
		fprintf(file, "# TYPE %s%s %s\n", name, suffix, types[type].text);
		return;
	}
	fprintf(file, "# TYPE %s %s\n", name, types[type].openmetrics);
	if (ends_with(name, "_seconds"))
		fprintf(file, "# UNIT %s seconds\n", name);
	else if (ends_with(name, "_bytes"))
		fprintf(file, "# UNIT %s bytes\n", name);
	fprintf(file, "# HELP %s %s\n", name, help);
}

/* Length of the character at s if it may stand in a label as it is, else 0: control characters (a
 * CR breaks OpenMetrics) and broken UTF-8, for which Prometheus would refuse the whole page. */
static size_t plain_length(const unsigned char *s)
{
	size_t i, len;

	if (s[0] < 0x80)
		return s[0] >= 0x20 && s[0] != 0x7f;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	/* Overlong forms, surrogates, beyond U+10FFFF. */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
		(s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	len = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	for (i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

static void write_label_value(FILE *file, const char *value)
{
	const unsigned char *s = (const unsigned char *)value;
	size_t len;

	for (; *s; s += len ? len : 1) {
		len = plain_length(s);
		if (*s == '\\' || *s == '"')
			fprintf(file, "\\%c", *s);
		else if (*s == '\n')
			fputs("\\n", file);
		else if (!len)
			fprintf(file, "\\\\x%02x", *s); /* read back as \xNN */
		else
			fwrite(s, 1, len, file);
	}
}

void metrics_text_begin_part(struct metrics_text *text, const char *part)
{
	fputs(text->name, text->file);
	fputs(part, text->file);
	text->labelled = false;
}

void metrics_text_begin(struct metrics_text *text)
{
	metrics_text_begin_part(text, types[text->type].suffix);
}

void metrics_text_label(struct metrics_text *text, const char *name, const char *value)
{
	fprintf(text->file, "%c%s=\"", text->labelled ? ',' : '{', name);
	write_label_value(text->file, value);
	fputc('"', text->file);
	text->labelled = true;
}

void metrics_text_end(struct metrics_text *text, uint64_t value)
{
	fprintf(text->file, "%s %" PRIu64 "\n", text->labelled ? "}" : "", value);
}

/* Integers all the way: no rounding, and no decimal comma in any locale. */
void metrics_text_end_us(struct metrics_text *text, uint64_t us)
{
	fprintf(text->file, "%s %" PRIu64 ".%06" PRIu64 "\n", text->labelled ? "}" : "",
		us / 1000000, us % 1000000);
}

/* OpenMetrics wants bounds to look like floats ("1.0"); in the old format they never have ("1"). */
void metrics_text_bound(struct metrics_text *text, uint64_t us)
{
	char bound[32];
	size_t len;

	len = (size_t)snprintf(
		bound, sizeof(bound), "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
	while (bound[len - 1] == '0')
		len--;
	if (bound[len - 1] == '.')
		len = text->openmetrics ? len + 1 : len - 1;
	bound[len] = '\0';
	metrics_text_label(text, "le", bound);
}

void metrics_text_finish(struct metrics_text *text)
{
	if (text->openmetrics)
		fputs("# EOF\n", text->file);
}
