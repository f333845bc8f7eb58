/* SPDX-License-Identifier: BSD-2-Clause */
/* What each key takes and refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <inttypes.h>

#include "conf_check.h"

static void unknown_key_names_key_section_and_value(void **state)
{
	(void)state;
	refuses_key(CONF_GLOBAL, "thread = 4", "unknown key 'thread' in [global] (value '4')");
	refuses_key(CONF_LISTENER, "Path = auto", "unknown key 'Path' in [listener web]");
	refuses_key(CONF_LISTENER, "threads = 4", "it belongs in [global]");
	refuses_key(CONF_BACKEND, "bind = *:1", "it belongs in [listener NAME]");
	refuses_key(CONF_BACKEND, "pat = auto", "unknown key");
}

static void duplicate_key_names_the_first_line(void **state)
{
	(void)state;
	refuses("[global]\nthreads = 1\nthreads = 1\n" MINIMAL, 3,
		"key 'threads' in [global]: given twice (value '1', first on line 2)");
	refuses_key(CONF_LISTENER, "backend = app", "first on line 3");
	accepts(MINIMAL "check = off\n[backend b]\ncheck = off\nserver = 1.2.3.4:5\n");
}

static void required_keys_are_missed_at_their_section(void **state)
{
	(void)state;
	refuses("\n[listener web]\nbackend = app\n" BACKEND, 2,
		"key 'bind' in [listener web]: missing");
	refuses("[listener web]\nbind = *:1\n" BACKEND, 1,
		"key 'backend' in [listener web]: missing");
	refuses(MINIMAL "\n[backend b]\n", 7, "key 'server' in [backend b]: missing");
}

static void unknown_backend_is_refused_at_its_key(void **state)
{
	(void)state;
	refuses("[listener web]\nbind = *:1\nbackend = nope\n" BACKEND, 3,
		"key 'backend' in [listener web]: 'nope': there is no such backend");
	refuses("[listener web]\nbind = *:1\nbackend =\n" BACKEND, 3,
		"key 'backend' in [listener web]");
	refuses("[listener web]\nbind = *:1\nbackend = app app\n" BACKEND, 3, "without spaces");
	accepts(BACKEND LISTENER);
}

/* The edges of every range, from the table itself: they were never tried by hand. */
static void every_range_takes_its_edges_and_nothing_beyond(void **state)
{
	unsigned int ranges = 0;

	(void)state;
	for (unsigned int i = 0; i < conf_key_count; i++) {
		const struct conf_key *key = &conf_keys[i];
		const char *unit = key->type == CONF_TYPE_TIME ? "ms" : "";
		char text[128];

		if (key->type > CONF_TYPE_TIME || key->flags & CONF_NOT_YET)
			continue;
		ranges++;
		snprintf(text, sizeof(text), "%s = %" PRIu64 "%s", key->name, key->min, unit);
		accepts_key(key->section, text);
		snprintf(text, sizeof(text), "%s = %" PRIu64 "%s", key->name, key->max, unit);
		accepts_key(key->section, text);
		snprintf(text, sizeof(text), "%s = %" PRIu64 "%s", key->name, key->max + 1, unit);
		refuses_key(key->section, text, "is out of range; allowed: ");
		if (key->min == 0 || (key->min == 1 && key->words && !strcmp(key->words, "off")))
			continue; /* what is below is "off", or nothing */
		snprintf(text, sizeof(text), "%s = %" PRIu64 "%s", key->name, key->min - 1, unit);
		refuses_key(key->section, text, "is out of range; allowed: ");
	}
	assert_int_equal(ranges, 23);
}

static void range_errors_show_value_and_range(void **state)
{
	(void)state;
	refuses_key(CONF_GLOBAL, "threads = 0", "'0' is out of range; allowed: auto, or 1 to 1024");
	refuses_key(CONF_GLOBAL, "overflow_limit = 2G", "'2G' is out of range; allowed: 4K to 1G");
	refuses_key(CONF_GLOBAL, "drain_timeout = 25h", "'25h' is out of range; allowed: 0 to 24h");
	refuses_key(CONF_LISTENER, "idle_timeout = 8761h", "allowed: off, or 1ms to 8760h");
	refuses_key(CONF_BACKEND, "keepalive = 1ms", "allowed: off, or 1s to 32767s");
	refuses_key(CONF_BACKEND, "connect_timeout = 0", "allowed: 1ms to 24h");
}

