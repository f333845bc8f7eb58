/* SPDX-License-Identifier: BSD-2-Clause */
/* A daemon without traffic: two listeners, three servers, three sessions, and ops that remember.
 * After cmocka.h. */
#ifndef SHUNT_TESTS_API_FIXTURE_H
#define SHUNT_TESTS_API_FIXTURE_H

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../daemon/conf.h"
#include "../../daemon/control.h"
#include "../../daemon/http.h"

#define THREADS 2
#define ODD "o\\d\"<b>&\x1b[31m\xc3\xa9\xff"
#define ODD_SAFE "o\\d\"<b>&\x1b[31m\xc3\xa9\xef\xbf\xbd"

/* What the fake daemon is, and what was asked of it. */
struct world {
	struct stats *stats;
	struct api_source source;
	struct control control;
	struct api_info info;
	struct api_session sessions[3];
	size_t nsessions;
	int held; /* configurations not put back */
	const char *not_ready;
	int error; /* what callbacks return */
	const char *why;
	/* The last order. */
	unsigned int orders;
	char order[64];
};

static char web[] = "web", odd[] = ODD, app[] = "app", db[] = "a/b", a_name[] = "a";
static char unix_name[] = "unix:/run/x.sock", source_name[] = "/etc/shunt/shunt.conf";
static struct conf_server app_servers[] = {
	{.name = a_name, .weight = 2}, {.name = odd, .weight = 1, .backup = true}};
static struct conf_server db_servers[] = {{.name = unix_name, .weight = 0}};
static struct conf_backend backends[] = {
	{.name = app, .servers = app_servers, .nservers = 2, .check = CHECK_TCP},
	{.name = db, .servers = db_servers, .nservers = 1, .balance = BALANCE_SOURCE_HASH},
};
static struct addr web_binds[2];
static struct conf_listener listeners[] = {
	{.name = web, .binds = {.v = web_binds, .n = 2}, .backend = &backends[0]},
	{.name = odd, .backend = &backends[1], .max_sessions = 7},
};
static struct conf conf = {
	.source = source_name,
	.listeners = listeners,
	.nlisteners = 2,
	.backends = backends,
	.nbackends = 2,
};

static inline struct addr parse_addr(const char *text)
{
	const char *error;
	struct addr addr;

	assert_int_equal(addr_parse(text, &addr, &error), 0);
	return addr;
}

static inline const struct conf *fake_conf_get(void *arg, void **ret_hold)
{
	struct world *world = arg;

	world->held++;
	*ret_hold = &world->held;
	return &conf;
}

static inline void fake_conf_put(void *arg, void *hold)
{
	struct world *world = arg;

	assert_ptr_equal(hold, &world->held);
	world->held--;
}

static inline void fake_info(void *arg, struct api_info *ret)
{
	*ret = ((struct world *)arg)->info;
}

static inline int fake_metrics(void *arg, bool openmetrics, char **ret_body, size_t *ret_len)
{
	struct world *world = arg;

	if (world->error)
		return world->error;
	*ret_body = strdup(openmetrics ? "# EOF\n" : "shunt_up 1\n");
	*ret_len = strlen(*ret_body);
	return 0;
}

static inline int fake_sessions(void *arg, struct api_session **ret, size_t *ret_n)
{
	struct world *world = arg;

	if (world->error)
		return world->error;
	*ret = world->nsessions ? malloc(sizeof(world->sessions)) : NULL;
	if (*ret)
		memcpy(*ret, world->sessions, sizeof(world->sessions));
	*ret_n = world->nsessions;
	return 0;
}

static inline bool fake_ready(void *arg, char *why, size_t size)
{
	struct world *world = arg;

	if (world->not_ready)
		snprintf(why, size, "%s", world->not_ready);
	return !world->not_ready;
}

static inline int PRINTF(2, 3) remember(struct world *world, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(world->order, sizeof(world->order), fmt, ap);
	va_end(ap);
	world->orders++;
	return world->error;
}

