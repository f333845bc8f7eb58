/* SPDX-License-Identifier: BSD-2-Clause */
/* A backend whose servers only exist as states. Include cmocka.h first. */
#ifndef SHUNT_BALANCE_FIXTURE_H
#define SHUNT_BALANCE_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../daemon/balance.h"
#include "../../daemon/maglev.h"

#define SERVERS_MAX 1000
#define SECOND 1000000000ull

static const enum balance_mode all_modes[] = {
	BALANCE_ROUND_ROBIN, BALANCE_LEAST_SESSIONS, BALANCE_RANDOM_TWO, BALANCE_SOURCE_HASH};

/* Servers "s0", "s1", ... of weight 1; now_ns is a clock that the test moves. */
struct backend {
	struct server_state states[SERVERS_MAX];
	char names[SERVERS_MAX][12];
	struct balance_server servers[SERVERS_MAX];
	unsigned int n;
	struct balance_conf conf;
	struct balance *balance;
	uint64_t now_ns, client;
};

static struct backend *backend_of(enum balance_mode mode, unsigned int n)
{
	struct backend *backend = calloc(1, sizeof(*backend));

	assert_non_null(backend);
	backend->n = n;
	backend->conf.mode = mode;
	backend->now_ns = 1000 * SECOND;
	for (unsigned int i = 0; i < n; i++) {
		snprintf(backend->names[i], sizeof(backend->names[i]), "s%u", i);
		backend->states[i].weight = SERVER_WEIGHT_CONFIGURED;
		backend->servers[i] = (struct balance_server){
			.name = backend->names[i], .state = &backend->states[i], .weight = 1};
	}
	return backend;
}

static int pick_not(struct backend *backend, const struct balance_tried *tried)
{
	if (!backend->balance) {
		backend->balance = balance_new(&backend->conf, backend->servers, backend->n);
		assert_non_null(backend->balance);
	}
	return balance_pick(
		backend->balance, backend->now_ns, maglev_mix(++backend->client), tried);
}

static int pick(struct backend *backend)
{
	return pick_not(backend, NULL);
}

/* A session that ends at once. */
static inline int pass(struct backend *backend)
{
	int i = pick(backend);

	if (i >= 0)
		balance_release(&backend->states[i]);
	return i;
}

/* How many of so many sessions, each over before the next, each server gets. */
static inline void count_passes(
	struct backend *backend, unsigned int sessions, unsigned int *counts)
{
	memset(counts, 0, backend->n * sizeof(*counts));
	while (sessions--) {
		int i = pass(backend);

		assert_true(i >= 0);
		counts[i]++;
	}
}

static void backend_free(struct backend *backend)
{
	balance_free(backend->balance);
	free(backend);
}

#endif
