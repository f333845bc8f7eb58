/* SPDX-License-Identifier: BSD-2-Clause */
/* How many sessions a client address gets, and how fast. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../../daemon/clients.h"

#define SECOND 1000000000ull
#define T0 (1000 * SECOND)

static const struct clients_limits two_sessions = {.max_sessions = 2};
static const struct clients_limits ten_a_second = {.rate_count = 10, .rate_period_ns = SECOND};

static struct addr in4(uint32_t ip)
{
	struct addr addr = {.len = sizeof(addr.in)};

	addr.in.sin_family = AF_INET;
	addr.in.sin_addr.s_addr = htonl(ip);
	return addr;
}

static struct addr in6(const char *text)
{
	struct addr addr = {.len = sizeof(addr.in6)};

	addr.in6.sin6_family = AF_INET6;
	assert_int_equal(inet_pton(AF_INET6, text, &addr.in6.sin6_addr), 1);
	return addr;
}

static struct client *last;

static enum clients_verdict enter_at(struct clients *clients, struct addr addr,
	const struct clients_limits *limits, uint64_t now_ns)
{
	return clients_enter(clients, 1, &addr, limits, now_ns, &last);
}

static enum clients_verdict enter(
	struct clients *clients, struct addr addr, const struct clients_limits *limits)
{
	return enter_at(clients, addr, limits, T0);
}

/* A session that ends at once. */
static enum clients_verdict pass_at(struct clients *clients, struct addr addr,
	const struct clients_limits *limits, uint64_t now_ns)
{
	enum clients_verdict verdict = enter_at(clients, addr, limits, now_ns);

	clients_leave(last, now_ns);
	return verdict;
}

static void sessions_of_an_address_are_limited(void **state)
{
	struct clients *clients = clients_new(1000);
	struct client *first;

	(void)state;
	assert_int_equal(enter(clients, in4(1), &two_sessions), CLIENTS_OK);
	first = last;
	assert_int_equal(enter(clients, in4(1), &two_sessions), CLIENTS_OK);
	assert_int_equal(enter(clients, in4(1), &two_sessions), CLIENTS_TOO_MANY);
	assert_null(last);
	assert_int_equal(enter(clients, in4(2), &two_sessions), CLIENTS_OK);
	clients_leave(first, T0);
	assert_int_equal(enter(clients, in4(1), &two_sessions), CLIENTS_OK);
	assert_int_equal(enter(clients, in4(1), &two_sessions), CLIENTS_TOO_MANY);
	clients_free(clients);
}

static void each_scope_counts_for_itself(void **state)
{
	struct clients *clients = clients_new(1000);
	struct addr addr = in4(1);

	(void)state;
	for (uint32_t scope = 0; scope < 100; scope++) {
		for (unsigned int i = 0; i < 3; i++)
			assert_int_equal(
				clients_enter(clients, scope, &addr, &two_sessions, T0, &last),
				i < 2 ? CLIENTS_OK : CLIENTS_TOO_MANY);
	}
	clients_free(clients);
}

static void ipv6_counts_by_64_bits_and_mapped_as_ipv4(void **state)
{
	struct clients *clients = clients_new(1000);

	(void)state;
	assert_int_equal(enter(clients, in6("2001:db8::1"), &two_sessions), CLIENTS_OK);
	assert_int_equal(enter(clients, in6("2001:db8::ffff:2:3:4"), &two_sessions), CLIENTS_OK);
	assert_int_equal(enter(clients, in6("2001:db8::9"), &two_sessions), CLIENTS_TOO_MANY);
	assert_int_equal(enter(clients, in6("2001:db8:0:1::9"), &two_sessions), CLIENTS_OK);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(enter(clients, in4(0x0a000001), &two_sessions), CLIENTS_OK);
		assert_int_equal(enter(clients, in6("::ffff:10.0.0.2"), &two_sessions), CLIENTS_OK);
		assert_int_equal(
			enter(clients, in6("64:ff9b::10.0.0.3"), &two_sessions), CLIENTS_OK);
		assert_int_equal(
			enter(clients, in6("64:ff9b::10.0.0.4"), &two_sessions), CLIENTS_OK);
	}
	assert_int_equal(enter(clients, in6("::ffff:10.0.0.1"), &two_sessions), CLIENTS_TOO_MANY);
	assert_int_equal(enter(clients, in4(0x0a000002), &two_sessions), CLIENTS_TOO_MANY);
	clients_free(clients);
}

