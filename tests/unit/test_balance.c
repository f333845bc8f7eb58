/* SPDX-License-Identifier: BSD-2-Clause */
/* Which servers may be chosen, whatever the algorithm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "balance_fixture.h"

static void a_server_that_is_out_is_never_chosen(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 100);
		unsigned int counts[100];

		for (unsigned int i = 0; i < 100; i++)
			b->servers[i].weight = 1 + i % 3;
		count_passes(b, 500, counts);
		b->states[10].admin = SERVER_DRAIN;
		b->states[20].admin = SERVER_MAINT;
		b->states[30].down = 1;
		b->states[40].weight = 0;
		b->states[50].ejected_until_ns = b->now_ns + SECOND;
		b->servers[60].max_sessions = 0; /* only of the copy: no effect */
		count_passes(b, 20000, counts);
		for (unsigned int i = 0; i < 100; i++)
			assert_true(i % 10 == 0 && i >= 10 && i <= 50 ? !counts[i] : counts[i] > 0);
		backend_free(b);
	}
}

static void a_server_that_is_back_is_chosen_again(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 1000);
		unsigned int counts[1000];

		for (unsigned int i = 0; i < 500; i++)
			b->states[i].down = 1;
		count_passes(b, 1000, counts);
		for (unsigned int i = 0; i < 500; i++)
			b->states[i].down = 0;
		b->now_ns += BALANCE_STALE_NS;
		count_passes(b, 20000, counts);
		for (unsigned int i = 0; i < 500; i++)
			assert_true(counts[i] > 0);
		backend_free(b);
	}
}

static void the_only_usable_server_is_found_at_once(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 1000);

		for (unsigned int i = 0; i < 1000; i++)
			b->states[i].down = 1;
		assert_int_equal(pick(b), BALANCE_NONE);
		b->states[777].down = 0;
		assert_int_equal(pick(b), 777);
		b->states[777].down = 1;
		b->states[3].down = 0;
		assert_int_equal(pick(b), 3);
		backend_free(b);
	}
}

static void backups_serve_only_without_normal_servers(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 6);
		unsigned int counts[6];

		b->servers[4].backup = b->servers[5].backup = true;
		count_passes(b, 400, counts);
		assert_int_equal(counts[4] + counts[5], 0);
		for (unsigned int i = 0; i < 4; i++)
			b->states[i].down = 1;
		count_passes(b, 400, counts);
		assert_int_equal(counts[4] + counts[5], 400);
		assert_in_range(counts[4], 140, 260);
		b->states[1].down = 0;
		count_passes(b, 400, counts);
		assert_int_equal(counts[1], 400);
		backend_free(b);
	}
}

static void full_servers_are_skipped_and_all_full_means_wait(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 100);

		for (unsigned int i = 0; i < 100; i++)
			b->servers[i].max_sessions = i < 99 ? 3 : 0;
		b->servers[99].backup = true;
		for (unsigned int i = 0; i < 297; i++)
			assert_in_range(pick(b), 0, 98);
		for (unsigned int i = 0; i < 10; i++)
			assert_int_equal(pick(b), BALANCE_FULL);
		balance_release(&b->states[42]);
		assert_int_equal(pick(b), 42);
		assert_int_equal(pick(b), BALANCE_FULL);
		for (unsigned int i = 0; i < 99; i++)
			assert_int_equal(b->states[i].active, 3);
		backend_free(b);
	}
}

static void a_tried_server_is_not_chosen_again(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 5);

		b->servers[3].backup = true;
		b->states[4].ejected_until_ns = b->now_ns + SECOND;
		for (unsigned int round = 0; round < 100; round++) {
			struct balance_tried tried = {0};
			unsigned int seen = 0;

			for (unsigned int k = 0; k < 5; k++) {
				int i = pick_not(b, &tried);

				/* In the end a backup, and last an ejected one. */
				assert_true(k < 3 ? i >= 0 && i < 3 : i == (int)k);
				balance_tried_add(&tried, (unsigned int)i);
				seen |= 1u << i;
			}
			assert_int_equal(seen, 31);
			assert_int_equal(pick_not(b, &tried), BALANCE_ALL_TRIED);
		}
		backend_free(b);
	}
}

static void a_session_waits_for_a_full_server_rather_than_repeat(void **state)
{
	struct backend *b = backend_of(BALANCE_ROUND_ROBIN, 2);
	struct balance_tried tried = {0};

	(void)state;
	b->servers[1].max_sessions = b->states[1].active = 1;
	balance_tried_add(&tried, 0);
	assert_int_equal(pick_not(b, &tried), BALANCE_FULL);
	backend_free(b);
}

