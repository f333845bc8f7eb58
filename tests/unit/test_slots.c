/* SPDX-License-Identifier: BSD-2-Clause */
/* Slots: what keeps its name keeps its counters, its health and the operator's word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../daemon/conf.h"
#include "../../daemon/server_state.h"
#include "../../daemon/stats.h"

static char text[STATS_SERVERS_MAX + 8][12];
static struct conf_server servers[STATS_SERVERS_MAX + 8];
static char backend_name[] = "app";
static struct conf_backend backend = {.name = backend_name, .servers = servers};
static struct conf conf = {.backends = &backend, .nbackends = 1};

static int setup(void **state)
{
	struct stats *stats;

	if (stats_create(2, &stats) < 0)
		return -1;
	*state = stats;
	return 0;
}

static int teardown(void **state)
{
	stats_free(*state);
	return 0;
}

/* Servers named first, first + 1, ... */
static int assign(struct stats *stats, unsigned int first, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		snprintf(text[i], sizeof(text[i]), "s%u", first + i);
		servers[i].name = text[i];
	}
	backend.nservers = n;
	return stats_assign(stats, &conf);
}

static void a_server_that_stays_keeps_everything(void **state)
{
	struct stats *stats = *state;
	unsigned int slot;

	assert_int_equal(assign(stats, 0, 3), 0);
	slot = servers[1].slot;
	stats_add(&stats_server_of(stats, 1, slot)->sessions, 5);
	stats->server_state[slot].admin = SERVER_DRAIN;
	stats->server_state[slot].weight = 7;
	assert_int_equal(assign(stats, 1, 5), 0);
	assert_int_equal(servers[0].slot, slot);
	assert_int_equal(stats_get(&stats_server_of(stats, 1, slot)->sessions), 5);
	assert_int_equal(stats->server_state[slot].admin, SERVER_DRAIN);
	assert_int_equal(stats->server_state[slot].weight, 7);
}

static void a_new_server_starts_with_its_configured_weight_and_no_history(void **state)
{
	struct stats *stats = *state;

	assert_int_equal(assign(stats, 0, 2), 0);
	assert_int_equal(stats->server_state[servers[1].slot].weight, SERVER_WEIGHT_CONFIGURED);
	assert_int_equal(stats->server_state[servers[1].slot].admin, SERVER_READY);
	assert_int_not_equal(servers[0].slot, servers[1].slot);
}

static void the_same_configuration_gets_the_same_slots_again(void **state)
{
	struct stats *stats = *state;
	unsigned int slots[100];

	assert_int_equal(assign(stats, 0, 100), 0);
	for (unsigned int i = 0; i < 100; i++)
		slots[i] = servers[i].slot;
	assert_int_equal(assign(stats, 0, 100), 0);
	for (unsigned int i = 0; i < 100; i++)
		assert_int_equal(servers[i].slot, slots[i]);
	assert_int_equal(stats->servers, 100);
}

static void a_server_that_comes_back_finds_its_counts(void **state)
{
	struct stats *stats = *state;
	unsigned int slot;

	assert_int_equal(assign(stats, 0, 1), 0);
	slot = servers[0].slot;
	stats_add(&stats_server_of(stats, 0, slot)->sessions, 9);
	assert_int_equal(assign(stats, 50, 1), 0);
	assert_int_equal(assign(stats, 0, 1), 0);
	assert_int_equal(servers[0].slot, slot);
	assert_int_equal(stats_get(&stats_server_of(stats, 0, slot)->sessions), 9);
}

static void slots_of_the_gone_are_taken_again_when_there_is_no_other(void **state)
{
	struct stats *stats = *state;
	unsigned int busy;

	assert_int_equal(assign(stats, 0, STATS_SERVERS_MAX), 0);
	busy = servers[3].slot;
	stats_add(&stats_server_of(stats, 0, busy)->sessions, 1); /* still has a session */
	assert_int_equal(assign(stats, 100000, 2), 0);
	assert_int_not_equal(servers[0].slot, servers[1].slot);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_not_equal(servers[i].slot, busy);
		assert_int_equal(
			stats_get(&stats_server_of(stats, 0, servers[i].slot)->sessions), 0);
	}
}

static void more_servers_than_slots_are_refused(void **state)
{
	assert_int_equal(assign(*state, 0, STATS_SERVERS_MAX + 1), -28 /* ENOSPC */);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_server_that_stays_keeps_everything),
		TEST(a_new_server_starts_with_its_configured_weight_and_no_history),
		TEST(the_same_configuration_gets_the_same_slots_again),
		TEST(a_server_that_comes_back_finds_its_counts),
		TEST(slots_of_the_gone_are_taken_again_when_there_is_no_other),
		TEST(more_servers_than_slots_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