static void numbers_are_strict(void **state)
{
	static const char *const bad[] = {
		"", "x", "-1", "+1", "1.5", "1 2", "0x10", "4x", "1e3", "4 threads"};
	char text[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		snprintf(text, sizeof(text), "threads = %s", bad[i]);
		refuses_key(CONF_GLOBAL, text, "is not a number");
	}
	refuses_key(CONF_GLOBAL, "threads = 4K", "is not a number");
	refuses_key(CONF_GLOBAL, "threads = off", "is not a number");
	refuses_key(CONF_GLOBAL, "threads = Auto", "is not a number");
	/* Modulo 2^32 and 2^64 these would be 1, 1 and 4. */
	refuses_key(CONF_GLOBAL, "threads = 4294967297", "out of range");
	refuses_key(CONF_GLOBAL, "threads = 18446744073709551617", "out of range");
	refuses_key(CONF_GLOBAL, "threads = 18446744073709551620", "out of range");
}

static void sizes_take_k_m_g(void **state)
{
	struct conf *conf = accept_key(CONF_GLOBAL, "overflow_limit = 1G");

	(void)state;
	assert_int_equal(conf->overflow_limit, 1073741824);
	conf_free(conf);
	conf = accept_key(CONF_GLOBAL, "overflow_limit = 4097");
	assert_int_equal(conf->overflow_limit, 4097);
	survives_its_dump(conf);
	refuses_key(CONF_GLOBAL, "overflow_limit = 512KB", "is not a size");
	refuses_key(CONF_GLOBAL, "overflow_limit = 512 K", "is not a size");
	refuses_key(CONF_GLOBAL, "overflow_limit = 512k", "is not a size");
	refuses_key(CONF_GLOBAL, "overflow_limit = K", "is not a size");
	refuses_key(CONF_GLOBAL, "overflow_limit = 1s", "is not a size");
	refuses_key(CONF_GLOBAL, "overflow_limit = off", "is not a size");
	/* 512K modulo 2^64 */
	refuses_key(CONF_GLOBAL, "overflow_limit = 18014398509482496K", "out of range");
	refuses_key(CONF_GLOBAL, "overflow_limit = 17179869184G", "out of range");
}

static void times_need_a_unit_but_for_zero(void **state)
{
	struct conf *conf = accept_key(CONF_LISTENER, "idle_timeout = 90m");

	(void)state;
	assert_int_equal(conf->listeners[0].idle_timeout_ms, 5400000);
	conf_free(conf);
	conf = accept_key(CONF_LISTENER, "idle_timeout = 0");
	assert_int_equal(conf->listeners[0].idle_timeout_ms, 0);
	survives_its_dump(conf);
	conf = accept_key(CONF_LISTENER, "idle_timeout = off");
	assert_int_equal(conf->listeners[0].idle_timeout_ms, 0);
	conf_free(conf);
	conf = accept_key(CONF_GLOBAL, "drain_timeout = 0");
	assert_int_equal(conf->drain_timeout_ms, 0);
	conf_free(conf);
	refuses_key(
		CONF_LISTENER, "idle_timeout = 30", "is not a time (a number with ms, s, m or h)");
	refuses_key(CONF_LISTENER, "idle_timeout = 30S", "is not a time");
	refuses_key(CONF_LISTENER, "idle_timeout = 30sec", "is not a time");
	refuses_key(CONF_LISTENER, "idle_timeout = 30M", "is not a time");
	refuses_key(CONF_LISTENER, "idle_timeout = 1h30m", "is not a time");
	refuses_key(CONF_LISTENER, "idle_timeout = ms", "is not a time");
	refuses_key(CONF_GLOBAL, "drain_timeout = off", "is not a time");
	refuses_key(CONF_LISTENER, "half_close_timeout = off", "is not a time");
	refuses_key(CONF_LISTENER, "idle_timeout = 5124095576030431h",
		"out of range"); /* wraps to 0.4 h */
}

static void words_are_matched_whole(void **state)
{
	(void)state;
	refuses_key(CONF_GLOBAL, "path = sock", "'sock' is not one of 'auto', 'sockmap', 'relay'");
	refuses_key(CONF_GLOBAL, "path = sockmaps", "is not one of");
	refuses_key(CONF_GLOBAL, "path = AUTO", "is not one of");
	refuses_key(CONF_GLOBAL, "path = auto relay", "is not one of");
	refuses_key(CONF_GLOBAL, "path = auto|relay", "is not one of");
	refuses_key(CONF_GLOBAL, "path =", "'' is not one of");
	refuses_key(CONF_LISTENER, "path = off", "is not one of");
	refuses_key(CONF_GLOBAL, "parser = strparser", "'auto', 'stream', 'none'");
	refuses_key(
		CONF_GLOBAL, "log_level = warn", "'error', 'warning', 'notice', 'info', 'debug'");
}

