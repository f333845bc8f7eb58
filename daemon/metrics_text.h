/* SPDX-License-Identifier: BSD-2-Clause */
/* A metrics page line by line, as Prometheus text 0.0.4 or OpenMetrics 1.0. Knows no metric. */
#ifndef SHUNT_METRICS_TEXT_H
#define SHUNT_METRICS_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_INFO, METRICS_HISTOGRAM };

struct metrics_text {
	FILE *file;
	bool openmetrics;
	/* Of the family being written. */
	const char *name;
	enum metrics_type type;
	bool labelled; /* the sample being written has its opening brace */
};

/* `name` has no "_total" or "_info": the formats disagree on which lines carry it. */
void metrics_text_family(
	struct metrics_text *text, const char *name, enum metrics_type type, const char *help);

/* A sample is one begin, any labels, one end. */
void metrics_text_begin(struct metrics_text *text);
void metrics_text_label(struct metrics_text *text, const char *name, const char *value);
void metrics_text_end(struct metrics_text *text, uint64_t value);
void metrics_text_end_us(struct metrics_text *text, uint64_t us); /* written in seconds */

/* A sample of a histogram: "_bucket", "_sum" or "_count". */
void metrics_text_begin_part(struct metrics_text *text, const char *part);
void metrics_text_bound(struct metrics_text *text, uint64_t us); /* the label le */

void metrics_text_finish(struct metrics_text *text);

#endif
