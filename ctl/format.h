/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers as people read them. Pure. */
#ifndef SHUNT_CTL_FORMAT_H
#define SHUNT_CTL_FORMAT_H

#include <stdint.h>

#define FORMAT_MAX 24

struct format {
	char text[FORMAT_MAX];
};

struct format format_bytes(uint64_t bytes); /* "999", "1.0K", "12.3M" */
struct format format_age(uint64_t ms); /* "250ms", "1m01s", "2h05m", "3d04h" */
struct format format_count(uint64_t number); /* as it is */
struct format format_percent(uint64_t part, uint64_t whole);

/* Names may hold what a terminal obeys: control characters, also the two-byte ones, become '?'. */
void format_safe(char *text);

#endif
