/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the rules on the shared state of single servers: who is up, sessions, ejection. */
#include "balance.h"

uint32_t balance_weight(const struct balance_server *server)
{
	int32_t weight = atomic_load_explicit(&server->state->weight, memory_order_relaxed);

	if (weight < 0)
		return MIN(server->weight, BALANCE_WEIGHT_MAX);
	return MIN((uint32_t)weight, BALANCE_WEIGHT_MAX);
}

bool balance_is_up(const struct balance_server *server)
{
	const struct server_state *state = server->state;

	return atomic_load_explicit(&state->admin, memory_order_relaxed) == SERVER_READY &&
	       !atomic_load_explicit(&state->down, memory_order_relaxed) && balance_weight(server);
}

bool balance_is_ejected(const struct server_state *state, uint64_t now_ns)
{
	return atomic_load(&state->ejected_until_ns) > now_ns;
}

bool balance_claim(const struct balance_server *server)
{
	_Atomic uint32_t *active = &server->state->active;
	uint32_t n = atomic_load_explicit(active, memory_order_relaxed);

	do {
		if (server->max_sessions && n >= server->max_sessions)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		active, &n, n + 1, memory_order_relaxed, memory_order_relaxed));
	return true;
}

void balance_release(struct server_state *state)
{
	atomic_fetch_sub_explicit(&state->active, 1, memory_order_relaxed);
}

static uint64_t ejection_time(const struct balance_ejection *conf, uint32_t ejections)
{
	uint64_t max = conf->time_max_ns ? conf->time_max_ns : UINT64_MAX / 4;
	uint64_t time = conf->time_ns;

	while (ejections-- && time < max)
		time *= 2;
	return MIN(time, max);
}

static bool too_many_are_ejected(const struct balance_server *servers, unsigned int n,
	const struct balance_ejection *conf, uint64_t now_ns)
{
	uint64_t up = 0, ejected = 0, allowed;

	for (unsigned int i = 0; i < n; i++) {
		if (!balance_is_up(&servers[i]))
			continue;
		up++;
		ejected += balance_is_ejected(servers[i].state, now_ns);
	}
	allowed = MAX(up * conf->max_percent / 100, 1);
	return ejected > allowed || ejected >= up;
}

bool balance_note_failure(const struct balance_server *servers, unsigned int n, unsigned int failed,
	const struct balance_ejection *conf, uint64_t now_ns)
{
	struct server_state *state = servers[failed].state;
	uint64_t before = atomic_load(&state->ejected_until_ns), until;
	uint32_t failures;

	if (before > now_ns)
		return false;
	failures = atomic_fetch_add(&state->failures, 1) + 1;
	/* Ejecting one that is down anyway could leave all ejected when they come up again. */
	if (!conf->time_ns || failures < conf->threshold || !balance_is_up(&servers[failed]))
		return false;
	until = now_ns + ejection_time(conf, failures - conf->threshold);
	if (!atomic_compare_exchange_strong(&state->ejected_until_ns, &before, until))
		return false;
	/* Eject first, count then: of threads that do so at the same time one at least sees the
	 * others' ejections and takes its own back. The other order could eject all. */
	if (!too_many_are_ejected(servers, n, conf, now_ns))
		return true;
	atomic_store(&state->ejected_until_ns, before);
	/* Else the time would double for ejections that never were. */
	atomic_fetch_sub(&state->failures, 1);
	return false;
}

void balance_note_success(struct server_state *state)
{
	/* The common case writes nothing: the line is shared by all threads. */
	if (atomic_load_explicit(&state->failures, memory_order_relaxed))
		atomic_store(&state->failures, 0);
}