static void the_rate_is_earned_back_bit_by_bit(void **state)
{
	struct clients *clients = clients_new(1000);

	(void)state;
	for (unsigned int i = 0; i < 10; i++)
		assert_int_equal(pass_at(clients, in4(1), &ten_a_second, T0), CLIENTS_OK);
	assert_int_equal(pass_at(clients, in4(1), &ten_a_second, T0), CLIENTS_TOO_FAST);
	assert_int_equal(pass_at(clients, in4(2), &ten_a_second, T0), CLIENTS_OK);
	assert_int_equal(
		pass_at(clients, in4(1), &ten_a_second, T0 + SECOND / 10 - 1), CLIENTS_TOO_FAST);
	assert_int_equal(pass_at(clients, in4(1), &ten_a_second, T0 + SECOND / 10), CLIENTS_OK);
	assert_int_equal(
		pass_at(clients, in4(1), &ten_a_second, T0 + SECOND / 10), CLIENTS_TOO_FAST);
	/* After a pause all, and no more. */
	for (unsigned int i = 0; i < 10; i++)
		assert_int_equal(
			pass_at(clients, in4(1), &ten_a_second, T0 + 60 * SECOND), CLIENTS_OK);
	assert_int_equal(
		pass_at(clients, in4(1), &ten_a_second, T0 + 60 * SECOND), CLIENTS_TOO_FAST);
	clients_free(clients);
}

static void a_refusal_costs_nothing(void **state)
{
	static const struct clients_limits both = {1, 3, SECOND};
	struct clients *clients = clients_new(1000);
	struct client *only;

	(void)state;
	assert_int_equal(enter(clients, in4(1), &both), CLIENTS_OK);
	only = last;
	for (unsigned int i = 0; i < 20; i++)
		assert_int_equal(enter(clients, in4(1), &both), CLIENTS_TOO_MANY);
	clients_leave(only, T0);
	assert_int_equal(pass_at(clients, in4(1), &both, T0), CLIENTS_OK);
	assert_int_equal(pass_at(clients, in4(1), &both, T0), CLIENTS_OK);
	for (unsigned int i = 0; i < 20; i++)
		assert_int_equal(pass_at(clients, in4(1), &both, T0), CLIENTS_TOO_FAST);
	assert_int_equal(pass_at(clients, in4(1), &both, T0 + SECOND / 3), CLIENTS_OK);
	clients_free(clients);
}

static void limits_may_change(void **state)
{
	static const struct clients_limits one_a_day = {
		.rate_count = 1, .rate_period_ns = 86400 * SECOND};
	static const struct clients_limits one_session = {.max_sessions = 1};
	struct clients *clients = clients_new(1000);

	(void)state;
	assert_int_equal(enter(clients, in4(1), &one_a_day), CLIENTS_OK);
	assert_int_equal(enter(clients, in4(1), &one_session), CLIENTS_TOO_MANY);
	assert_int_equal(enter(clients, in4(1), &ten_a_second), CLIENTS_TOO_FAST);
	assert_int_equal(enter_at(clients, in4(1), &ten_a_second, T0 + SECOND), CLIENTS_OK);
	clients_free(clients);
}

static void without_limits_or_an_ip_address_nothing_is_kept(void **state)
{
	static const struct clients_limits none;
	struct addr addr = {.len = sizeof(addr.un)};
	struct clients *clients = clients_new(1000);

	(void)state;
	addr.un.sun_family = AF_UNIX;
	for (unsigned int i = 0; i < 5; i++) {
		assert_int_equal(enter(clients, addr, &two_sessions), CLIENTS_UNTRACKED);
		assert_null(last);
		assert_int_equal(enter(clients, in4(1), &none), CLIENTS_UNTRACKED);
		assert_null(last);
	}
	assert_int_equal(clients_count(clients), 0);
	clients_free(clients);
}

static void a_client_without_session_and_debt_is_forgotten(void **state)
{
	struct clients *clients = clients_new(1000);

	(void)state;
	assert_int_equal(enter(clients, in4(1), &two_sessions), CLIENTS_OK);
	assert_int_equal(clients_count(clients), 1);
	clients_leave(last, T0);
	assert_int_equal(clients_count(clients), 0);
	assert_int_equal(pass_at(clients, in4(1), &ten_a_second, T0), CLIENTS_OK);
	assert_int_equal(clients_count(clients), 1);
	clients_free(clients);
}

/* Addresses that follow each other must not meet in a few parts of the table. */
static void neighbours_spread_over_the_table(void **state)
{
	(void)state;
	for (unsigned int round = 0; round < 200; round++) {
		struct clients *clients = clients_new(6400);

		for (uint32_t i = 0; i < 3200; i++)
			assert_int_equal(pass_at(clients, in4(i), &ten_a_second, T0), CLIENTS_OK);
		clients_free(clients);
	}
}

static void a_full_table_lets_new_clients_in_and_still_limits_those_it_knows(void **state)
{
	struct clients *clients = clients_new(1000);
	unsigned int size, untracked = 0;

	(void)state;
	for (uint32_t i = 0; i < 5000; i++)
		untracked += pass_at(clients, in4(i), &ten_a_second, T0) == CLIENTS_UNTRACKED;
	size = clients_count(clients);
	assert_in_range(size, 1000, 1064);
	assert_int_equal(untracked, 5000 - size);
	/* Who is in it has had one, and the rest knows no limit. */
	for (unsigned int i = 0; i < 9; i++)
		assert_int_equal(pass_at(clients, in4(0), &ten_a_second, T0), CLIENTS_OK);
	assert_int_equal(pass_at(clients, in4(0), &ten_a_second, T0), CLIENTS_TOO_FAST);
	assert_int_equal(clients_count(clients), size);
	/* Those who have earned back their rate make room for as many others. */
	untracked = 0;
	for (uint32_t i = 10000; i < 10100; i++)
		untracked += pass_at(clients, in4(i), &ten_a_second, T0 + 2 * SECOND) ==
			     CLIENTS_UNTRACKED;
	assert_int_equal(untracked, 0);
	assert_int_equal(clients_count(clients), size);
	clients_free(clients);
}

