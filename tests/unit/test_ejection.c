/* SPDX-License-Identifier: BSD-2-Clause */
/* Servers that fail are left out for a while, but never all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "balance_fixture.h"

static const struct balance_ejection rules = {
	.time_ns = 10 * SECOND, .time_max_ns = 60 * SECOND, .threshold = 3, .max_percent = 50};

static bool fails(struct backend *b, unsigned int i)
{
	return balance_note_failure(b->servers, b->n, i, &rules, b->now_ns);
}

static bool fails_thrice(struct backend *b, unsigned int i)
{
	return fails(b, i) || fails(b, i) || fails(b, i);
}

static unsigned int count_ejected(const struct backend *b)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < b->n; i++)
		n += balance_is_ejected(&b->states[i], b->now_ns);
	return n;
}

static void failures_in_a_row_eject(void **state)
{
	struct backend *b = backend_of(BALANCE_ROUND_ROBIN, 4);

	(void)state;
	assert_false(fails(b, 0));
	assert_false(fails(b, 0));
	balance_note_success(&b->states[0]);
	assert_false(fails(b, 0));
	assert_false(fails(b, 0));
	assert_int_equal(count_ejected(b), 0);
	assert_true(fails(b, 0));
	assert_true(balance_is_ejected(&b->states[0], b->now_ns));
	assert_int_equal(count_ejected(b), 1);
	for (unsigned int i = 0; i < 20; i++)
		assert_int_not_equal(pass(b), 0);
	backend_free(b);
}

static void the_time_doubles_up_to_its_limit_until_a_success(void **state)
{
	static const uint64_t seconds[] = {10, 20, 40, 60, 60};
	struct backend *b = backend_of(BALANCE_ROUND_ROBIN, 4);

	(void)state;
	assert_false(fails(b, 0) || fails(b, 0));
	for (unsigned int i = 0; i < ARRAY_LEN(seconds); i++) {
		assert_true(fails(b, 0));
		assert_int_equal(b->states[0].ejected_until_ns, b->now_ns + seconds[i] * SECOND);
		/* Connects that were under way. */
		for (unsigned int k = 0; k < 10; k++)
			assert_false(fails(b, 0));
		b->now_ns += seconds[i] * SECOND;
		assert_int_equal(count_ejected(b), 0);
	}
	balance_note_success(&b->states[0]);
	assert_true(fails_thrice(b, 0));
	assert_int_equal(b->states[0].ejected_until_ns, b->now_ns + 10 * SECOND);
	backend_free(b);
}

static void no_more_than_the_share_is_ejected(void **state)
{
	struct backend *b = backend_of(BALANCE_ROUND_ROBIN, 11);

	(void)state;
	b->states[10].down = 1; /* 10 could be used */
	for (unsigned int i = 0; i < 11; i++) {
		assert_int_equal(fails_thrice(b, i), i < 5);
		assert_int_equal(count_ejected(b), MIN(i + 1, 5));
	}
	/* A place is free, and the time is that of a first ejection. */
	b->states[0].ejected_until_ns = 0;
	assert_true(fails(b, 7));
	assert_int_equal(b->states[7].ejected_until_ns, b->now_ns + 10 * SECOND);
	backend_free(b);
}

static void one_may_go_and_one_stays(void **state)
{
	struct balance_ejection greedy = rules, timid = rules;
	struct backend *one = backend_of(BALANCE_ROUND_ROBIN, 1);
	struct backend *two = backend_of(BALANCE_ROUND_ROBIN, 2);

	(void)state;
	greedy.max_percent = 100;
	timid.max_percent = 1;
	greedy.threshold = timid.threshold = 1;
	assert_false(balance_note_failure(one->servers, 1, 0, &greedy, one->now_ns));
	assert_int_equal(pass(one), 0);
	assert_true(balance_note_failure(two->servers, 2, 1, &timid, two->now_ns));
	assert_false(balance_note_failure(two->servers, 2, 0, &greedy, two->now_ns));
	assert_int_equal(pass(two), 0);
	backend_free(one);
	backend_free(two);
}

static void a_server_that_is_down_anyway_is_not_ejected(void **state)
{
	struct backend *b = backend_of(BALANCE_ROUND_ROBIN, 4);

	(void)state;
	for (unsigned int i = 0; i < 4; i++)
		b->states[i].down = 1;
	for (unsigned int i = 0; i < 4; i++)
		assert_false(fails_thrice(b, i));
	backend_free(b);
}

static void off_ejects_nobody(void **state)
{
	struct balance_ejection off = rules;
	struct backend *b = backend_of(BALANCE_ROUND_ROBIN, 4);

	(void)state;
	off.time_ns = 0;
	for (unsigned int i = 0; i < 10; i++)
		assert_false(balance_note_failure(b->servers, 4, 0, &off, b->now_ns));
	assert_int_equal(b->states[0].failures, 10);
	backend_free(b);
}

struct racer {
	struct backend *b;
	pthread_barrier_t *barrier;
	unsigned int server;
};

#define RACERS 4
#define ROUNDS 3000

static void *fail_together(void *arg)
{
	struct racer *racer = arg;
	struct balance_ejection greedy = rules;

	greedy.threshold = 1;
	greedy.max_percent = 100;
	for (unsigned int round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(racer->barrier);
		balance_note_failure(
			racer->b->servers, RACERS, racer->server, &greedy, racer->b->now_ns);
		pthread_barrier_wait(racer->barrier);
		/* Racer 0 alone looks, and clears for the next round. */
		if (racer->server == 0) {
			if (count_ejected(racer->b) == RACERS)
				atomic_store(&racer->b->states[0].check_failures, 1);
			for (unsigned int i = 0; i < RACERS; i++)
				atomic_store(&racer->b->states[i].ejected_until_ns, 0);
		}
	}
	return NULL;
}

static void threads_together_do_not_eject_all(void **state)
{
	struct backend *b = backend_of(BALANCE_ROUND_ROBIN, RACERS);
	struct racer racers[RACERS];
	pthread_t threads[RACERS];
	pthread_barrier_t barrier;

	(void)state;
	pthread_barrier_init(&barrier, NULL, RACERS);
	for (unsigned int t = 0; t < RACERS; t++) {
		racers[t] = (struct racer){b, &barrier, t};
		pthread_create(&threads[t], NULL, fail_together, &racers[t]);
	}
	for (unsigned int t = 0; t < RACERS; t++)
		pthread_join(threads[t], NULL);
	pthread_barrier_destroy(&barrier);
	assert_int_equal(b->states[0].check_failures, 0);
	backend_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failures_in_a_row_eject),
		cmocka_unit_test(the_time_doubles_up_to_its_limit_until_a_success),
		cmocka_unit_test(no_more_than_the_share_is_ejected),
		cmocka_unit_test(one_may_go_and_one_stays),
		cmocka_unit_test(a_server_that_is_down_anyway_is_not_ejected),
		cmocka_unit_test(off_ejects_nobody),
		cmocka_unit_test(threads_together_do_not_eject_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
