/* SPDX-License-Identifier: BSD-2-Clause */
/* The metrics page in both text formats. Pure: reads the view, writes the text. */
#ifndef SHUNT_METRICS_H
#define SHUNT_METRICS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "util.h"

struct conf;
struct stats;

struct metrics_map {
	const char *name; /* as the kernel keeps it: "redir_targets" */
	uint64_t entries;
	uint64_t capacity;
};

/* What /proc says about the worker; the page itself must not read files. */
struct metrics_process {
	uint64_t cpu_us;
	uint64_t start_time_us; /* since the epoch */
	uint64_t resident_bytes;
	uint64_t open_fds;
	uint64_t max_fds;
};

/* Everything is borrowed for the length of one call. */
struct metrics_view {
	const struct conf *conf; /* its slots were assigned from stats */
	struct stats *stats;
	const char *version;
	const struct metrics_map *maps;
	unsigned int nmaps;
	uint64_t now_ns; /* CLOCK_MONOTONIC */
	const struct metrics_process *process; /* NULL: no process_* families */
};

/* Prometheus text 0.0.4, or OpenMetrics 1.0. -EIO:
 * the file could not be written (for a memory stream: no memory). */
MUST_CHECK int metrics_write(const struct metrics_view *view, bool openmetrics, FILE *file);

/* The same into a new buffer that the caller frees. Also -ENOMEM. */
MUST_CHECK int metrics_render(
	const struct metrics_view *view, bool openmetrics, char **ret_body, size_t *ret_len);

#endif
