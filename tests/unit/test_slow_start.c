/* SPDX-License-Identifier: BSD-2-Clause */
/* A server that comes up gets its share little by little, whatever the algorithm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "balance_fixture.h"

#define SLOW (10 * SECOND)
#define SERVERS 10

static struct backend *starting(enum balance_mode mode)
{
	struct backend *b = backend_of(mode, SERVERS);

	b->conf.slow_start_ns = SLOW;
	assert_true(pass(b) >= 0);
	return b;
}

/* Of so many sessions while the server is at this part of its slow start, in per mille. */
static unsigned int share_at(struct backend *b, uint64_t since_ns, unsigned int percent)
{
	unsigned int got = 0;

	b->now_ns = since_ns + SLOW / 100 * percent - SLOW / 200;
	for (unsigned int i = 0; i < 10000; i++) {
		b->now_ns += SLOW / 100 / 10000;
		got += pass(b) == 0;
	}
	return got / 10;
}

static void expect_growth(struct backend *b, uint64_t since_ns)
{
	static const unsigned int percents[] = {4, 10, 25, 50, 75, 90, 102, 200};

	for (unsigned int i = 0; i < ARRAY_LEN(percents); i++) {
		unsigned int percent = MIN(percents[i], 100);
		unsigned int expected = 1000 * percent / (100 * (SERVERS - 1) + percent);

		assert_in_range(share_at(b, since_ns, percents[i]), expected * 8 / 10 - 2,
			expected * 12 / 10 + 3);
	}
}

static void the_share_grows_linearly_in_every_algorithm(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = starting(all_modes[m]);

		b->states[0].up_since_ns = b->now_ns;
		expect_growth(b, b->now_ns);
		backend_free(b);
	}
}

static void it_also_follows_an_ejection(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = starting(all_modes[m]);

		b->states[0].ejected_until_ns = b->now_ns + SECOND;
		assert_true(pass(b) > 0);
		expect_growth(b, b->now_ns + SECOND);
		backend_free(b);
	}
}

static void there_is_none_at_process_start_or_when_off(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = starting(all_modes[m]);

		assert_in_range(share_at(b, b->now_ns, 1), 90, 110);
		backend_free(b);
		b = backend_of(all_modes[m], SERVERS);
		b->states[0].up_since_ns = b->now_ns;
		assert_in_range(share_at(b, b->now_ns, 1), 90, 110);
		backend_free(b);
	}
}

static void all_that_start_at_once_share_evenly(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = starting(all_modes[m]);

		for (unsigned int i = 0; i < SERVERS; i++)
			b->states[i].up_since_ns = b->now_ns;
		assert_in_range(share_at(b, b->now_ns, 20), 85, 115);
		backend_free(b);
	}
}

/* Its turn was long when it took it, and must not stay so. */
static void a_started_server_does_not_wait_out_an_early_turn(void **state)
{
	static const enum balance_mode modes[] = {BALANCE_ROUND_ROBIN, BALANCE_LEAST_SESSIONS};

	(void)state;
	for (unsigned int k = 0; k < ARRAY_LEN(modes); k++) {
		struct backend *b = starting(modes[k]);
		unsigned int waited = 0;

		b->states[0].up_since_ns = b->now_ns;
		while (pass(b) != 0)
			;
		b->now_ns += SLOW;
		while (pass(b) != 0)
			waited++;
		assert_in_range(waited, 0, 2 * SERVERS); /* two turns, not 64 */
		backend_free(b);
	}
}

/* Long sessions: an empty server must not be filled up at once. */
static void sessions_that_stay_are_ramped_too(void **state)
{
	/* 10,000 sessions on 9.25 servers; and drawn twice with a probability of 0.25/9.25. */
	static const struct {
		enum balance_mode mode;
		unsigned int expected;
	} cases[] = {{BALANCE_LEAST_SESSIONS, 270}, {BALANCE_RANDOM_TWO, 54}};

	(void)state;
	for (unsigned int k = 0; k < ARRAY_LEN(cases); k++) {
		struct backend *b = starting(cases[k].mode);
		uint64_t t0 = b->now_ns;

		b->states[0].up_since_ns = t0;
		for (unsigned int i = 1; i < SERVERS; i++)
			b->states[i].active = 1000;
		b->now_ns = t0 + SLOW / 4;
		for (unsigned int i = 0; i < 1000; i++)
			assert_true(pick(b) >= 0);
		assert_in_range(b->states[0].active, cases[k].expected * 7 / 10,
			cases[k].expected * 13 / 10);
		backend_free(b);
	}
}

static void a_client_moves_to_a_starting_server_once(void **state)
{
	struct backend *b = starting(BALANCE_SOURCE_HASH);
	int homes[2000];
	uint64_t t0 = b->now_ns;

	(void)state;
	b->states[0].down = 1;
	for (unsigned int percent = 0; percent <= 110; percent += 5) {
		b->now_ns = t0 + SLOW / 100 * percent;
		b->client = 0;
		for (unsigned int i = 0; i < 2000; i++) {
			int now = pass(b);

			assert_true(!percent || now == homes[i] || now == 0);
			homes[i] = now;
		}
		b->states[0].down = 0;
		b->states[0].up_since_ns = t0;
	}
	backend_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_share_grows_linearly_in_every_algorithm),
		cmocka_unit_test(it_also_follows_an_ejection),
		cmocka_unit_test(there_is_none_at_process_start_or_when_off),
		cmocka_unit_test(all_that_start_at_once_share_evenly),
		cmocka_unit_test(a_started_server_does_not_wait_out_an_early_turn),
		cmocka_unit_test(sessions_that_stay_are_ramped_too),
		cmocka_unit_test(a_client_moves_to_a_starting_server_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
