/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the layout of the shared mapping. Must not know how the counters are shown. */
#include "stats.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#include "conf.h"
#include "server_state.h"

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

#define LISTENER_ROW round_up(STATS_LISTENERS_MAX * sizeof(struct stats_listener))
#define SERVER_ROW round_up(STATS_SERVERS_MAX * sizeof(struct stats_server))

static size_t mapping_size(unsigned int threads)
{
	return round_up(sizeof(struct stats)) + round_up(threads * sizeof(struct stats_thread)) +
	       threads * (LISTENER_ROW + SERVER_ROW) +
	       round_up(STATS_SERVERS_MAX * sizeof(struct server_state)) +
	       round_up(STATS_LISTENERS_MAX * sizeof(_Atomic uint32_t)) +
	       round_up(STATS_LISTENERS_MAX * sizeof(struct stats_name)) +
	       round_up(STATS_SERVERS_MAX * sizeof(struct stats_name));
}

static void *carve(char **at, size_t size)
{
	void *part = *at;

	*at += round_up(size);
	return part;
}

int stats_create(unsigned int threads, struct stats **ret)
{
	struct stats *stats;
	char *at = mmap(NULL, mapping_size(threads), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return -ENOMEM;
	stats = carve(&at, sizeof(*stats));
	stats->threads = threads;
	stats->start_time = (uint64_t)time(NULL);
	stats->thread = carve(&at, threads * sizeof(*stats->thread));
	stats->listener = carve(&at, threads * LISTENER_ROW);
	stats->server = carve(&at, threads * SERVER_ROW);
	stats->server_state = carve(&at, STATS_SERVERS_MAX * sizeof(*stats->server_state));
	stats->listener_active = carve(&at, STATS_LISTENERS_MAX * sizeof(_Atomic uint32_t));
	stats->listener_names = carve(&at, STATS_LISTENERS_MAX * sizeof(struct stats_name));
	stats->server_names = carve(&at, STATS_SERVERS_MAX * sizeof(struct stats_name));
	*ret = stats;
	return 0;
}

void stats_free(struct stats *stats)
{
	if (stats)
		munmap(stats, mapping_size(stats->threads));
}

struct stats_listener *stats_listener_of(
	struct stats *stats, unsigned int thread, unsigned int slot)
{
	char *row = (char *)stats->listener + thread * LISTENER_ROW;

	return (struct stats_listener *)(void *)row + slot;
}

struct stats_server *stats_server_of(struct stats *stats, unsigned int thread, unsigned int slot)
{
	char *row = (char *)stats->server + thread * SERVER_ROW;

	return (struct stats_server *)(void *)row + slot;
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

	for (i = 0; i < stats->listeners; i++)
		stats->listener_active[i] = 0;
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
			stats->server_state[j].active = 0;
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
