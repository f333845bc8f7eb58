/* SPDX-License-Identifier: BSD-2-Clause */
#include "format.h"

#include <stdio.h>

struct format format_bytes(uint64_t bytes)
{
	static const char units[] = "KMGTPE";
	struct format format;
	double value = (double)bytes;
	int unit = -1;

	/* 999.95 and more would be shown as 1000.0. */
	for (; value >= (unit < 0 ? 1000 : 999.95); value /= 1024)
		unit++;
	if (unit < 0)
		snprintf(format.text, FORMAT_MAX, "%u", (unsigned int)bytes);
	else
		snprintf(format.text, FORMAT_MAX, "%.1f%c", value, units[unit]);
	return format;
}

struct format format_age(uint64_t ms)
{
	struct format format;
	unsigned long long s = ms / 1000;

	if (ms < 1000)
		snprintf(format.text, FORMAT_MAX, "%llums", (unsigned long long)ms);
	else if (s < 60)
		snprintf(format.text, FORMAT_MAX, "%llus", s);
	else if (s < 3600)
		snprintf(format.text, FORMAT_MAX, "%llum%02llus", s / 60, s % 60);
	else if (s < 86400)
		snprintf(format.text, FORMAT_MAX, "%lluh%02llum", s / 3600, s / 60 % 60);
	else
		snprintf(format.text, FORMAT_MAX, "%llud%02lluh", s / 86400, s / 3600 % 24);
	return format;
}

struct format format_count(uint64_t number)
{
	struct format format;

	/* More than fits is nothing that anybody counts. */
	if (number > 999999999999999ull)
		return format_bytes(number);
	snprintf(format.text, FORMAT_MAX, "%llu", (unsigned long long)number);
	return format;
}

struct format format_percent(uint64_t part, uint64_t whole)
{
	struct format format = {"-"};

	if (whole)
		snprintf(format.text, FORMAT_MAX, "%.0f%%", 100.0 * (double)part / (double)whole);
	return format;
}

void format_safe(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c; c++) {
		if (*c < ' ' || *c == 0x7f)
			*c = '?';
		else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			c[0] = c[1] = '?';
	}
}