static void clients_with_sessions_are_not_pushed_out(void **state)
{
	struct clients *clients = clients_new(6400);
	struct client *kept[500];

	(void)state;
	for (uint32_t i = 0; i < 500; i++) {
		assert_int_equal(enter(clients, in4(i), &two_sessions), CLIENTS_OK);
		kept[i] = last;
		assert_int_equal(enter(clients, in4(i), &two_sessions), CLIENTS_OK);
	}
	for (uint32_t i = 1000; i < 20000; i++)
		(void)pass_at(clients, in4(i), &ten_a_second, T0 + i * SECOND);
	for (uint32_t i = 0; i < 500; i++) {
		assert_int_equal(enter(clients, in4(i), &two_sessions), CLIENTS_TOO_MANY);
		clients_leave(kept[i], T0);
		assert_int_equal(enter(clients, in4(i), &two_sessions), CLIENTS_OK);
	}
	clients_free(clients);
}

#define THREADS 4
#define ADDRESSES 50
#define LIMIT 3
#define ROUNDS 20000

struct shared {
	struct clients *clients;
	_Atomic int sessions[ADDRESSES];
	_Atomic unsigned int wrong, admitted;
};

static void let_go(struct shared *shared, struct client **held, uint32_t ip, uint64_t now_ns)
{
	if (!*held)
		return;
	atomic_fetch_sub(&shared->sessions[ip], 1);
	clients_leave(*held, now_ns);
	*held = NULL;
}

static void one_round(
	struct shared *shared, unsigned int *seed, struct client **held, uint32_t *ips)
{
	static const struct clients_limits limits = {LIMIT, 1000, 1000000};
	unsigned int k = (unsigned int)rand_r(seed) % 4;
	uint64_t now_ns = T0 + *seed % 1000000;
	struct addr addr;

	let_go(shared, &held[k], ips[k], now_ns);
	ips[k] = (uint32_t)rand_r(seed) % ADDRESSES;
	addr = in4(ips[k]);
	if (clients_enter(shared->clients, 1, &addr, &limits, now_ns, &held[k]) != CLIENTS_OK)
		return;
	atomic_fetch_add(&shared->admitted, 1);
	if (atomic_fetch_add(&shared->sessions[ips[k]], 1) >= LIMIT)
		atomic_fetch_add(&shared->wrong, 1);
}

static void *come_and_go(void *arg)
{
	static _Atomic unsigned int seeds;
	unsigned int seed = atomic_fetch_add(&seeds, 1);
	struct client *held[4] = {0};
	uint32_t ips[4] = {0};

	for (unsigned int i = 0; i < ROUNDS; i++)
		one_round(arg, &seed, held, ips);
	for (unsigned int k = 0; k < 4; k++)
		let_go(arg, &held[k], ips[k], T0);
	return NULL;
}

static void threads_together_never_exceed_the_limit(void **state)
{
	static struct shared shared;
	pthread_t threads[THREADS];

	(void)state;
	shared.clients = clients_new(64); /* about one per shard: forgetting happens all the time */
	for (unsigned int t = 0; t < THREADS; t++)
		pthread_create(&threads[t], NULL, come_and_go, &shared);
	for (unsigned int t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
	assert_int_equal(shared.wrong, 0);
	assert_true(shared.admitted > ROUNDS);
	/* Nothing is left counted: everybody gets all of their sessions. */
	for (uint32_t i = 0; i < ADDRESSES; i++) {
		for (unsigned int k = 0; k < LIMIT; k++)
			assert_int_not_equal(enter(shared.clients, in4(i),
						     &(struct clients_limits){LIMIT, 0, 0}),
				CLIENTS_TOO_MANY);
	}
	clients_free(shared.clients);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sessions_of_an_address_are_limited),
		cmocka_unit_test(each_scope_counts_for_itself),
		cmocka_unit_test(ipv6_counts_by_64_bits_and_mapped_as_ipv4),
		cmocka_unit_test(the_rate_is_earned_back_bit_by_bit),
		cmocka_unit_test(a_refusal_costs_nothing),
		cmocka_unit_test(limits_may_change),
		cmocka_unit_test(without_limits_or_an_ip_address_nothing_is_kept),
		cmocka_unit_test(a_client_without_session_and_debt_is_forgotten),
		cmocka_unit_test(neighbours_spread_over_the_table),
		cmocka_unit_test(a_full_table_lets_new_clients_in_and_still_limits_those_it_knows),
		cmocka_unit_test(clients_with_sessions_are_not_pushed_out),
		cmocka_unit_test(threads_together_never_exceed_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