static void ejection_of_all_is_ignored(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 20);
		unsigned int counts[20];

		b->states[0].down = 1;
		for (unsigned int i = 1; i < 20; i++)
			b->states[i].ejected_until_ns = b->now_ns + SECOND;
		count_passes(b, 2000, counts);
		assert_int_equal(counts[0], 0);
		for (unsigned int i = 1; i < 20; i++)
			assert_true(counts[i] > 0);
		b->states[7].ejected_until_ns = b->now_ns; /* over */
		count_passes(b, 100, counts);
		assert_int_equal(counts[7], 100);
		backend_free(b);
	}
}

/* Sabotage by chance: whatever changes, only usable servers that are not full are chosen. */
static void random_changes_never_mislead(void **state)
{
	(void)state;
	srandom(7);
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 60);

		b->conf.slow_start_ns = SECOND;
		for (unsigned int i = 0; i < 60; i++) {
			b->servers[i].weight = (uint32_t)random() % 5;
			b->servers[i].max_sessions = (uint32_t)random() % 4;
			b->servers[i].backup = random() % 4 == 0;
		}
		for (unsigned int k = 0; k < 30000; k++) {
			struct server_state *s = &b->states[random() % 60];
			int i;

			b->now_ns += (uint64_t)random() % 1000000;
			s->down = random() % 2;
			s->admin = random() % 8 ? SERVER_READY : SERVER_DRAIN;
			s->weight = (int32_t)(random() % 5) - 1;
			s->ejected_until_ns = random() % 2 ? b->now_ns + 1000000 : 0;
			s->up_since_ns = random() % 2 ? b->now_ns : 0;
			if (s->active && random() % 2)
				balance_release(s);
			i = pick(b);
			if (i < 0)
				continue;
			assert_true(balance_is_up(&b->servers[i]));
			assert_true(!b->servers[i].max_sessions ||
				    b->states[i].active <= b->servers[i].max_sessions);
		}
		backend_free(b);
	}
}

static void *take_and_return(void *arg)
{
	struct backend *b = arg;
	struct balance *balance = balance_new(&b->conf, b->servers, b->n);
	uint64_t hash = (uintptr_t)&balance;

	for (unsigned int k = 0; k < 20000; k++) {
		int i = balance_pick(balance, b->now_ns + k * 1000, maglev_mix(hash + k), NULL);

		if (i < 0)
			continue;
		/* A failed assertion may not leave a thread. */
		if (atomic_load(&b->states[i].active) > 2)
			atomic_store(&b->states[0].check_failures, 1);
		balance_release(&b->states[i]);
	}
	balance_free(balance);
	return NULL;
}

static void threads_together_never_exceed_max_sessions(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 3);
		pthread_t threads[4];

		for (unsigned int i = 0; i < 3; i++)
			b->servers[i].max_sessions = i ? 2 : 1;
		for (unsigned int t = 0; t < 4; t++)
			pthread_create(&threads[t], NULL, take_and_return, b);
		for (unsigned int t = 0; t < 4; t++)
			pthread_join(threads[t], NULL);
		assert_int_equal(b->states[0].check_failures, 0);
		for (unsigned int i = 0; i < 3; i++)
			assert_int_equal(b->states[i].active, 0);
		backend_free(b);
	}
}

static void no_server_is_an_answer(void **state)
{
	(void)state;
	for (unsigned int m = 0; m < ARRAY_LEN(all_modes); m++) {
		struct backend *b = backend_of(all_modes[m], 0);

		assert_int_equal(pick(b), BALANCE_NONE);
		backend_free(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_server_that_is_out_is_never_chosen),
		cmocka_unit_test(a_server_that_is_back_is_chosen_again),
		cmocka_unit_test(the_only_usable_server_is_found_at_once),
		cmocka_unit_test(backups_serve_only_without_normal_servers),
		cmocka_unit_test(full_servers_are_skipped_and_all_full_means_wait),
		cmocka_unit_test(a_tried_server_is_not_chosen_again),
		cmocka_unit_test(a_session_waits_for_a_full_server_rather_than_repeat),
		cmocka_unit_test(ejection_of_all_is_ignored),
		cmocka_unit_test(random_changes_never_mislead),
		cmocka_unit_test(threads_together_never_exceed_max_sessions),
		cmocka_unit_test(no_server_is_an_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