static void account_names_are_checked(void **state)
{
	(void)state;
	accepts_key(CONF_GLOBAL, "user = _shunt.x-1");
	accepts_key(CONF_GLOBAL, "user = 12345678901234567890123456789012");
	refuses_key(CONF_GLOBAL, "user = 123456789012345678901234567890123", "not an account name");
	refuses_key(CONF_GLOBAL, "user =", "not an account name");
	refuses_key(CONF_GLOBAL, "user = -x", "not an account name");
	refuses_key(CONF_GLOBAL, "user = a b", "not an account name");
}

/* Every such key, from the table: its default is taken, and nothing else. */
static void keys_not_supported_yet_take_their_default_only(void **state)
{
	unsigned int keys = 0;
	char text[128], words[128];

	(void)state;
	for (unsigned int i = 0; i < conf_key_count; i++) {
		const struct conf_key *key = &conf_keys[i];

		if (!(key->flags & CONF_NOT_YET))
			continue;
		keys++;
		snprintf(text, sizeof(text), "%s = %s", key->name, key->def ? key->def : "");
		snprintf(words, sizeof(words), "not supported yet (only '%s' is)",
			key->def ? key->def : "");
		if (key->def)
			accepts_key(key->section, text);
		snprintf(text, sizeof(text), "%s = 17", key->name);
		refuses_key(key->section, text, key->def ? words : ": not supported yet");
	}
	assert_int_equal(keys, 7);
}

static void words_not_supported_yet_are_told_from_wrong_ones(void **state)
{
	(void)state;
	refuses_key(CONF_LISTENER, "original_dst = on", "not supported yet (only 'off' is)");
	refuses_key(CONF_BACKEND, "balance = leastconn",
		"'leastconn' is not one of 'round_robin', 'least_sessions', 'random_two', "
		"'source_hash'");
	refuses_key(CONF_BACKEND, "check = on", "is not one of 'off', 'tcp', 'send_expect'");
	refuses_key(CONF_BACKEND, "check = tcp off", "is not one of");
	refuses_key(CONF_BACKEND, "on_server_down = kill", "is not one of 'keep', 'reset'");
	refuses_key(CONF_BACKEND, "send_proxy = v3", "'v3' is not one of 'off', 'v1', 'v2'");
	refuses_key(CONF_BACKEND, "send_proxy = on", "is not one of");
	refuses_key(CONF_LISTENER, "accept_proxy = v1", "'v1' is not one of 'off', 'on'");
	refuses_key(CONF_LISTENER, "accept_proxy = 1", "is not one of");
}

static void server_lines_are_strict(void **state)
{
	(void)state;
	refuses_key(CONF_BACKEND, "server =", "key 'server' in [backend app]: ''");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1", "port is missing");
	refuses_key(CONF_BACKEND, "server = *:80", "not '*'");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:0", "port from 1");
	refuses_key(CONF_BACKEND, "server = [::1]:0", "port from 1");
	refuses_key(CONF_BACKEND, "server = app.example.org:80", "names are not supported yet");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 weight", "'weight': not a server option");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 weights=1", "not a server option");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 10.0.0.2:80", "not a server option");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 weight=257",
		"'257': not a weight; allowed: 0 to 256");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 weight=4294967296", "not a weight");
	refuses_key(
		CONF_BACKEND, "server = 10.0.0.1:80 weight=18446744073709551616", "not a weight");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 weight=", "not a weight");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 weight=1x", "not a weight");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 weight=-1", "not a weight");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 weight=1 weight=1", "given twice");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 name=a name=b", "given twice");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 name=", "not a server name");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 name=\xff", "not a server name");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 backups", "not a server option");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 backup=1", "not a server option");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 backup backup", "given twice");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 max_sessions=100000001",
		"'100000001': not a number of sessions; allowed: off, or 1 to 100000000");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 max_sessions=5x", "not a number");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 max_sessions=", "not a number");
}

static void max_sessions_of_a_server_overrides_the_backend_even_with_off(void **state)
{
	struct conf *conf = accept_text(LISTENER
		"[backend app]\nserver = 1.1.1.1:1 max_sessions=7 backup\nserver_max_sessions = 5\n"
		"server = 1.1.1.1:2 max_sessions=off\nserver = 1.1.1.1:3\n"
		"server = 1.1.1.1:4 max_sessions=0\n");
	const struct conf_server *servers = conf->backends[0].servers;

	(void)state;
	assert_int_equal(servers[0].max_sessions, 7);
	assert_true(servers[0].backup);
	assert_int_equal(servers[1].max_sessions, 0);
	assert_int_equal(servers[2].max_sessions, 5);
	assert_false(servers[2].backup);
	assert_int_equal(servers[3].max_sessions, 0);
	survives_its_dump(conf);
}

