/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the layout of the shared mapping. Must not know how the counters are shown. */
#include "stats.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#include "conf.h"

/* Two threads must not write to one cache line: each thread's rows start on a line of their own. */
#define CACHE_LINE 64

const char *const direction_names[DIR_COUNT] = {
	[DIR_C2S] = "c2s",
	[DIR_S2C] = "s2c",
};

const char *const path_names[PATH_COUNT] = {
	[PATH_RELAY] = "relay",
	[PATH_SOCKMAP] = "sockmap",
	[PATH_SHORTCUT] = "shortcut",
};

/* Dense where a connect ends (100 us to 10 s), coarse where a session does (up to an hour). */
/* clang-format off */
const uint64_t stats_bucket_us[STATS_BUCKETS - 1] = {
	100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
	1000000, 2500000, 5000000, 10000000, 60000000, 600000000, 3600000000,
};
/* clang-format on */

static size_t round_up(size_t size)
{
	return (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

static size_t listener_row_size(const struct stats *stats)
{
	return round_up(stats->listeners * sizeof(struct stats_listener));
}

static size_t server_row_size(const struct stats *stats)
{
	return round_up(stats->servers * sizeof(struct stats_server));
}

static size_t mapping_size(const struct stats *stats)
{
	return round_up(sizeof(*stats)) + round_up(stats->threads * sizeof(*stats->thread)) +
	       stats->threads * (listener_row_size(stats) + server_row_size(stats));
}

int stats_create(const struct conf *conf, unsigned int threads, struct stats **ret)
{
	struct stats head = {
		.threads = threads,
		.listeners = conf->nlisteners,
		.start_time = (uint64_t)time(NULL),
	};
	struct stats *stats;
	unsigned int i;
	char *at;

	for (i = 0; i < conf->nbackends; i++)
		head.servers += conf->backends[i].nservers;
	at = mmap(NULL, mapping_size(&head), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		0);
	if (at == MAP_FAILED)
		return -ENOMEM;
	stats = (struct stats *)(void *)at;
	stats->threads = head.threads;
	stats->listeners = head.listeners;
	stats->servers = head.servers;
	stats->start_time = head.start_time;
	at += round_up(sizeof(*stats));
	stats->thread = (struct stats_thread *)(void *)at;
	at += round_up(threads * sizeof(*stats->thread));
	stats->listener = (struct stats_listener *)(void *)at;
	at += threads * listener_row_size(stats);
	stats->server = (struct stats_server *)(void *)at;
	*ret = stats;
	return 0;
}

void stats_free(struct stats *stats)
{
	if (stats)
		munmap(stats, mapping_size(stats));
}

struct stats_listener *stats_listener_of(
	struct stats *stats, unsigned int thread, unsigned int listener)
{
	char *row = (char *)stats->listener + thread * listener_row_size(stats);

	return (struct stats_listener *)(void *)row + listener;
}

struct stats_server *stats_server_of(struct stats *stats, unsigned int thread, unsigned int server)
{
	char *row = (char *)stats->server + thread * server_row_size(stats);

	return (struct stats_server *)(void *)row + server;
}

/* The worker may have died between the two counts of one session: never below 0. */
static void end_open_sessions(struct stats_listener *listener)
{
	uint64_t ended = 0, sessions = stats_get(&listener->sessions);
	unsigned int i;

	for (i = 0; i < END_REASON_COUNT; i++)
		ended += stats_get(&listener->ended[i]);
	if (sessions > ended)
		stats_add(&listener->ended[END_WORKER_DIED], sessions - ended);
}

void stats_worker_died(struct stats *stats)
{
	unsigned int i, j;

	for (i = 0; i < stats->threads; i++) {
		struct stats_thread *thread = &stats->thread[i];

		for (j = 0; j < PATH_COUNT; j++)
			atomic_store_explicit(
				&thread->directions_active[j], 0, memory_order_relaxed);
		atomic_store_explicit(&thread->overflow_active, 0, memory_order_relaxed);
		for (j = 0; j < stats->listeners; j++)
			end_open_sessions(stats_listener_of(stats, i, j));
		for (j = 0; j < stats->servers; j++) {
			struct stats_server *server = stats_server_of(stats, i, j);
			uint64_t sessions = stats_get(&server->sessions);

			if (sessions > stats_get(&server->ended))
				stats_add(&server->ended, sessions - stats_get(&server->ended));
		}
	}
}

void stats_observe(struct stats_histogram *histogram, uint64_t us)
{
	unsigned int i = 0;

	while (i < STATS_BUCKETS - 1 && us > stats_bucket_us[i])
		i++;
	stats_add(&histogram->buckets[i], 1);
	stats_add(&histogram->sum_us, us);
}