static inline int fake_close(void *arg, uint64_t id)
{
	return remember(arg, "close %llu", (unsigned long long)id);
}

static inline int fake_reload(void *arg, char *why, size_t size)
{
	struct world *world = arg;

	if (world->why)
		snprintf(why, size, "%s", world->why);
	if (!world->error)
		world->info.generation++;
	return remember(arg, "reload");
}

static inline int fake_upgrade(void *arg, char *why, size_t size)
{
	struct world *world = arg;

	if (world->why)
		snprintf(why, size, "%s", world->why);
	return remember(arg, "upgrade");
}

static inline int fake_drain(void *arg)
{
	return remember(arg, "drain");
}

static inline int fake_set_ready(void *arg, bool ready)
{
	((struct world *)arg)->info.not_ready = !ready;
	return remember(arg, "ready %d", ready);
}

static inline int fake_log_level(void *arg, enum log_level level)
{
	return remember(arg, "level %d", level);
}

static inline void fake_changed(void *arg, unsigned int slot)
{
	(void)remember(arg, "changed %u", slot);
}

static inline void fill_sessions(struct world *world)
{
	world->sessions[0] = (struct api_session){.id = 0x1f,
		.listener = web,
		.backend = app,
		.server = a_name,
		.client_addr = parse_addr("10.1.2.3:4444"),
		.server_addr = parse_addr("10.0.0.1:80"),
		.dirs = {{.path = PATH_SOCKMAP, .overflow = true, .bytes = {5, 1000, 0}},
			{.path = PATH_RELAY, .finished = true, .bytes = {7, 0, 0}}},
		.state = API_SESSION_OPEN,
		.age_ms = 61000,
		.idle_ms = 250};
	world->sessions[1] = (struct api_session){.id = UINT64_MAX,
		.listener = odd,
		.client_addr = parse_addr("[2001:db8::1]:5"),
		.state = API_SESSION_QUEUED};
	world->sessions[2] = (struct api_session){.id = 2,
		.listener = web,
		.backend = app,
		.server = odd,
		.client_addr = parse_addr("10.1.2.30:1"),
		.dirs = {{.path = PATH_SHORTCUT, .bytes = {0, 0, 5ull << 30}},
			{.path = PATH_SHORTCUT}},
		.state = API_SESSION_OPEN};
	world->nsessions = 3;
}

static inline int world_new(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	if (!world || stats_create(THREADS, &world->stats) < 0 ||
		stats_assign(world->stats, &conf) < 0)
		return -1;
	web_binds[0] = parse_addr("*:8080");
	web_binds[1] = parse_addr("[::1]:81");
	app_servers[0].addr = parse_addr("10.0.0.1:80");
	app_servers[1].addr = parse_addr("10.0.0.2:80");
	db_servers[0].addr = parse_addr("unix:/run/x.sock");
	world->stats->server_state[db_servers[0].slot].weight = 1;
	world->info = (struct api_info){.pid = 77,
		.worker_pid = 78,
		.threads = THREADS,
		.generation = 1,
		.kernel_path = true,
		.max_sessions = 1000,
		.sessions = 3};
	world->source = (struct api_source){.arg = world,
		.stats = world->stats,
		.version = "0.1.0",
		.conf_get = fake_conf_get,
		.conf_put = fake_conf_put,
		.info = fake_info,
		.metrics = fake_metrics,
		.sessions = fake_sessions,
		.ready = fake_ready};
	world->control = (struct control){.source = &world->source,
		.ops = {.arg = world,
			.close_session = fake_close,
			.reload = fake_reload,
			.upgrade = fake_upgrade,
			.drain = fake_drain,
			.set_ready = fake_set_ready,
			.set_log_level = fake_log_level,
			.server_changed = fake_changed}};
	fill_sessions(world);
	*state = world;
	return 0;
}

static inline int world_free(void **state)
{
	struct world *world = *state;

	assert_int_equal(world->held, 0);
	stats_free(world->stats);
	free(world);
	return 0;
}

#endif