static void networks_are_kept_in_one_form(void **state)
{
	static const struct {
		const char *text, *host;
		unsigned int prefix;
	} cases[] = {
		{"10.0.0.0/8", "10.0.0.0", 8}, {"10.1.2.3", "10.1.2.3", 32},
		{"10.1.2.3/32", "10.1.2.3", 32}, {"10.1.2.2/31", "10.1.2.2", 31},
		{"0.0.0.0/0", "0.0.0.0", 0}, {"::/0", "::", 0}, {"2001:db8::/33", "2001:db8::", 33},
		{"::1", "::1", 128}, {"::ffff:10.0.0.0/104", "10.0.0.0", 8},
		{"::ffff:1.2.3.4", "1.2.3.4", 32}, {"::ffff:0.0.0.0/96", "0.0.0.0", 0},
		{"::fffe:0:0/95", "::fffe:0.0.0.0", 95}, /* more than the mapped ones: stays */
	};
	unsigned char want[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int family = strchr(cases[i].host, ':') ? AF_INET6 : AF_INET;
		char text[64];
		struct conf *conf;
		const struct conf_cidr *cidr;

		snprintf(text, sizeof(text), "%s = %s", i % 2 ? "allow" : "deny", cases[i].text);
		conf = accept_key(CONF_LISTENER, text);
		assert_int_equal(conf->listeners[0].access.n, 1);
		cidr = &conf->listeners[0].access.v[0];
		memset(want, 0, sizeof(want));
		assert_int_equal(inet_pton(family, cases[i].host, want), 1);
		assert_int_equal(cidr->family, family);
		assert_int_equal(cidr->prefix, cases[i].prefix);
		assert_memory_equal(cidr->ip, want, sizeof(want));
		assert_int_equal(cidr->allow, i % 2);
		assert_int_equal(cidr->line, 4);
		survives_its_dump(conf);
	}
}

static void networks_are_strict(void **state)
{
	static const char *const bad[] = {"", "any", "10", "10.0.0", "10.0.0.0/", "/8",
		"10.0.0.0/8/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0.0/ 8",
		"10.0.0.0/4294967304", "10.0.0.0/255.0.0.0", "::/129", "[::1]", "[::1]/128",
		"fe80::1%1", "1.2.3.4:80", "010.0.0.1", "10.0.0.0/8,11.0.0.0/8", "unix:/x",
		"1111:1111:1111:1111:1111:1111:1111:1111:1111:1111/1"};
	char text[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		snprintf(text, sizeof(text), "allow = %s", bad[i]);
		refuses_key(CONF_LISTENER, text, "not a ");
	}
	refuses_key(CONF_LISTENER, "deny = 10.0.0.1/8",
		"'10.0.0.1/8': there are bits beyond the prefix; the network is 10.0.0.0/8");
	refuses_key(CONF_LISTENER, "allow = 1.2.3.4/0", "the network is 0.0.0.0/0");
	refuses_key(CONF_LISTENER, "allow = 2001:db8::1/127", "the network is 2001:db8::/127");
	refuses_key(CONF_LISTENER, "allow = 2001:db8::/24", "the network is 2001:d00::/24");
}

static void same_network_may_be_allowed_and_denied(void **state)
{
	struct conf *conf = accept_text(LISTENER "allow = 10.0.0.0/8\ndeny = 10.0.0.0/8\n"
						 "allow = 10.0.0.0/8\ndeny = ::/0\n" BACKEND);
	const struct conf_cidrs *access = &conf->listeners[0].access;

	(void)state;
	assert_int_equal(access->n, 4);
	assert_true(access->v[0].allow);
	assert_false(access->v[1].allow);
	assert_true(access->v[2].allow);
	assert_int_equal(access->v[3].line, 7);
	survives_its_dump(conf);
}

