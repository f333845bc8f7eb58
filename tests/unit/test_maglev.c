/* SPDX-License-Identifier: BSD-2-Clause */
/* Who belongs to which server, in the table and when servers come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "balance_fixture.h"

/* A table, and which server "sN" each of its numbers stands for: the order differs between hosts.
 */
struct host {
	uint64_t ids[SERVERS_MAX];
	uint32_t weights[SERVERS_MAX];
	unsigned int numbers[SERVERS_MAX];
	unsigned int n;
	struct maglev *table;
};

static void add(struct host *host, unsigned int number, uint32_t weight)
{
	char name[16];

	snprintf(name, sizeof(name), "s%u", number);
	host->ids[host->n] = maglev_id(name);
	host->weights[host->n] = weight;
	host->numbers[host->n++] = number;
}

static struct host *build(struct host *host)
{
	host->table = maglev_new(host->ids, host->weights, host->n);
	assert_non_null(host->table);
	return host;
}

static struct host *new_host(void)
{
	struct host *host = calloc(1, sizeof(*host));

	assert_non_null(host);
	return host;
}

/* without >= n: all of them */
static struct host *equal_servers(unsigned int n, unsigned int without)
{
	struct host *host = new_host();

	for (unsigned int i = 0; i < n; i++)
		if (i != without)
			add(host, i, 1);
	return build(host);
}

static unsigned int server_at(const struct host *host, uint32_t entry)
{
	return host->numbers[host->table->entries[entry]];
}

static void host_free(struct host *host)
{
	maglev_free(host->table);
	free(host);
}

static void hosts_agree_whatever_the_order(void **state)
{
	struct host *a = new_host(), *b = new_host();

	(void)state;
	for (unsigned int i = 0; i < 300; i++) {
		unsigned int other = (i * 7 + 100) % 300;

		add(a, i, 1 + i % 5);
		add(b, other, 1 + other % 5);
	}
	build(a);
	build(b);
	assert_int_equal(a->table->size, 65537);
	assert_int_equal(b->table->size, 65537);
	for (uint32_t i = 0; i < 65537; i++)
		assert_int_equal(server_at(a, i), server_at(b, i));
	host_free(a);
	host_free(b);
}

/* A client must find its server after an update of the daemon, or on a host that has not had it. */
static void the_table_is_the_same_in_every_version(void **state)
{
	struct host *host = equal_servers(3, 3);
	uint64_t sum = 0;

	(void)state;
	for (uint32_t i = 0; i < host->table->size; i++)
		sum = maglev_mix(sum ^ host->table->entries[i]);
	assert_int_equal(host->table->size, 5003);
	assert_true(sum == 0x74fbcf4cfb33ed4eull);
	host_free(host);
}

static void shares_follow_the_weights(void **state)
{
	struct host *host = new_host();
	unsigned int counts[50] = {0}, total = 0;

	(void)state;
	for (unsigned int i = 0; i < 50; i++) {
		add(host, i, i % 10);
		total += i % 10;
	}
	build(host);
	for (uint32_t i = 0; i < host->table->size; i++)
		counts[host->table->entries[i]]++;
	for (unsigned int i = 0; i < 50; i++) {
		unsigned int share = host->table->size * (i % 10) / total;

		assert_in_range(counts[i], share - !!share, share + (i % 10 ? 2 : 0));
	}
	host_free(host);
}

static void a_tiny_weight_has_an_entry(void **state)
{
	struct host *host = new_host();
	unsigned int counts[1000] = {0};

	(void)state;
	for (unsigned int i = 0; i < 1000; i++)
		add(host, i, i < 990 ? BALANCE_WEIGHT_MAX : 1);
	build(host);
	for (uint32_t i = 0; i < host->table->size; i++)
		counts[host->table->entries[i]]++;
	for (unsigned int i = 0; i < 1000; i++)
		assert_true(counts[i] > 0);
	host_free(host);
}

static void no_server_is_an_empty_table(void **state)
{
	struct host *host = new_host();

	(void)state;
	add(host, 0, 0);
	build(host);
	assert_int_equal(host->table->size, 0);
	host_free(host);
}

/* In per cent of the entries of the servers that stay. */
static double moved_without_need(unsigned int n, unsigned int removed)
{
	struct host *before = equal_servers(n, n), *after = equal_servers(n, removed);
	unsigned int moved = 0, stayed = 0;

	assert_int_equal(before->table->size, after->table->size);
	for (uint32_t i = 0; i < before->table->size; i++) {
		unsigned int server = server_at(before, i);

		assert_int_not_equal(server_at(after, i), removed);
		if (server == removed)
			continue;
		stayed++;
		moved += server_at(after, i) != server;
	}
	host_free(before);
	host_free(after);
	return 100. * moved / stayed;
}

