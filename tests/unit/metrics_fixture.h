/* SPDX-License-Identifier: BSD-2-Clause */
/* Two listeners, three servers in two backends, two threads. Include after cmocka.h. */
#ifndef SHUNT_TESTS_METRICS_FIXTURE_H
#define SHUNT_TESTS_METRICS_FIXTURE_H

#include <string.h>

#include "../../daemon/conf.h"
#include "../../daemon/metrics.h"
#include "../../daemon/stats.h"

#define THREADS 2

static char web[] = "web", odd[] = "o\\d\"d\nname\r\t\xc3\xa9\xff";
static char app[] = "app", db[] = "db", s1[] = "a", s2[] = "10.0.0.2:80", s3[] = "[::1]:80";
static struct conf_listener listeners[] = {{.name = web}, {.name = odd}};
static struct conf_server app_servers[] = {{.name = s1}, {.name = s2}};
static struct conf_server db_servers[] = {{.name = s3}};
static struct conf_backend backends[] = {
	{.name = app, .servers = app_servers, .nservers = 2},
	{.name = db, .servers = db_servers, .nservers = 1},
};
static struct conf conf = {
	.listeners = listeners,
	.nlisteners = ARRAY_LEN(listeners),
	.backends = backends,
	.nbackends = ARRAY_LEN(backends),
};
static const struct metrics_map maps[] = {{"redir_targets", 12, 4096}, {"flows", 3, 8192}};
static const struct metrics_process process = {
	.cpu_us = 1500000,
	.start_time_us = 1700000000250000ull,
	.resident_bytes = 8388608,
	.open_fds = 31,
	.max_fds = 65536,
};

static inline int setup(void **state)
{
	static struct metrics_view view;
	struct stats *stats;

	if (stats_create(THREADS, &stats) < 0 || stats_assign(stats, &conf) < 0)
		return -1;
	view = (struct metrics_view){
		.conf = &conf,
		.stats = stats,
		.version = "0.1.0",
		.maps = maps,
		.nmaps = ARRAY_LEN(maps),
		.process = &process,
	};
	*state = &view;
	return 0;
}

static inline int teardown(void **state)
{
	struct metrics_view *view = *state;

	stats_free(view->stats);
	return 0;
}

static inline char *render(const struct metrics_view *view, bool openmetrics)
{
	char *body;
	size_t len;

	assert_int_equal(metrics_render(view, openmetrics, &body, &len), 0);
	assert_int_equal(strlen(body), len);
	return body;
}

#endif