static void networks_of_proxies_are_any_or_a_list(void **state)
{
	static const char *const bad[] = {
		"", "Any", "any any", "off", "10.0.0.0/33", "unix:/x", "any/0", "10.0.0.1:80"};
	struct conf *conf = accept_key(CONF_LISTENER, "accept_proxy_from = any");
	const struct conf_cidr *v;
	char text[128];

	(void)state;
	assert_int_equal(conf->listeners[0].accept_proxy_from.n, 0);
	survives_its_dump(conf);
	conf = accept_key(CONF_LISTENER,
		"allow = 11.0.0.0/8\naccept_proxy_from = ::ffff:10.0.0.0/104\n"
		"deny = 12.0.0.0/8\naccept_proxy_from = ::1");
	assert_int_equal(conf->listeners[0].access.n, 2);
	assert_int_equal(conf->listeners[0].accept_proxy_from.n, 2);
	v = conf->listeners[0].accept_proxy_from.v;
	assert_true(v[0].allow && v[1].allow);
	assert_int_equal(v[0].family, AF_INET);
	assert_int_equal(v[0].prefix, 8);
	assert_int_equal(v[0].ip[0], 10);
	assert_int_equal(v[0].line, 5);
	assert_int_equal(v[1].prefix, 128);
	survives_its_dump(conf);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		snprintf(text, sizeof(text), "accept_proxy_from = %s", bad[i]);
		refuses_key(CONF_LISTENER, text, "not a ");
	}
	refuses_key(CONF_LISTENER, "accept_proxy_from = proxies",
		"'proxies': not a network; allowed: any, ADDRESS or ADDRESS/PREFIX");
	refuses_key(CONF_LISTENER, "allow = x", "allowed: ADDRESS or ADDRESS/PREFIX");
	refuses_key(CONF_LISTENER, "accept_proxy_from = 10.0.0.1/8",
		"'10.0.0.1/8': there are bits beyond the prefix; the network is 10.0.0.0/8");
	refuses(LISTENER "accept_proxy_from = any\naccept_proxy_from = 10.0.0.0/8\n" BACKEND, 5,
		"'any' and a network (value '10.0.0.0/8')");
	refuses(LISTENER "accept_proxy_from = 10.0.0.0/8\naccept_proxy_from = any\n" BACKEND, 5,
		"key 'accept_proxy_from' in [listener web]: 'any' and a network (value 'any')");
}

static void routes_are_strict(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"", "'': not a route; allowed: PATTERN BACKEND"},
		{"example.org", "'example.org': not a route; allowed: PATTERN BACKEND"},
		{"example.org app more", "'more': not a route"},
		{"example.org app ;app", NULL},
		{"*.*.example.org app", "'*.*.example.org': '*' stands for"},
		{"*example.org app", "'*' stands for"},
		{"www.*.org app", "'*' stands for"},
		{"** app", "'*' stands for"},
		{"*. app", "the name after '*.' is missing"},
		{". app", "the name is empty"},
		{".example.org app", "dot"},
		{"a..b app", "two dots"},
		{"example.org:443 app", "other characters than letters"},
		{"caf\xc3\xa9.org app", "xn--"},
		{"example.org \xff", "not a name; allowed: text without spaces"},
		{"example.org nope", "'nope': there is no such backend"},
		{"example.org APP", "'APP': there is no such backend"},
		{"example.org web", "'web': there is no such backend"},
	};
	char text[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		snprintf(text, sizeof(text), "route = %s", bad[i].text);
		if (bad[i].words)
			refuses_key(CONF_LISTENER, text, bad[i].words);
		else
			accepts_key(CONF_LISTENER, text); /* a comment */
	}
	refuses_key(
		CONF_LISTENER, "route = example.org nope", "key 'route' in [listener web]: 'nope'");
	refuses(LISTENER "route = a..b app\nnonsense = 1\n" BACKEND, 4, "two dots");
	refuses("[listener web]\nbind = *:1\nroute = * app\n" BACKEND, 1,
		"key 'backend' in [listener web]: missing");
}

static void routes_take_each_pattern_once(void **state)
{
	(void)state;
#define ROUTES(a, b, c) LISTENER "route = " a " app\nroute = " b " app\nroute = " c " app\n" BACKEND
	refuses(ROUTES("a.org", "b.org", "a.org"), 6,
		"key 'route' in [listener web]: 'a.org': the pattern is given twice");
	refuses(ROUTES("a.org", "A.ORG.", "b.org"), 5, "'A.ORG.': the pattern is given twice");
	refuses(ROUTES("*.a.org", "b.org", "*.A.org"), 6, "given twice");
	refuses(ROUTES("*", "*.org", "*"), 6, "'*': the pattern is given twice");
	accepts(ROUTES("*", "*.a.org", "a.org"));
	accepts(LISTENER "route = a.org app\n[listener b]\nbind = *:1\nbackend = app\n"
			 "route = a.org app\n" BACKEND);
	/* Of two errors of a listener the unknown backend comes first, wherever it is. */
	refuses(LISTENER "route = * app\nroute = * app\nroute = a nope\n" BACKEND, 6, "'nope'");
}

