/* SPDX-License-Identifier: BSD-2-Clause */
/* The accounting of a direction: what may be passed on, what must wait, what must be reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../daemon/account.h"

static void a_direction_in_balance_is_settled(void **state)
{
	struct account_state s = {.read = 10, .written = 10, .redirected = 90};

	(void)state;
	assert_int_equal(account_source(&s, 100), ACCOUNT_SETTLED);
	assert_int_equal(account_target(&s, 100), ACCOUNT_SETTLED);
	assert_int_equal(account_drained(&s, 100, 100), ACCOUNT_SETTLED);
}

static void bytes_that_nobody_took_yet_hold_the_fin_back(void **state)
{
	struct account_state s = {.read = 10, .written = 10, .redirected = 90};

	(void)state;
	assert_int_equal(account_source(&s, 101), ACCOUNT_PENDING);
	assert_int_equal(account_drained(&s, 101, 100), ACCOUNT_PENDING);
}

static void bytes_that_the_peer_did_not_write_yet_hold_the_fin_back(void **state)
{
	struct account_state s = {.read = 0, .written = 0, .redirected = 100};

	(void)state;
	assert_int_equal(account_target(&s, 99), ACCOUNT_PENDING);
	assert_int_equal(account_drained(&s, 100, 99), ACCOUNT_PENDING);
}

static void bytes_in_the_workers_hands_hold_the_fin_back(void **state)
{
	struct account_state s = {.read = 20, .written = 10, .redirected = 0};

	(void)state;
	assert_int_equal(account_drained(&s, 20, 10), ACCOUNT_PENDING);
}

static void a_repeated_byte_is_broken_on_either_side(void **state)
{
	struct account_state s = {.read = 0, .written = 0, .redirected = 101};

	(void)state;
	assert_int_equal(account_source(&s, 100), ACCOUNT_BROKEN);
	assert_int_equal(account_drained(&s, 100, 100), ACCOUNT_BROKEN);
	s.redirected = 100;
	assert_int_equal(account_target(&s, 101), ACCOUNT_BROKEN);
	assert_int_equal(account_drained(&s, 100, 101), ACCOUNT_BROKEN);
}

static void broken_wins_over_pending(void **state)
{
	struct account_state s = {.read = 20, .written = 10, .redirected = 0};

	(void)state;
	assert_int_equal(account_drained(&s, 30, 11), ACCOUNT_BROKEN);
	assert_int_equal(account_drained(&s, 19, 5), ACCOUNT_BROKEN);
}

static void counts_beyond_32_bits_are_exact(void **state)
{
	struct account_state s = {.read = 1, .written = 1, .redirected = 1ull << 33};

	(void)state;
	assert_int_equal(account_drained(&s, (1ull << 33) + 1, (1ull << 33) + 1), ACCOUNT_SETTLED);
	assert_int_equal(account_drained(&s, (1ull << 32) + 1, (1ull << 33) + 1), ACCOUNT_BROKEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_direction_in_balance_is_settled),
		cmocka_unit_test(bytes_that_nobody_took_yet_hold_the_fin_back),
		cmocka_unit_test(bytes_that_the_peer_did_not_write_yet_hold_the_fin_back),
		cmocka_unit_test(bytes_in_the_workers_hands_hold_the_fin_back),
		cmocka_unit_test(a_repeated_byte_is_broken_on_either_side),
		cmocka_unit_test(broken_wins_over_pending),
		cmocka_unit_test(counts_beyond_32_bits_are_exact),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
