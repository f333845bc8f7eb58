/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which server of a backend gets the next session. A struct balance belongs to one thread and takes
 * no lock and no system call; what threads and processes share is in struct server_state.
 *
 * A server is usable when it is READY, not down, not ejected and its weight is not 0. Backups are
 * used, all of them in proportion to their weights, when no other server is usable. Ejected servers
 * are used when nothing else is: ejection alone never makes a backend fail. Servers that this
 * session has tried count as not usable for it. A full server is usable: the session waits for it,
 * it does not go to a backup.
 *
 * round_robin     each server has its share within one session at any time, and its turns are
 * spread least_sessions  the least sessions per weight; where several have, they take weighted
 * turns random_two      two different ones drawn by weight, and of them the fewer sessions per
 * weight source_hash     Maglev (maglev.h). The clients of a server that cannot be used go to the
 * next server of the table, others stay, and they return with it. The table is built anew only when
 * a weight changes, at most once a second; an operator's weight of 0 only drains.
 *
 * slow_start: after up_since_ns or an ejection the weight grows from 1/32 to its full value, in 256
 * steps. With source_hash that share of the server's clients go to it, the others where they went
 * without it; each of them moves once. It does not apply to max_sessions.
 */
#ifndef SHUNT_BALANCE_H
#define SHUNT_BALANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "conf.h"
#include "server_state.h"

#define BALANCE_WEIGHT_MAX 4096 /* more counts as this */

/* What balance_pick() returns where it picks none. */
#define BALANCE_NONE (-1) /* no server is usable */
#define BALANCE_FULL (-2) /* those that are usable have max_sessions: wait in the queue */
#define BALANCE_ALL_TRIED \
	(-3) /* this session has tried all that are usable: give up, or wait and forget */

struct balance_server {
	const char *name; /* stands for the server in source_hash; not kept */
	struct server_state *state;
	uint32_t weight; /* configured; 0: drained */
	uint32_t max_sessions; /* 0: off */
	bool backup;
};

struct balance_ejection {
	uint64_t time_ns; /* of the first ejection, then twice that and so on; 0: never */
	uint64_t time_max_ns; /* 0: no limit */
	unsigned int threshold; /* failures in a row */
	unsigned int
		max_percent; /* of the servers that could be used; but one may go, and one stays */
};

struct balance_conf {
	enum balance_mode mode;
	uint64_t slow_start_ns; /* 0: off */
	uint64_t seed; /* differs per thread, so that they do not all begin with the same server */
};

/* The servers that a session has tried. Zero: none. The oldest is forgotten when there are more. */
#define BALANCE_TRIED_MAX 8

struct balance_tried {
	uint32_t n; /* ever added */
	uint32_t servers[BALANCE_TRIED_MAX];
};

void balance_tried_add(struct balance_tried *tried, unsigned int server);

struct balance;

/* Copies the servers; their states must live on. NULL: out of memory. */
struct balance *balance_new(
	const struct balance_conf *conf, const struct balance_server *servers, unsigned int n);
void balance_free(struct balance *balance); /* NULL is fine */

/* The number of a server, or one of the words above. The session is counted in state->active at
 * once, so that threads together never exceed max_sessions: whoever picks must balance_release().
 * tried may be NULL. client_hash (maglev_client_hash()) matters to source_hash alone.
 *
 * Other threads' changes to a server that make it unusable or full are seen at once; those that
 * make it usable at the latest after BALANCE_STALE_NS, and always before none is picked. So with n
 * servers a pick costs O(log n), but the answer that there is none, and a pick after
 * BALANCE_STALE_NS, O(n). */
#define BALANCE_STALE_NS 10000000ull
int balance_pick(struct balance *balance, uint64_t now_ns, uint64_t client_hash,
	const struct balance_tried *tried);

/* The end of a session, or of the attempt to connect it. Any thread; no balance is needed. */
void balance_release(struct server_state *state);

/* The rest is about single servers and needs no balance either. */

/* The operator's weight, else the configured one. */
uint32_t balance_weight(const struct balance_server *server);
/* READY, not down, and of a weight. It may be ejected. */
bool balance_is_up(const struct balance_server *server);
bool balance_is_ejected(const struct server_state *state, uint64_t now_ns);

/* Counts one more session unless the server is full. */
MUST_CHECK bool balance_claim(const struct balance_server *server);

/* A connect failure or an early abort. True: the server is ejected from now on. Failures while it
 * is ejected do not count: they began before. */
bool balance_note_failure(const struct balance_server *servers, unsigned int n, unsigned int failed,
	const struct balance_ejection *conf, uint64_t now_ns);

/* A server that accepts and aborts is broken too: call it when the server has said something or the
 * session has lived, not when it is connected. Does not shorten an ejection, but the next one
 * starts small. */
void balance_note_success(struct server_state *state);

#endif