static void rates_are_a_number_per_time(void **state)
{
	static const char *const bad[] = {"", "100", "100/", "100/s", "/1s", "100/0", "100/1",
		"0/1s", "100 / 1s", "1000001/1s", "100/25h", "100/1s/1s", "-1/1s",
		"18446744073709551617/1s"};
	struct conf *conf = accept_key(CONF_LISTENER, "max_rate_per_ip = 100/90s");
	char text[64];

	(void)state;
	assert_int_equal(conf->listeners[0].max_rate_per_ip.count, 100);
	assert_int_equal(conf->listeners[0].max_rate_per_ip.period_ms, 90000);
	survives_its_dump(conf);
	survives_its_dump(accept_key(CONF_LISTENER, "max_rate_per_ip = 1000000/1ms"));
	conf = accept_key(CONF_LISTENER, "max_rate_per_ip = 0");
	assert_int_equal(conf->listeners[0].max_rate_per_ip.count, 0);
	survives_its_dump(conf);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		snprintf(text, sizeof(text), "max_rate_per_ip = %s", bad[i]);
		refuses_key(CONF_LISTENER, text,
			"is not a rate (as in 100/1s); allowed: off, or 1 to 1000000 per 1ms to "
			"24h");
	}
}

static void bind_options_are_strict(void **state)
{
	struct conf *conf =
		accept_text(LISTENER "bind = *:81\nbind_options = backlog=65535\tfreebind "
				     "interface=eth0.7 v6only\n" BACKEND);
	const struct conf_bind_options *options = &conf->listeners[0].bind_options;

	(void)state;
	assert_true(options->v6only && options->freebind);
	assert_string_equal(options->interface, "eth0.7");
	assert_int_equal(options->backlog, 65535);
	assert_int_equal(options->line, 5);
	survives_its_dump(conf);
	survives_its_dump(accept_key(CONF_LISTENER, "bind_options ="));
	survives_its_dump(accept_key(CONF_LISTENER, "bind_options = backlog=1"));
	refuses_key(CONF_LISTENER, "bind_options = v6", "'v6': not a bind option; allowed: v6only");
	refuses_key(CONF_LISTENER, "bind_options = freebind freebind", "given twice");
	refuses_key(CONF_LISTENER, "bind_options = backlog=1 backlog=2", "given twice");
	refuses_key(CONF_LISTENER, "bind_options = interface=a interface=a", "given twice");
	refuses_key(CONF_LISTENER, "bind_options = backlog=0", "not a backlog");
	refuses_key(CONF_LISTENER, "bind_options = backlog=65536", "not a backlog");
	refuses_key(CONF_LISTENER, "bind_options = backlog=9x", "not a backlog");
	refuses_key(CONF_LISTENER, "bind_options = interface=", "not the name of a network");
	refuses_key(CONF_LISTENER, "bind_options = interface=1234567890123456", "not the name");
	refuses_key(CONF_LISTENER, "bind_options = interface=a/b", "not the name");
	refuses_key(CONF_LISTENER, "bind_options = interface=..", "not the name");
	accepts_key(CONF_LISTENER, "bind_options = interface=123456789012345");
}

static void bind_options_that_nothing_can_have_are_refused(void **state)
{
	(void)state;
	refuses_key(CONF_LISTENER, "bind_options = v6only", "v6only, but no IPv6 address");
	refuses("[listener web]\nbind_options = freebind\nbind = unix:/a\nbackend = app\n" BACKEND,
		2, "key 'bind_options' in [listener web]: freebind, but only UNIX sockets");
	refuses("[listener web]\nbind = unix:/a\nbackend = app\nbind_options = "
		"interface=lo\n" BACKEND,
		4, "interface, but only UNIX sockets");
	accepts("[listener web]\nbind = unix:/a\nbackend = app\nbind_options = "
		"backlog=5\n" BACKEND);
	accepts("[listener web]\nbind = unix:/a\nbind = *:1\nbackend = app\n"
		"bind_options = v6only\n" BACKEND);
}

static void check_texts_take_the_escapes_of_c(void **state)
{
	static const char send[] = "PING\r\n\0\xff\t\"\\ ;x", expect[] = "+PONG";
	struct conf *conf = accept_key(CONF_BACKEND,
		"check = send_expect  "
		"\"PING\\r\\n\\x00\\xfF\\t\\\"\\\\\\x20;x\"\t\"+PONG\" ; note");
	const struct conf_backend *backend = &conf->backends[0];

	(void)state;
	assert_int_equal(backend->check, CHECK_SEND_EXPECT);
	assert_int_equal(backend->check_send_len, sizeof(send) - 1);
	assert_memory_equal(backend->check_send, send, sizeof(send) - 1);
	assert_int_equal(backend->check_expect_len, sizeof(expect) - 1);
	assert_memory_equal(backend->check_expect, expect, sizeof(expect) - 1);
	survives_its_dump(conf);
	conf = accept_key(CONF_BACKEND, "check = send_expect \"\" \"2;0 \\x3b\"");
	assert_int_equal(conf->backends[0].check_send_len, 0);
	assert_int_equal(conf->backends[0].check_expect_len, 5);
	survives_its_dump(conf);
}

