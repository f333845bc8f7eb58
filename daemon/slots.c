/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns which listener and server counts where: stats_assign(). Must not know what is counted. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "conf.h"
#include "server_state.h"
#include "stats.h"

/* FNV-1a: only to skip most comparisons. */
static uint64_t hash_of(const char *text)
{
	uint64_t hash = 14695981039346656037ull;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 1099511628211ull;
	return hash;
}

struct slot_table {
	struct stats_name *names;
	unsigned int *used; /* slots that were ever taken */
	unsigned int max;
	void (*clear)(struct stats *stats, unsigned int slot);
	bool (*idle)(struct stats *stats, unsigned int slot);
};

static void clear_listener(struct stats *stats, unsigned int slot)
{
	for (unsigned int t = 0; t < stats->threads; t++)
		memset(stats_listener_of(stats, t, slot), 0, sizeof(struct stats_listener));
}

static void clear_server(struct stats *stats, unsigned int slot)
{
	for (unsigned int t = 0; t < stats->threads; t++)
		memset(stats_server_of(stats, t, slot), 0, sizeof(struct stats_server));
	memset(&stats->server_state[slot], 0, sizeof(struct server_state));
	stats->server_state[slot].weight = SERVER_WEIGHT_CONFIGURED;
}

/* Sessions of a removed listener or server still count into its slot. */
static bool listener_idle(struct stats *stats, unsigned int slot)
{
	uint64_t open = 0;

	for (unsigned int t = 0; t < stats->threads; t++) {
		const struct stats_listener *row = stats_listener_of(stats, t, slot);

		open += stats_get(&row->sessions);
		for (unsigned int r = 0; r < END_REASON_COUNT; r++)
			open -= stats_get(&row->ended[r]);
	}
	return !open;
}

static bool server_idle(struct stats *stats, unsigned int slot)
{
	uint64_t open = 0;

	for (unsigned int t = 0; t < stats->threads; t++) {
		const struct stats_server *row = stats_server_of(stats, t, slot);

		open += stats_get(&row->sessions) - stats_get(&row->ended);
	}
	return !open;
}

static int find(const struct slot_table *table, const char *text, uint64_t hash)
{
	for (unsigned int i = 0; i < *table->used; i++)
		if (table->names[i].hash == hash && !strcmp(table->names[i].text, text))
			return (int)i;
	return -1;
}

static int take(struct stats *stats, const struct slot_table *table)
{
	if (*table->used < table->max)
		return (int)(*table->used)++;
	for (unsigned int i = 0; i < table->max; i++)
		if (!table->names[i].in_use && table->idle(stats, i))
			return (int)i;
	return -ENOSPC;
}

static int assign(
	struct stats *stats, const struct slot_table *table, const char *text, unsigned int *ret)
{
	uint64_t hash = hash_of(text);
	int slot = find(table, text, hash);

	if (slot < 0) {
		slot = take(stats, table);
		if (slot < 0)
			return slot;
		table->clear(stats, (unsigned int)slot);
		snprintf(table->names[slot].text, STATS_NAME_MAX, "%s", text);
		table->names[slot].hash = hash;
	}
	table->names[slot].in_use = 1;
	*ret = (unsigned int)slot;
	return 0;
}

static int assign_servers(
	struct stats *stats, const struct slot_table *table, struct conf_backend *backend)
{
	int err = 0;

	for (unsigned int i = 0; i < backend->nservers && !err; i++) {
		char text[STATS_NAME_MAX];

		/* Names may hold a slash, but no space. */
		snprintf(text, sizeof(text), "%s %s", backend->name, backend->servers[i].name);
		err = assign(stats, table, text, &backend->servers[i].slot);
	}
	return err;
}

int stats_assign(struct stats *stats, struct conf *conf)
{
	const struct slot_table listeners = {stats->listener_names, &stats->listeners,
		STATS_LISTENERS_MAX, clear_listener, listener_idle};
	const struct slot_table servers = {
		stats->server_names, &stats->servers, STATS_SERVERS_MAX, clear_server, server_idle};
	int err = 0;

	for (unsigned int i = 0; i < stats->listeners; i++)
		stats->listener_names[i].in_use = 0;
	for (unsigned int i = 0; i < stats->servers; i++)
		stats->server_names[i].in_use = 0;
	for (unsigned int i = 0; i < conf->nlisteners && !err; i++)
		err = assign(stats, &listeners, conf->listeners[i].name, &conf->listeners[i].slot);
	for (unsigned int i = 0; i < conf->nbackends && !err; i++)
		err = assign_servers(stats, &servers, &conf->backends[i]);
	return err;
}
