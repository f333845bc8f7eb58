/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The counters. They live in memory shared by supervisor and worker, so that they survive a
 * worker's death. Each event loop thread has a block of its own and is its only writer: no atomic
 * read-modify-write is needed on the data path, and readers add the blocks up.
 */
#ifndef SHUNT_STATS_H
#define SHUNT_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "reasons.h"
#include "util.h"

struct conf;

typedef _Atomic uint64_t stats_counter;

enum direction { DIR_C2S, DIR_S2C, DIR_COUNT };
enum path { PATH_RELAY, PATH_SOCKMAP, PATH_SHORTCUT, PATH_COUNT };

extern const char *const direction_names[DIR_COUNT]; /* "c2s", "s2c" */
extern const char *const path_names[PATH_COUNT]; /* "relay", "sockmap", "shortcut" */

/* Bucket bounds are in stats.c, in microseconds; the last bucket is +Inf. */
#define STATS_BUCKETS 20
struct stats_histogram {
	stats_counter buckets[STATS_BUCKETS];
	stats_counter sum_us;
};
extern const uint64_t stats_bucket_us[STATS_BUCKETS - 1];

struct stats_listener {
	stats_counter sessions;
	stats_counter ended[END_REASON_COUNT]; /* active = sessions - all of these */
	stats_counter rejected[REJECT_REASON_COUNT];
	stats_counter bytes[DIR_COUNT][PATH_COUNT];
	stats_counter overflows;
	struct stats_histogram session_duration;
};

struct stats_server {
	stats_counter sessions;
	stats_counter ended;
	stats_counter
		connect_failures[END_REASON_COUNT]; /* only the END_CONNECT_* entries are used */
	stats_counter bytes[DIR_COUNT];
	struct stats_histogram connect_duration;
};

struct stats_thread {
	/* Each block on cache lines of its own: two threads must not write to one line. */
	_Alignas(64) stats_counter fallbacks[FALLBACK_REASON_COUNT];
	stats_counter directions_active[PATH_COUNT]; /* a gauge: reset when a worker starts */
	stats_counter overflow_active; /* a gauge as well */
	stats_counter accept_pauses;
	struct stats_histogram overflow_duration;
};

/*
 * Listeners and servers have slots, found by name: a reload that keeps a name keeps its counters,
 * its health and the operator's word. A slot whose name is gone is taken again only when there is
 * no free one.
 */
#define STATS_LISTENERS_MAX 1024
#define STATS_SERVERS_MAX 16384
#define STATS_NAME_MAX 104 /* "backend server", with the longest of both */

struct stats_name {
	char text[STATS_NAME_MAX]; /* "": free */
	uint64_t hash;
	uint32_t in_use; /* by the configuration of now */
	uint32_t reserved;
};

struct stats {
	unsigned int threads;
	unsigned int listeners, servers; /* slots that were ever taken */
	uint64_t start_time; /* seconds since the epoch */
	stats_counter worker_restarts;
	stats_counter config_reloads_ok, config_reloads_error;
	struct stats_thread *thread; /* [threads] */
	struct stats_listener *listener; /* [threads][STATS_LISTENERS_MAX] */
	struct stats_server *server; /* [threads][STATS_SERVERS_MAX] */
	struct server_state *server_state; /* [STATS_SERVERS_MAX] */
	/* Sessions now, of all threads: what max_sessions counts. [STATS_LISTENERS_MAX] */
	_Atomic uint32_t *listener_active;
	struct stats_name *listener_names; /* [STATS_LISTENERS_MAX] */
	struct stats_name *server_names; /* [STATS_SERVERS_MAX] */
};

/* A zeroed shared mapping, inherited by fork(); it takes memory only where it is used. 0 or
 * -ENOMEM. Freed by stats_free() or exit. */
MUST_CHECK int stats_create(unsigned int threads, struct stats **ret);
void stats_free(struct stats *stats);

/* Gives every listener and server of the configuration its slot. -ENOSPC: more than there are
 * slots. By one process at a time: the supervisor before it hands the configuration to a worker,
 * which finds the same. */
MUST_CHECK int stats_assign(struct stats *stats, struct conf *conf);

struct stats_listener *stats_listener_of(
	struct stats *stats, unsigned int thread, unsigned int slot);
struct stats_server *stats_server_of(struct stats *stats, unsigned int thread, unsigned int slot);

/* After a worker's death: its gauges go to 0 and its open sessions count as ended by it. */
void stats_worker_died(struct stats *stats);

/* For the one writer of a counter. */
static inline void stats_add(stats_counter *counter, uint64_t n)
{
	uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, value + n, memory_order_relaxed);
}

static inline void stats_sub(stats_counter *counter, uint64_t n)
{
	stats_add(counter, -n);
}

static inline uint64_t stats_get(const stats_counter *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void stats_observe(struct stats_histogram *histogram, uint64_t us);

#endif