static void check_texts_are_strict(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"send_expect", "allowed: send_expect \"SEND\" \"EXPECT\""},
		{"send_expect PING PONG", "in quotes"},
		{"send_expect\"a\" \"b\"", "in quotes"},
		{"send_expect \"a\"\"b\"", "in quotes"},
		{"send_expect \"a\"", "in quotes"},
		{"send_expects \"a\" \"b\"", "in quotes"},
		{"send_expect \"a\" \"b", "a quote is not closed"},
		{"send_expect \"a\" \"b\\\"", "a quote is not closed"},
		{"send_expect \"a ;\" \"b\"", "write ';' after a space as \\x3b"},
		{"send_expect \"a\" \"b\" c", "only two quoted texts"},
		{"send_expect \"a\" \"b\" \"c\"", "only two quoted texts"},
		{"send_expect \"a\" \"\"", "EXPECT is empty"},
		{"send_expect \"\\q\" \"b\"", "unknown escape"},
		{"send_expect \"\\x\" \"b\"", "unknown escape"},
		{"send_expect \"\\x0\" \"b\"", "unknown escape"},
		{"send_expect \"\\0\" \"b\"", "unknown escape"},
		{"send_expect \"\\\" \"b\"", "in quotes"},
		{"send_expect \"a\tb\" \"b\"", "write a tab as \\t"},
		{"send_expect \"caf\xc3\xa9\" \"b\"", "not ASCII as \\xNN"},
		{"Send_expect \"a\" \"b\"", "is not one of"},
	};
	char text[256], filler[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		snprintf(text, sizeof(text), "check = %s", bad[i].text);
		refuses_key(CONF_BACKEND, text, bad[i].words);
	}
	memset(filler, 'x', sizeof(filler));
	snprintf(text, sizeof(text), "check=send_expect \"\" \"%.*s\"", 172, filler);
	survives_its_dump(accept_key(CONF_BACKEND, text));
	snprintf(text, sizeof(text), "check=send_expect \"\" \"%.*s\"", 173, filler);
	refuses_key(CONF_BACKEND, text, "at most 189 characters");
}

static void server_names_are_unique_in_their_backend(void **state)
{
	(void)state;
	refuses_key(CONF_BACKEND, "server = 127.0.0.1:81", "'127.0.0.1:81': another server");
	refuses_key(CONF_BACKEND, "server = 10.0.0.1:80 name=127.0.0.1:81", "another server");
	accepts_key(CONF_BACKEND, "server = 127.0.0.1:81 name=again");
	accepts(MINIMAL "[backend b]\nserver = 127.0.0.1:81\n");
}

static void same_bind_twice_is_refused(void **state)
{
	(void)state;
	refuses_key(CONF_LISTENER, "bind = 127.0.0.1:80", "'127.0.0.1:80' is taken");
	refuses_key(CONF_LISTENER, "bind = 127.0.0.1:80", "(line 2)");
	refuses_key(CONF_LISTENER, "bind = [::ffff:127.0.0.1]:80", "is taken");
	refuses(MINIMAL "[listener b]\nbind = *:1\nbind = 127.0.0.1:80\nbackend = app\n", 8,
		"key 'bind' in [listener b]: '127.0.0.1:80' is taken: bind = 127.0.0.1:80 in "
		"[listener web]");
	refuses("[global]\nstats = 127.0.0.1:80\n" MINIMAL, 4,
		"stats = 127.0.0.1:80 in [global] (line 2)");
	refuses("[global]\nstats = unix:/s\nstats = unix:/s\n" MINIMAL, 3,
		"key 'stats' in [global]");
	refuses("[global]\ncontrol = unix:/s\nstats = unix:/s\n" MINIMAL, 3, "is taken");
	refuses(MINIMAL "[global]\nstats = 127.0.0.1:80\n", 7,
		"(line 2)"); /* the later one is wrong */
	accepts_key(CONF_LISTENER, "bind = 127.0.0.2:80");
	accepts_key(CONF_LISTENER, "bind = *:80"); /* the kernel prefers the narrower one */
}

static void any_addresses_overlap_and_free_ports_do_not(void **state)
{
	(void)state;
	refuses(LISTENER "bind = *:90\nbind = *:90\n" BACKEND, 5, "is taken");
	refuses(LISTENER "bind = *:90\nbind = 0.0.0.0:90\n" BACKEND, 5, "is taken: bind = *:90");
	refuses(LISTENER "bind = [::]:90\nbind = *:90\n" BACKEND, 5, "is taken");
	accepts(LISTENER "bind = [::]:90\nbind = 0.0.0.0:90\n" BACKEND);
	accepts(LISTENER
		"bind = *:90\nbind = 0.0.0.0:91\nbind = 127.0.0.1:90\nbind = [::1]:90\n" BACKEND);
	accepts(LISTENER
		"bind = *:0\nbind = *:0\nbind = 127.0.0.1:0\nbind = 127.0.0.1:0\n" BACKEND);
}

