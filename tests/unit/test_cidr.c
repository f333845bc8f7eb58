/* SPDX-License-Identifier: BSD-2-Clause */
/* Which clients the networks let in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "../../daemon/cidr.h"

#define MANY 5000

/* "+10.0.0.0/8" allows, "-::/0" denies. */
static struct conf_cidr network(const char *text)
{
	struct conf_cidr conf = {.allow = text[0] == '+'};
	char host[64];

	assert_int_equal(sscanf(text + 1, "%63[^/]/%u", host, &conf.prefix), 2);
	conf.family = strchr(host, ':') ? AF_INET6 : AF_INET;
	assert_int_equal(inet_pton(conf.family, host, conf.ip), 1);
	return conf;
}

static struct addr client(const char *text)
{
	struct addr addr = {0};

	if (strchr(text, ':')) {
		addr.in6.sin6_family = AF_INET6;
		addr.len = sizeof(addr.in6);
		assert_int_equal(inet_pton(AF_INET6, text, &addr.in6.sin6_addr), 1);
	} else {
		addr.in.sin_family = AF_INET;
		addr.len = sizeof(addr.in);
		assert_int_equal(inet_pton(AF_INET, text, &addr.in.sin_addr), 1);
	}
	return addr;
}

/* networks and clients: separated by spaces; "+1.2.3.4" is expected to be let in. In any order. */
static void expect(const char *networks, const char *clients)
{
	struct conf_cidr confs[16], mirrored[16];
	char *copy = strdup(networks), *answers = strdup(clients), *rest = copy;
	struct cidr *cidrs[2];
	unsigned int n = 0;

	for (char *word; (word = strtok_r(rest, " ", &rest));)
		confs[n++] = network(word);
	for (unsigned int i = 0; i < n; i++)
		mirrored[i] = confs[n - 1 - i];
	cidrs[0] = cidr_new(confs, n);
	cidrs[1] = cidr_new(mirrored, n);
	rest = answers;
	for (char *word; (word = strtok_r(rest, " ", &rest));) {
		struct addr addr = client(word + 1);

		for (unsigned int k = 0; k < 2; k++)
			if (cidr_allows(cidrs[k], &addr) != (word[0] == '+'))
				fail_msg("%s with %s", word, networks);
	}
	cidr_free(cidrs[0]);
	cidr_free(cidrs[1]);
	free(copy);
	free(answers);
}

static void without_networks_everybody_may_connect(void **state)
{
	struct addr addr = client("192.0.2.1");

	(void)state;
	expect("", "+0.0.0.0 +192.0.2.1 +255.255.255.255 +:: +2001:db8::1");
	assert_true(cidr_allows(NULL, &addr));
}

static void denying_some_leaves_the_others(void **state)
{
	(void)state;
	expect("-10.0.0.0/8 -2001:db8::/32",
		"-10.0.0.0 -10.255.255.255 +9.255.255.255 +11.0.0.0 -2001:db8::1 +2001:db9:: +::");
}

static void allowing_one_denies_the_others(void **state)
{
	(void)state;
	expect("+10.1.2.3/32", "+10.1.2.3 -10.1.2.2 -10.1.2.4 -0.0.0.0 -::1 -ffff::");
	/* Also of the other family, and beside something denied. */
	expect("+::1/128 -10.0.0.0/8", "+::1 -::2 -10.0.0.1 -11.0.0.1");
}

static void the_longest_prefix_decides(void **state)
{
	(void)state;
	expect("+10.0.0.0/8 -10.1.0.0/16 +10.1.2.0/24 -10.1.2.3/32",
		"+10.0.0.1 -10.1.0.1 +10.1.2.2 -10.1.2.3 +10.1.2.4 -10.1.3.0 +10.2.0.0 -11.0.0.0");
	expect("-::/0 +2001:db8::/32 -2001:db8:1::/48", "-:: +2001:db8:: -2001:db8:1::5 -ffff::1");
}

static void deny_wins_where_the_same_network_is_given_to_both(void **state)
{
	(void)state;
	expect("+10.0.0.0/8 -10.0.0.0/8 +11.0.0.0/8", "-10.0.0.1 +11.0.0.1 -12.0.0.1");
	expect("+0.0.0.0/0 -0.0.0.0/0", "-10.0.0.1 -::1");
	expect("+::/0 -::/0 +::/0", "-::1 -1.2.3.4");
}

static void neighbours_do_not_touch_each_other(void **state)
{
	(void)state;
	expect("+10.0.0.0/9 -10.128.0.0/9 +11.0.0.0/32 +255.255.255.255/32",
		"+10.127.255.255 -10.128.0.0 -10.255.255.255 +11.0.0.0 -11.0.0.1 +255.255.255.255 "
		"-255.255.255.254");
	expect("+ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128 +::/128",
		"+ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff +:: -::1 -fffe::");
}

static void mapped_addresses_are_ipv4_and_no_ipv6_network_holds_them(void **state)
{
	(void)state;
	expect("+10.0.0.0/8", "+::ffff:10.0.0.1 -::ffff:11.0.0.1 -::10.0.0.1");
	expect("+::/0", "-1.2.3.4 -::ffff:1.2.3.4 +::1 +::fffe:ffff:ffff +::1:0:0:0");
	expect("-::/0", "+1.2.3.4 +::ffff:255.255.255.255 -::1 -::1:0:0:0");
	expect("-::/64 +0.0.0.0/0", "+1.2.3.4 -::1 -1::");
}

