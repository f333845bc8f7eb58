/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../daemon/conf.h"
#include "../../daemon/stats.h"

#define THREADS 3
#define LISTENERS 2
#define SERVERS 5

static char names[][2] = {"a", "b", "c", "d", "e"};
static struct conf_listener listeners[LISTENERS] = {{.name = names[0]}, {.name = names[1]}};
static struct conf_server servers[SERVERS] = {{.name = names[0]}, {.name = names[1]},
	{.name = names[0]}, {.name = names[1]}, {.name = names[2]}};
static struct conf_backend backends[] = {
	{.name = names[3], .servers = servers, .nservers = 2},
	{.name = names[4], .servers = servers + 2, .nservers = SERVERS - 2},
};
static struct conf conf = {
	.listeners = listeners,
	.nlisteners = LISTENERS,
	.backends = backends,
	.nbackends = ARRAY_LEN(backends),
};

static int setup(void **state)
{
	struct stats *stats;

	if (stats_create(THREADS, &stats) < 0 || stats_assign(stats, &conf) < 0)
		return -1;
	*state = stats;
	return 0;
}

static int teardown(void **state)
{
	stats_free(*state);
	return 0;
}

static void test_new_stats_are_zero_and_sized_by_the_configuration(void **state)
{
	struct stats *stats = *state;
	unsigned int i;

	assert_int_equal(stats->threads, THREADS);
	assert_int_equal(stats->listeners, LISTENERS);
	assert_int_equal(stats->servers, SERVERS);
	assert_in_range(stats->start_time, (uint64_t)time(NULL) - 60, (uint64_t)time(NULL));
	for (i = 0; i < THREADS; i++) {
		assert_int_equal(stats_get(&stats->thread[i].accept_pauses), 0);
		assert_int_equal(stats_get(&stats_listener_of(stats, i, 1)->sessions), 0);
		assert_int_equal(stats_get(&stats_server_of(stats, i, 4)->ended), 0);
	}
}

static void test_a_configuration_without_listeners_has_stats(void **state)
{
	struct conf empty = {0};
	struct stats *stats;

	(void)state;
	assert_int_equal(stats_create(1, &stats), 0);
	assert_int_equal(stats_assign(stats, &empty), 0);
	stats_add(&stats->thread[0].accept_pauses, 1);
	stats_worker_died(stats);
	stats_free(stats);
	stats_free(NULL);
}

static void test_every_row_is_apart_from_every_other(void **state)
{
	struct stats *stats = *state;
	unsigned int i, j;

	for (i = 0; i < THREADS; i++) {
		memset(&stats->thread[i], (int)i + 1, sizeof(stats->thread[i]));
		for (j = 0; j < LISTENERS; j++)
			memset(stats_listener_of(stats, i, j), (int)(10 + i * LISTENERS + j),
				sizeof(struct stats_listener));
		for (j = 0; j < SERVERS; j++)
			memset(stats_server_of(stats, i, j), (int)(100 + i * SERVERS + j),
				sizeof(struct stats_server));
	}
	for (i = 0; i < THREADS; i++) {
		assert_int_equal((uint8_t)stats_get(&stats->thread[i].fallbacks[0]), i + 1);
		for (j = 0; j < LISTENERS; j++)
			assert_int_equal(
				(uint8_t)stats_get(&stats_listener_of(stats, i, j)->sessions),
				10 + i * LISTENERS + j);
		for (j = 0; j < SERVERS; j++)
			assert_int_equal(
				(uint8_t)stats_get(&stats_server_of(stats, i, j)->sessions),
				100 + i * SERVERS + j);
	}
	assert_int_equal(stats->threads, THREADS);
}

static void test_rows_of_two_threads_share_no_cache_line(void **state)
{
	struct stats *stats = *state;
	unsigned int i;

	for (i = 0; i < THREADS; i++) {
		assert_int_equal((uintptr_t)stats_listener_of(stats, i, 0) % 64, 0);
		assert_int_equal((uintptr_t)stats_server_of(stats, i, 0) % 64, 0);
	}
}

static void test_what_a_child_counts_the_parent_sees(void **state)
{
	struct stats *stats = *state;
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		stats_add(&stats->thread[2].overflow_active, 7);
		stats_add(&stats_listener_of(stats, 1, 1)->sessions, 8);
		stats_observe(&stats_server_of(stats, 0, 3)->connect_duration, 90);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(stats_get(&stats->thread[2].overflow_active), 7);
	assert_int_equal(stats_get(&stats_listener_of(stats, 1, 1)->sessions), 8);
	assert_int_equal(stats_get(&stats_server_of(stats, 0, 3)->connect_duration.buckets[0]), 1);
}

