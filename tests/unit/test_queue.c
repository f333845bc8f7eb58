/* SPDX-License-Identifier: BSD-2-Clause */
/* The queue of sessions that wait for a server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "../../daemon/queue.h"

static struct queue_ticket *woken[16];
static unsigned int nwoken;

static void wake(void *arg, struct queue_ticket *ticket)
{
	(void)arg;
	woken[nwoken++] = ticket;
}

static int setup(void **state)
{
	struct queues *queues = calloc(1, sizeof(*queues));

	queues->wake = wake;
	nwoken = 0;
	*state = queues;
	return 0;
}

static int teardown(void **state)
{
	queues_done(*state);
	free(*state);
	return 0;
}

static void a_name_has_one_queue(void **state)
{
	struct queue *app = queues_get(*state, "app");

	assert_non_null(app);
	assert_ptr_equal(queues_get(*state, "app"), app);
	assert_ptr_not_equal(queues_get(*state, "db"), app);
}

static void the_first_in_is_the_first_woken(void **state)
{
	struct queue *queue = queues_get(*state, "app");
	struct queue_ticket tickets[3] = {{.owner = state}, {.owner = state}, {.owner = state}};

	for (int i = 0; i < 3; i++)
		queue_join(queue, &tickets[i], false);
	for (int i = 0; i < 3; i++)
		queue_grant(queue);
	queue_grant(queue); /* nobody waits: nothing happens */
	assert_int_equal(nwoken, 3);
	for (int i = 0; i < 3; i++)
		assert_ptr_equal(woken[i], &tickets[i]);
	assert_true(queue_is_empty(queue));
}

static void who_found_no_place_after_all_stays_first(void **state)
{
	struct queue *queue = queues_get(*state, "app");
	struct queue_ticket tickets[2] = {{.owner = state}, {.owner = state}};

	queue_join(queue, &tickets[0], false);
	queue_join(queue, &tickets[1], false);
	queue_grant(queue);
	queue_join(queue, &tickets[0], true);
	queue_grant(queue);
	assert_ptr_equal(woken[1], &tickets[0]);
}

static void who_leaves_is_never_woken(void **state)
{
	struct queue *queue = queues_get(*state, "app");
	struct queue_ticket tickets[3] = {{.owner = state}, {.owner = state}, {.owner = state}};

	for (int i = 0; i < 3; i++)
		queue_join(queue, &tickets[i], false);
	assert_true(queue_leave(queue, &tickets[1]));
	for (int i = 0; i < 3; i++)
		queue_grant(queue);
	assert_int_equal(nwoken, 2);
	assert_ptr_equal(woken[0], &tickets[0]);
	assert_ptr_equal(woken[1], &tickets[2]);
}

static void a_ticket_on_its_way_outlives_its_owner(void **state)
{
	struct queue *queue = queues_get(*state, "app");
	struct queue_ticket ticket = {.owner = state};

	queue_join(queue, &ticket, false);
	queue_grant(queue);
	assert_false(queue_leave(queue, &ticket)); /* the wake-up frees it */
	assert_null(ticket.owner);
	assert_ptr_equal(ticket.queue, queue);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_name_has_one_queue),
		TEST(the_first_in_is_the_first_woken),
		TEST(who_found_no_place_after_all_stays_first),
		TEST(who_leaves_is_never_woken),
		TEST(a_ticket_on_its_way_outlives_its_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
