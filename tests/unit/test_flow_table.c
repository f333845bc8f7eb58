/* SPDX-License-Identifier: BSD-2-Clause */
/* The open-addressed table that daemon and programs share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../daemon/flow_table.h"

#define BITS 8
#define SHIFT (64 - BITS)
#define SLOTS (1u << BITS)

static struct flow table[SLOTS];

static struct flow *take(uint64_t cookie)
{
	struct flow *flow = flow_claim(table, SHIFT, cookie);

	if (flow)
		flow_publish(flow, cookie);
	return flow;
}

static int clear(void **state)
{
	(void)state;
	memset(table, 0xa5, sizeof(table));
	for (unsigned int i = 0; i < SLOTS; i++)
		table[i].cookie = 0;
	return 0;
}

static void a_claimed_flow_is_found_and_clean(void **state)
{
	struct flow *flow = take(77);

	(void)state;
	assert_non_null(flow);
	assert_ptr_equal(flow_find(table, SHIFT, 77), flow);
	assert_int_equal(flow->redirected, 0);
	assert_int_equal(flow->passed, 0);
	assert_int_equal(flow->started, 0);
	assert_int_equal(flow->mode, FLOW_REDIRECT);
	assert_true(flow->handback == FLOW_NO_HANDBACK);
}

static void a_claim_is_found_only_when_published(void **state)
{
	struct flow *flow = flow_claim(table, SHIFT, 77);

	(void)state;
	assert_null(flow_find(table, SHIFT, 77));
	flow_publish(flow, 77);
	assert_ptr_equal(flow_find(table, SHIFT, 77), flow);
}

static void an_unknown_cookie_is_not_found(void **state)
{
	(void)state;
	assert_non_null(take(1));
	assert_null(flow_find(table, SHIFT, 2));
}

static void a_released_slot_can_be_claimed_again(void **state)
{
	struct flow *flow = take(5);

	(void)state;
	flow->redirected = 9;
	flow_release(flow);
	assert_null(flow_find(table, SHIFT, 5));
	flow = take(5);
	assert_int_equal(flow->redirected, 0);
}

/* The kernel hands cookies out in runs; half full, every one of them must find a place. */
static void runs_of_cookies_fit_at_half_load(void **state)
{
	(void)state;
	for (uint64_t cookie = 4097; cookie < 4097 + SLOTS / 2; cookie++)
		assert_non_null(take(cookie));
	for (uint64_t cookie = 4097; cookie < 4097 + SLOTS / 2; cookie++)
		assert_non_null(flow_find(table, SHIFT, cookie));
}

/* Old sessions stay, new ones come and go: the table must not clog where it is half full. */
static void turnover_beside_old_sessions_fits(void **state)
{
	uint64_t next = 1;

	(void)state;
	for (unsigned int i = 0; i < SLOTS / 4; i++)
		assert_non_null(take(next++));
	for (unsigned int round = 0; round < 1000; round++) {
		struct flow *some[SLOTS / 4];

		for (unsigned int i = 0; i < SLOTS / 4; i++) {
			some[i] = take(next++);
			assert_non_null(some[i]);
		}
		for (unsigned int i = 0; i < SLOTS / 4; i++)
			flow_release(some[i]);
	}
}

static void a_full_neighbourhood_is_refused_not_overwritten(void **state)
{
	unsigned int claimed = 0;

	(void)state;
	for (uint64_t cookie = 1; cookie < 10000; cookie++)
		claimed += take(cookie) != NULL;
	assert_in_range(claimed, SLOTS / 2, SLOTS);
	for (unsigned int i = 0; i < SLOTS; i++)
		if (table[i].cookie)
			assert_true(table[i].cookie < 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_claimed_flow_is_found_and_clean, clear),
		cmocka_unit_test_setup(a_claim_is_found_only_when_published, clear),
		cmocka_unit_test_setup(an_unknown_cookie_is_not_found, clear),
		cmocka_unit_test_setup(a_released_slot_can_be_claimed_again, clear),
		cmocka_unit_test_setup(runs_of_cookies_fit_at_half_load, clear),
		cmocka_unit_test_setup(turnover_beside_old_sessions_fits, clear),
		cmocka_unit_test_setup(a_full_neighbourhood_is_refused_not_overwritten, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
