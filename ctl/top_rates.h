/* SPDX-License-Identifier: BSD-2-Clause */
/* What `top` shows: sessions with the rates since the last look. Pure. */
#ifndef SHUNT_CTL_TOP_RATES_H
#define SHUNT_CTL_TOP_RATES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct top_dir {
	uint64_t bytes;
	uint64_t rate; /* bytes per second; 0 at the first look */
	char path[12];
	bool overflow, finished;
};

struct top_session {
	uint64_t id;
	char client[64], server[64], state[12];
	struct top_dir dirs[2]; /* c2s, s2c */
	uint64_t age_ms;
};

struct top_look {
	struct top_session *sessions;
	size_t n;
	uint64_t total; /* live ones, shown or not */
	uint64_t at_ns;
};

enum top_sort { TOP_SORT_RATE, TOP_SORT_BYTES, TOP_SORT_AGE, TOP_SORT_COUNT };

/* From the answer of /v1/sessions. Without memory it has fewer. */
struct top_look top_look_read(const json_t *answer, uint64_t at_ns);
void top_look_free(struct top_look *look);

/* Fills in the rates. before->sessions is in any order, and stays so. */
void top_look_compare(struct top_look *look, const struct top_look *before);
void top_look_sort(struct top_look *look, enum top_sort sort);

#endif