static void v6only_and_interfaces_part_equal_binds(void **state)
{
	(void)state;
#define OTHER(bind, options) \
	"[listener b]\nbind = " bind "\nbackend = app\nbind_options = " options "\n"
#define ANY(options) "[listener web]\nbind = *:80\nbackend = app\nbind_options = " options "\n"
	accepts(ANY("v6only") OTHER("0.0.0.0:80", "") BACKEND);
	refuses(ANY("") OTHER("0.0.0.0:80", "") BACKEND, 6, "is taken");
	refuses(ANY("v6only") OTHER("[::]:80", "") BACKEND, 6, "'[::]:80' is taken: bind = *:80");
	refuses(ANY("v6only") OTHER("*:80", "v6only") BACKEND, 6, "'*:80' is taken");
	refuses(ANY("v6only") OTHER("*:80", "") BACKEND, 6, "'*:80' is taken");
	accepts(ANY("interface=eth0") OTHER("*:80", "interface=eth1") BACKEND);
	accepts(ANY("interface=eth0") OTHER("*:80", "") BACKEND);
	refuses(ANY("interface=eth0") OTHER("*:80", "interface=eth0") BACKEND, 6, "is taken");
	refuses("[listener web]\nbind = unix:/a\nbind = *:1\nbackend = app\n"
		"bind_options = interface=eth0\n" OTHER("unix:/a", "") BACKEND,
		7, "'unix:/a' is taken");
}

static void file_less_form_refuses_bad_ends(void **state)
{
	static const struct {
		const char *listen, *to, *words;
	} cases[] = {
		{"1.2.3.4", "1.2.3.4:5", "--listen '1.2.3.4': the port is missing"},
		{"*:1", "host:5", "--to 'host:5': names are not supported yet"},
		{"*:1", "*:5", "--to '*:5'"},
		{"*:1", "1.2.3.4:0", "--to '1.2.3.4:0'"},
		{"*:1", "1.2.3.4:5 weight=2", "no spaces"},
		{"*:1", "", "--to ''"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct conf *conf = conf_new();
		struct conf_error error = {""};

		assert_true(conf_add_pair(conf, cases[i].listen, cases[i].to, &error) < 0);
		if (!strstr(error.text, cases[i].words))
			fail_msg("'%s' does not say '%s'", error.text, cases[i].words);
		conf_free(conf);
	}
	conf_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unknown_key_names_key_section_and_value),
		cmocka_unit_test(duplicate_key_names_the_first_line),
		cmocka_unit_test(required_keys_are_missed_at_their_section),
		cmocka_unit_test(unknown_backend_is_refused_at_its_key),
		cmocka_unit_test(every_range_takes_its_edges_and_nothing_beyond),
		cmocka_unit_test(range_errors_show_value_and_range),
		cmocka_unit_test(numbers_are_strict),
		cmocka_unit_test(sizes_take_k_m_g),
		cmocka_unit_test(times_need_a_unit_but_for_zero),
		cmocka_unit_test(words_are_matched_whole),
		cmocka_unit_test(account_names_are_checked),
		cmocka_unit_test(keys_not_supported_yet_take_their_default_only),
		cmocka_unit_test(words_not_supported_yet_are_told_from_wrong_ones),
		cmocka_unit_test(server_lines_are_strict),
		cmocka_unit_test(max_sessions_of_a_server_overrides_the_backend_even_with_off),
		cmocka_unit_test(networks_are_kept_in_one_form),
		cmocka_unit_test(networks_are_strict),
		cmocka_unit_test(same_network_may_be_allowed_and_denied),
		cmocka_unit_test(networks_of_proxies_are_any_or_a_list),
		cmocka_unit_test(routes_are_strict),
		cmocka_unit_test(routes_take_each_pattern_once),
		cmocka_unit_test(rates_are_a_number_per_time),
		cmocka_unit_test(bind_options_are_strict),
		cmocka_unit_test(bind_options_that_nothing_can_have_are_refused),
		cmocka_unit_test(check_texts_take_the_escapes_of_c),
		cmocka_unit_test(check_texts_are_strict),
		cmocka_unit_test(server_names_are_unique_in_their_backend),
		cmocka_unit_test(same_bind_twice_is_refused),
		cmocka_unit_test(any_addresses_overlap_and_free_ports_do_not),
		cmocka_unit_test(v6only_and_interfaces_part_equal_binds),
		cmocka_unit_test(file_less_form_refuses_bad_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
