/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the reading of the shared memory for the API. Must not know how it is shown. */
#include "api_totals.h"

#include "conf.h"
#include "server_state.h"

#define NS_PER_MS 1000000u

const char *const server_admin_names[3] = {
	[SERVER_READY] = "ready",
	[SERVER_DRAIN] = "drain",
	[SERVER_MAINT] = "maint",
};

static void add_listener(struct listener_totals *totals, const struct stats_listener *row)
{
	totals->sessions += stats_get(&row->sessions);
	totals->overflows += stats_get(&row->overflows);
	for (unsigned int i = 0; i < END_REASON_COUNT; i++)
		totals->ended[i] += stats_get(&row->ended[i]);
	for (unsigned int i = 0; i < REJECT_REASON_COUNT; i++)
		totals->rejected[i] += stats_get(&row->rejected[i]);
	for (unsigned int d = 0; d < DIR_COUNT; d++)
		for (unsigned int p = 0; p < PATH_COUNT; p++)
			totals->bytes[d][p] += stats_get(&row->bytes[d][p]);
}

/* The rows are written meanwhile: an end may be seen before its start. */
static uint64_t difference(uint64_t sessions, uint64_t ended)
{
	return sessions > ended ? sessions - ended : 0;
}

struct listener_totals api_listener_totals(struct stats *stats, unsigned int slot)
{
	struct listener_totals totals = {0};
	uint64_t ended = 0;

	for (unsigned int t = 0; t < stats->threads; t++)
		add_listener(&totals, stats_listener_of(stats, t, slot));
	for (unsigned int i = 0; i < END_REASON_COUNT; i++)
		ended += totals.ended[i];
	totals.active = difference(totals.sessions, ended);
	return totals;
}

struct server_totals api_server_totals(struct stats *stats, unsigned int slot)
{
	struct server_totals totals = {0};
	uint64_t ended = 0;

	for (unsigned int t = 0; t < stats->threads; t++) {
		const struct stats_server *row = stats_server_of(stats, t, slot);

		totals.sessions += stats_get(&row->sessions);
		ended += stats_get(&row->ended);
		for (unsigned int i = 0; i < END_REASON_COUNT; i++)
			totals.connect_failures[i] += stats_get(&row->connect_failures[i]);
		for (unsigned int d = 0; d < DIR_COUNT; d++)
			totals.bytes[d] += stats_get(&row->bytes[d]);
	}
	totals.active = difference(totals.sessions, ended);
	return totals;
}

struct server_view api_server_view(const struct stats *stats, const struct conf_server *server)
{
	const struct server_state *state = &stats->server_state[server->slot];
	int32_t weight = atomic_load_explicit(&state->weight, memory_order_relaxed);
	uint64_t until = atomic_load_explicit(&state->ejected_until_ns, memory_order_relaxed);
	uint64_t now = now_ns();
	struct server_view view = {
		.admin = atomic_load_explicit(&state->admin, memory_order_relaxed),
		.weight = weight < 0 ? server->weight : (unsigned int)weight,
		.weight_is_operators = weight >= 0,
		.up = !atomic_load_explicit(&state->down, memory_order_relaxed),
		.ejected = until > now,
		.active = atomic_load_explicit(&state->active, memory_order_relaxed),
		.failures_in_row = atomic_load_explicit(&state->failures, memory_order_relaxed),
		.check_failures =
			atomic_load_explicit(&state->check_failures, memory_order_relaxed),
		.check_successes =
			atomic_load_explicit(&state->check_successes, memory_order_relaxed),
	};

	if (view.ejected)
		view.ejected_ms = (until - now) / NS_PER_MS;
	view.usable = view.admin == SERVER_READY && view.up && view.weight;
	return view;
}