static void clients_without_an_ip_address_may_connect(void **state)
{
	struct conf_cidr confs[] = {network("+10.0.0.0/8"), network("-0.0.0.0/0")};
	struct cidr *cidr = cidr_new(confs, 2);
	struct addr addr = {.len = sizeof(addr.un)};

	(void)state;
	addr.un.sun_family = AF_UNIX;
	assert_true(cidr_allows(cidr, &addr));
	cidr_free(cidr);
}

/* The oracle reads the rules as the manual has them: one network after the other, bit by bit. */
static bool holds(const struct conf_cidr *conf, const struct conf_cidr *ip)
{
	if (conf->family != ip->family)
		return false;
	for (unsigned int bit = 0; bit < conf->prefix; bit++)
		if ((conf->ip[bit / 8] ^ ip->ip[bit / 8]) & 0x80 >> bit % 8)
			return false;
	return true;
}

static bool oracle_allows(const struct conf_cidr *confs, unsigned int n, const struct conf_cidr *ip)
{
	const struct conf_cidr *best = NULL;
	bool any_allow = false;

	for (unsigned int i = 0; i < n; i++) {
		any_allow |= confs[i].allow;
		if (!holds(&confs[i], ip))
			continue;
		if (!best || confs[i].prefix > best->prefix ||
			(confs[i].prefix == best->prefix && !confs[i].allow))
			best = &confs[i];
	}
	return best ? best->allow : !any_allow;
}

/* Few different values per byte, so that networks nest and repeat. */
static struct conf_cidr random_ip(void)
{
	struct conf_cidr ip = {.family = random() % 2 ? AF_INET : AF_INET6};

	ip.prefix = ip.family == AF_INET ? 32 : 128;
	for (unsigned int i = 0; i < ip.prefix / 8; i++)
		ip.ip[i] = (unsigned char)(random() % 4 ? random() % 3 * 127 + random() % 2
							: random());
	return ip;
}

static struct conf_cidr random_network(bool allow)
{
	struct conf_cidr conf = random_ip();

	conf.allow = allow;
	conf.prefix = (unsigned int)random() % (conf.prefix + 1);
	for (unsigned int bit = conf.prefix; bit < 128; bit++)
		conf.ip[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
	return conf;
}

static struct addr addr_of(const struct conf_cidr *ip)
{
	struct addr addr = {0};

	if (ip->family == AF_INET) {
		addr.in.sin_family = AF_INET;
		addr.len = sizeof(addr.in);
		memcpy(&addr.in.sin_addr, ip->ip, 4);
	} else {
		addr.in6.sin6_family = AF_INET6;
		addr.len = sizeof(addr.in6);
		memcpy(&addr.in6.sin6_addr, ip->ip, 16);
	}
	return addr;
}

/* The first or the last address of a network, or the one before or after it. */
static struct conf_cidr edge_of(const struct conf_cidr *conf)
{
	struct conf_cidr ip = *conf;
	unsigned int bytes = conf->family == AF_INET ? 4 : 16, kind = (unsigned int)random() % 4;
	int step = kind == 1 ? -1 : kind == 3 ? 1 : 0;

	for (unsigned int bit = conf->prefix; kind >= 2 && bit < 8 * bytes; bit++)
		ip.ip[bit / 8] |= (unsigned char)(0x80 >> bit % 8);
	for (unsigned int i = bytes; step && i--;) {
		int value = ip.ip[i] + step;

		ip.ip[i] = (unsigned char)value;
		step = value < 0 ? -1 : value > 255 ? 1 : 0;
	}
	return ip;
}

static void compare_with_oracle(unsigned int n, unsigned int deny_percent, unsigned int questions)
{
	struct conf_cidr *confs = calloc(n + 1, sizeof(*confs));
	unsigned int allowed = 0;
	struct cidr *cidr;

	for (unsigned int i = 0; i < n; i++)
		confs[i] = random_network(random() % 100 >= (long)deny_percent);
	cidr = cidr_new(confs, n);
	assert_non_null(cidr);
	for (unsigned int k = 0; k < questions; k++) {
		struct conf_cidr ip = random() % 2 ? random_ip() : edge_of(&confs[random() % n]);
		struct addr addr = addr_of(&ip);
		bool expected = oracle_allows(confs, n, &ip);

		assert_int_equal(cidr_allows(cidr, &addr), expected);
		allowed += expected;
	}
	/* Else the questions ask nothing. */
	assert_true(questions < 1000 ||
		    (allowed > questions / 20 && allowed < questions - questions / 20));
	cidr_free(cidr);
	free(confs);
}

static void five_thousand_networks_answer_as_one_by_one(void **state)
{
	(void)state;
	srandom(3);
	compare_with_oracle(MANY, 50, 4000);
	for (unsigned int i = 0; i < 2000; i++)
		compare_with_oracle(1 + i % 9, 10 * (i % 11), 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_networks_everybody_may_connect),
		cmocka_unit_test(denying_some_leaves_the_others),
		cmocka_unit_test(allowing_one_denies_the_others),
		cmocka_unit_test(the_longest_prefix_decides),
		cmocka_unit_test(deny_wins_where_the_same_network_is_given_to_both),
		cmocka_unit_test(neighbours_do_not_touch_each_other),
		cmocka_unit_test(mapped_addresses_are_ipv4_and_no_ipv6_network_holds_them),
		cmocka_unit_test(clients_without_an_ip_address_may_connect),
		cmocka_unit_test(five_thousand_networks_answer_as_one_by_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