static void a_server_removed_from_the_configuration_moves_few_others(void **state)
{
	(void)state;
	for (unsigned int removed = 0; removed < 10; removed += 3) {
		assert_true(moved_without_need(3, removed % 3) < 4);
		assert_true(moved_without_need(10, removed) < 4);
		assert_true(moved_without_need(100, removed) < 4);
		assert_true(moved_without_need(1000, removed) < 4);
	}
}

static void locate(struct backend *b, int *homes, unsigned int clients)
{
	b->client = 0;
	for (unsigned int i = 0; i < clients; i++)
		homes[i] = pass(b);
}

#define CLIENTS 20000

static void only_the_clients_of_a_lost_server_move_and_they_return(void **state)
{
	struct backend *b = backend_of(BALANCE_SOURCE_HASH, 20);
	static int before[CLIENTS], during[CLIENTS], after[CLIENTS];
	unsigned int moved = 0, spread[20] = {0};

	(void)state;
	locate(b, before, CLIENTS);
	b->states[5].down = 1;
	locate(b, during, CLIENTS);
	b->states[5].down = 0;
	locate(b, after, CLIENTS);
	for (unsigned int i = 0; i < CLIENTS; i++) {
		assert_int_equal(before[i], after[i]);
		if (before[i] != 5) {
			assert_int_equal(before[i], during[i]);
			continue;
		}
		spread[during[i]]++;
		moved++;
	}
	assert_in_range(moved, CLIENTS / 20 * 8 / 10, CLIENTS / 20 * 12 / 10);
	assert_int_equal(spread[5], 0);
	for (unsigned int i = 0; i < 20; i++)
		assert_true(i == 5 || (spread[i] > moved / 19 / 3 && spread[i] < moved / 19 * 3));
	backend_free(b);
}

static void an_operators_drain_moves_only_its_clients(void **state)
{
	struct backend *b = backend_of(BALANCE_SOURCE_HASH, 20);
	static int before[CLIENTS], after[CLIENTS];

	(void)state;
	locate(b, before, CLIENTS);
	b->states[5].weight = 0;
	b->now_ns += 5 * SECOND;
	locate(b, after, CLIENTS);
	for (unsigned int i = 0; i < CLIENTS; i++)
		assert_true(before[i] == 5 ? after[i] != 5 : after[i] == before[i]);
	backend_free(b);
}

static void backends_agree_whatever_the_order(void **state)
{
	struct backend *a = backend_of(BALANCE_SOURCE_HASH, 40);
	struct backend *b = backend_of(BALANCE_SOURCE_HASH, 40);
	static int homes_a[CLIENTS], homes_b[CLIENTS];

	(void)state;
	b->conf.seed = 99; /* threads and hosts differ in it */
	for (unsigned int i = 0; i < 40; i++) {
		a->servers[i].weight = 1 + i % 3;
		a->servers[i].backup = i >= 30;
		b->servers[i].name = a->names[39 - i];
		b->servers[i].weight = 1 + (39 - i) % 3;
		b->servers[i].backup = 39 - i >= 30;
	}
	a->states[7].down = b->states[39 - 7].down = 1;
	locate(a, homes_a, CLIENTS);
	locate(b, homes_b, CLIENTS);
	for (unsigned int i = 0; i < CLIENTS; i++)
		assert_int_equal(homes_a[i], 39 - homes_b[i]);
	backend_free(a);
	backend_free(b);
}

static void a_client_has_one_hash_in_both_families(void **state)
{
	struct addr a, b, c, unix_client;
	const char *error;

	(void)state;
	assert_int_equal(addr_parse("192.0.2.1:1000", &a, &error), 0);
	b = (struct addr){.len = sizeof(b.in6)};
	b.in6.sin6_family = AF_INET6;
	b.in6.sin6_addr.s6_addr[10] = b.in6.sin6_addr.s6_addr[11] = 0xff;
	memcpy(&b.in6.sin6_addr.s6_addr[12], &a.in.sin_addr, 4);
	assert_int_equal(addr_parse("192.0.2.2:1000", &c, &error), 0);
	assert_int_equal(addr_parse("unix:/x", &unix_client, &error), 0);
	assert_true(maglev_client_hash(&a) == maglev_client_hash(&b));
	assert_true(maglev_client_hash(&a) == 0x395c5bc678c14723ull);
	assert_true(maglev_client_hash(&a) != maglev_client_hash(&c));
	assert_true(maglev_client_hash(&unix_client) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hosts_agree_whatever_the_order),
		cmocka_unit_test(the_table_is_the_same_in_every_version),
		cmocka_unit_test(shares_follow_the_weights),
		cmocka_unit_test(a_tiny_weight_has_an_entry),
		cmocka_unit_test(no_server_is_an_empty_table),
		cmocka_unit_test(a_server_removed_from_the_configuration_moves_few_others),
		cmocka_unit_test(only_the_clients_of_a_lost_server_move_and_they_return),
		cmocka_unit_test(an_operators_drain_moves_only_its_clients),
		cmocka_unit_test(backends_agree_whatever_the_order),
		cmocka_unit_test(a_client_has_one_hash_in_both_families),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
