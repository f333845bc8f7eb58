/* SPDX-License-Identifier: BSD-2-Clause */
/* Which share of the sessions each server gets, and in which order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "balance_fixture.h"

static void turns_are_spread_by_weight(void **state)
{
	struct backend *b = backend_of(BALANCE_ROUND_ROBIN, 3);
	static const int expected[] = {0, 1, 0, 0, 2, 0, 0};

	(void)state;
	b->servers[0].weight = 5;
	for (unsigned int i = 0; i < 700; i++)
		assert_int_equal(pick(b), expected[i % 7]);
	backend_free(b);
}

/* Long enough for virtual time to be moved back, which happens early on purpose. */
static void nobody_is_ever_a_turn_ahead_or_behind(void **state)
{
	static const unsigned int weights[] = {1, 2, 3, 4, 5, 6, 7, 256, 3, 100};
	struct backend *b = backend_of(BALANCE_ROUND_ROBIN, ARRAY_LEN(weights));
	int64_t total = 0, counts[ARRAY_LEN(weights)] = {0};

	(void)state;
	for (unsigned int i = 0; i < b->n; i++)
		total += b->servers[i].weight = weights[i];
	for (int64_t k = 1; k <= 2000 * total; k++) {
		counts[pass(b)]++;
		for (unsigned int i = 0; i < b->n; i++) {
			int64_t off = counts[i] * total - k * weights[i];

			assert_true(off < total && off > -total);
			assert_true(k % total || off == 0);
		}
	}
	backend_free(b);
}

static void a_light_server_among_heavy_ones_gets_its_turn(void **state)
{
	struct backend *b = backend_of(BALANCE_ROUND_ROBIN, 1000);
	unsigned int counts[1000];

	(void)state;
	for (unsigned int i = 1; i < 1000; i++)
		b->servers[i].weight = 2;
	count_passes(b, 1999, counts);
	assert_int_equal(counts[0], 1);
	for (unsigned int i = 1; i < 1000; i++)
		assert_int_equal(counts[i], 2);
	backend_free(b);
}

static void threads_begin_with_different_servers(void **state)
{
	struct backend *a = backend_of(BALANCE_ROUND_ROBIN, 10),
		       *b = backend_of(BALANCE_ROUND_ROBIN, 10);

	(void)state;
	b->conf.seed = 13;
	assert_int_equal(pick(a), 0);
	assert_int_equal(pick(b), 3);
	assert_int_equal(pick(b), 4);
	backend_free(a);
	backend_free(b);
}

static void the_least_loaded_by_weight_is_chosen(void **state)
{
	struct backend *b = backend_of(BALANCE_LEAST_SESSIONS, 3);

	(void)state;
	b->servers[1].weight = 4;
	b->states[0].active = 3;
	b->states[1].active = 11;
	b->states[2].active = 4;
	assert_int_equal(pick(b), 1); /* 11/4, now 12/4 as server 0 */
	balance_release(&b->states[2]);
	balance_release(&b->states[2]);
	assert_int_equal(pick(b), 2); /* the change of another thread is seen */
	for (unsigned int i = 0; i < 600; i++)
		assert_true(pick(b) >= 0);
	assert_in_range(b->states[1].active, 4 * (uint64_t)b->states[0].active - 4,
		4 * (uint64_t)b->states[0].active + 4);
	assert_in_range(b->states[2].active, b->states[0].active - 1, b->states[0].active + 1);
	backend_free(b);
}

static void equally_loaded_servers_take_weighted_turns(void **state)
{
	struct backend *b = backend_of(BALANCE_LEAST_SESSIONS, 3);
	unsigned int counts[3];

	(void)state;
	b->servers[1].weight = 2;
	b->states[2].active = 1;
	count_passes(b, 300, counts);
	assert_int_equal(counts[2], 0);
	assert_in_range(counts[1], 199, 201);
	b->states[2].active = 0;
	/* It does not make up for the turns it missed. */
	count_passes(b, 40, counts);
	assert_in_range(counts[2], 9, 12);
	backend_free(b);
}

static void what_other_threads_do_is_seen_in_time(void **state)
{
	struct backend *b = backend_of(BALANCE_LEAST_SESSIONS, 1000);

	(void)state;
	for (unsigned int i = 0; i < 1000; i++)
		b->states[i].active = 5;
	assert_true(pass(b) >= 0);
	b->states[500].active = b->states[501].active = 4;
	b->now_ns += BALANCE_STALE_NS;
	assert_int_equal(pick(b), 500);
	b->states[501].active = 6; /* growth even at once */
	assert_int_not_equal(pick(b), 501);
	backend_free(b);
}

/* The deviation of two draws is known: much less than of one. */
static void two_draws_balance_by_weight(void **state)
{
	struct backend *b = backend_of(BALANCE_RANDOM_TWO, 100);

	(void)state;
	for (unsigned int i = 0; i < 50; i++)
		b->servers[i].weight = 3;
	for (unsigned int i = 0; i < 200 * 100; i++)
		assert_true(pick(b) >= 0);
	for (unsigned int i = 0; i < 100; i++)
		assert_in_range(b->states[i].active, i < 50 ? 290 : 94, i < 50 ? 310 : 106);
	backend_free(b);
}

static void of_two_servers_two_draws_find_the_better_one(void **state)
{
	struct backend *b = backend_of(BALANCE_RANDOM_TWO, 2);

	(void)state;
	b->states[0].active = 100;
	for (unsigned int i = 0; i < 99; i++)
		assert_int_equal(pick(b), 1);
	backend_free(b);
}

static void an_operators_weight_counts(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 3);
		unsigned int counts[3];

		b->servers[2].weight = 0;
		count_passes(b, 4000, counts);
		assert_int_equal(counts[2], 0);
		b->states[0].weight = 3;
		b->states[2].weight = 2; /* also where the configuration drains it */
		count_passes(b, 6000, counts);
		/* Two draws that find equal loads prefer the heavier ones. */
		assert_in_range(counts[1], all_modes[m] == BALANCE_RANDOM_TWO ? 600 : 850, 1150);
		assert_in_range(counts[0], 2700, 3300);
		backend_free(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(turns_are_spread_by_weight),
		cmocka_unit_test(nobody_is_ever_a_turn_ahead_or_behind),
		cmocka_unit_test(a_light_server_among_heavy_ones_gets_its_turn),
		cmocka_unit_test(threads_begin_with_different_servers),
		cmocka_unit_test(the_least_loaded_by_weight_is_chosen),
		cmocka_unit_test(equally_loaded_servers_take_weighted_turns),
		cmocka_unit_test(what_other_threads_do_is_seen_in_time),
		cmocka_unit_test(two_draws_balance_by_weight),
		cmocka_unit_test(of_two_servers_two_draws_find_the_better_one),
		cmocka_unit_test(an_operators_weight_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