static void test_bucket_bounds_rise_from_100_us_to_one_hour(void **state)
{
	unsigned int i;

	(void)state;
	assert_int_equal(stats_bucket_us[0], 100);
	assert_int_equal(stats_bucket_us[STATS_BUCKETS - 2], 3600ull * 1000000);
	for (i = 1; i < STATS_BUCKETS - 1; i++)
		assert_true(stats_bucket_us[i] > stats_bucket_us[i - 1]);
}

static void test_a_bound_belongs_to_its_own_bucket(void **state)
{
	struct stats_histogram histogram = {0};
	unsigned int i;

	(void)state;
	for (i = 0; i < STATS_BUCKETS - 1; i++) {
		stats_observe(&histogram, stats_bucket_us[i]);
		assert_int_equal(stats_get(&histogram.buckets[i]), i ? 2 : 1);
		stats_observe(&histogram, stats_bucket_us[i] + 1);
		assert_int_equal(stats_get(&histogram.buckets[i + 1]), 1);
	}
}

static void test_observe_adds_up_the_sum(void **state)
{
	struct stats_histogram histogram = {0};

	(void)state;
	stats_observe(&histogram, 0);
	stats_observe(&histogram, 250);
	stats_observe(&histogram, 7200ull * 1000000);
	assert_int_equal(stats_get(&histogram.sum_us), 7200ull * 1000000 + 250);
	assert_int_equal(stats_get(&histogram.buckets[0]), 1);
	assert_int_equal(stats_get(&histogram.buckets[1]), 1);
	assert_int_equal(stats_get(&histogram.buckets[STATS_BUCKETS - 1]), 1);
}

static void test_a_dead_worker_leaves_no_open_session(void **state)
{
	struct stats *stats = *state;
	struct stats_listener *listener = stats_listener_of(stats, 1, 0);
	struct stats_server *server = stats_server_of(stats, 2, 4);
	int i;

	stats_add(&listener->sessions, 10);
	stats_add(&listener->ended[END_COMPLETE], 3);
	stats_add(&listener->ended[END_IDLE_TIMEOUT], 2);
	stats_add(&server->sessions, 9);
	stats_add(&server->ended, 4);
	for (i = 0; i < 2; i++) { /* the second death finds nothing more to end */
		stats_worker_died(stats);
		assert_int_equal(stats_get(&listener->ended[END_WORKER_DIED]), 5);
		assert_int_equal(stats_get(&listener->ended[END_COMPLETE]), 3);
		assert_int_equal(stats_get(&listener->sessions), 10);
		assert_int_equal(stats_get(&server->ended), 9);
		assert_int_equal(stats_get(&server->sessions), 9);
	}
}

static void test_a_dead_worker_takes_gauges_but_not_counters(void **state)
{
	struct stats *stats = *state;
	struct stats_thread *thread = &stats->thread[THREADS - 1];

	stats_add(&thread->directions_active[PATH_SOCKMAP], 4);
	stats_add(&thread->overflow_active, 2);
	stats_add(&thread->accept_pauses, 6);
	stats_add(&thread->fallbacks[FALLBACK_UNIX], 5);
	stats_observe(&thread->overflow_duration, 1);
	stats_worker_died(stats);
	assert_int_equal(stats_get(&thread->directions_active[PATH_SOCKMAP]), 0);
	assert_int_equal(stats_get(&thread->overflow_active), 0);
	assert_int_equal(stats_get(&thread->accept_pauses), 6);
	assert_int_equal(stats_get(&thread->fallbacks[FALLBACK_UNIX]), 5);
	assert_int_equal(stats_get(&thread->overflow_duration.buckets[0]), 1);
}

static void test_more_ends_than_sessions_stay_as_they_are(void **state)
{
	struct stats *stats = *state;
	struct stats_listener *listener = stats_listener_of(stats, 0, 0);
	struct stats_server *server = stats_server_of(stats, 0, 0);

	stats_add(&listener->ended[END_COMPLETE], 1);
	stats_add(&server->ended, 1);
	stats_worker_died(stats);
	assert_int_equal(stats_get(&listener->ended[END_WORKER_DIED]), 0);
	assert_int_equal(stats_get(&server->ended), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_new_stats_are_zero_and_sized_by_the_configuration),
		TEST(test_a_configuration_without_listeners_has_stats),
		TEST(test_every_row_is_apart_from_every_other),
		TEST(test_rows_of_two_threads_share_no_cache_line),
		TEST(test_what_a_child_counts_the_parent_sees),
		TEST(test_bucket_bounds_rise_from_100_us_to_one_hour),
		TEST(test_a_bound_belongs_to_its_own_bucket),
		TEST(test_observe_adds_up_the_sum),
		TEST(test_a_dead_worker_leaves_no_open_session),
		TEST(test_a_dead_worker_takes_gauges_but_not_counters),
		TEST(test_more_ends_than_sessions_stay_as_they_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
