/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads configurations as text. SHUNT_SAMPLE is the path of the sample configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf_check.h"

#ifndef SHUNT_SAMPLE
#define SHUNT_SAMPLE "conf/shunt.conf"
#endif

static void minimal_file_has_every_default(void **state)
{
	struct conf *conf = accept_text(MINIMAL);
	char text[ADDR_TEXT_MAX];

	(void)state;
	assert_int_equal(conf->threads, 0);
	assert_null(conf->user);
	assert_int_equal(conf->stats.n, 1);
	addr_format(&conf->stats.v[0], text, sizeof(text));
	assert_string_equal(text, "unix:/run/shunt/stats.sock");
	addr_format(&conf->control, text, sizeof(text));
	assert_string_equal(text, "unix:/run/shunt/control.sock");
	assert_int_equal(conf->path, PATH_MODE_AUTO);
	assert_int_equal(conf->parser, PARSER_AUTO);
	assert_int_equal(conf->overflow_limit, 524288);
	assert_int_equal(conf->max_sessions, 0);
	assert_int_equal(conf->drain_timeout_ms, 30000);
	assert_int_equal(conf->log_level, LOG_LEVEL_INFO);
	assert_int_equal(conf->listeners[0].max_sessions, 0);
	assert_int_equal(conf->listeners[0].idle_timeout_ms, 3600000);
	assert_int_equal(conf->listeners[0].half_close_timeout_ms, 300000);
	assert_int_equal(conf->listeners[0].access.n, 0);
	assert_int_equal(conf->listeners[0].max_sessions_per_ip, 0);
	assert_int_equal(conf->listeners[0].max_rate_per_ip.count, 0);
	assert_int_equal(conf->listeners[0].handshake_timeout_ms, 5000);
	assert_int_equal(conf->listeners[0].max_lifetime_ms, 0);
	assert_int_equal(conf->listeners[0].keepalive_ms, 60000);
	assert_int_equal(conf->listeners[0].user_timeout_ms, 0);
	assert_int_equal(conf->listeners[0].bind_options.backlog, 0);
	assert_false(conf->listeners[0].accept_proxy);
	assert_int_equal(conf->listeners[0].accept_proxy_from.n, 0);
	assert_int_equal(conf->listeners[0].nroutes, 0);
	assert_int_equal(conf->backends[0].balance, BALANCE_ROUND_ROBIN);
	assert_int_equal(conf->backends[0].send_proxy, SEND_PROXY_OFF);
	assert_int_equal(conf->backends[0].check, CHECK_TCP);
	assert_null(conf->backends[0].check_send);
	assert_int_equal(conf->backends[0].check_interval_ms, 2000);
	assert_int_equal(conf->backends[0].check_rise, 2);
	assert_int_equal(conf->backends[0].check_fall, 3);
	assert_int_equal(conf->backends[0].retries, 2);
	assert_int_equal(conf->backends[0].queue_timeout_ms, 5000);
	assert_int_equal(conf->backends[0].on_server_down, SERVER_DOWN_KEEP);
	assert_int_equal(conf->backends[0].slow_start_ms, 0);
	assert_int_equal(conf->backends[0].server_max_sessions, 0);
	assert_int_equal(conf->backends[0].ejection_ms, 10000);
	assert_int_equal(conf->backends[0].connect_timeout_ms, 5000);
	assert_int_equal(conf->backends[0].keepalive_ms, 60000);
	assert_int_equal(conf->backends[0].user_timeout_ms, 30000);
	assert_int_equal(conf->backends[0].servers[0].weight, 1);
	assert_string_equal(conf->backends[0].servers[0].name, "127.0.0.1:81");
	assert_ptr_equal(conf->listeners[0].backend, &conf->backends[0]);
	conf_free(conf);
}

static void every_served_key_reaches_its_field(void **state)
{
	struct conf *conf = accept_text(
		"[global]\nthreads = 7\nuser = www-data\nstats = 127.0.0.1:1\n"
		"stats = unix:/s\ncontrol = unix:/c\npath = relay\nparser = none\noverflow_limit = "
		"3M\n"
		"max_sessions = 9\ndrain_timeout = 2m\nlog_level = debug\n"
		"[listener l]\nbind = *:1\nbind = [::1]:1\nbackend = b\npath = sockmap\n"
		"max_sessions = 8\nidle_timeout = 4s\nhalf_close_timeout = 6ms\n"
		"[backend b]\nbalance = round_robin\nserver = 1.2.3.4:5\tname=x weight=0\n"
		"server = unix:/u weight=256 max_sessions=off\ncheck = off\nconnect_timeout = 1ms\n"
		"keepalive = 1s\nuser_timeout = 24h\n");

	(void)state;
	assert_int_equal(conf->threads, 7);
	assert_string_equal(conf->user, "www-data");
	assert_int_equal(conf->stats.n, 2);
	assert_true(addr_is_unix(&conf->stats.v[1]));
	assert_int_equal(conf->stats.lines[1], 5);
	assert_string_equal(conf->control.un.sun_path, "/c");
	assert_int_equal(conf->path, PATH_MODE_RELAY);
	assert_int_equal(conf->parser, PARSER_NONE);
	assert_int_equal(conf->overflow_limit, 3 << 20);
	assert_int_equal(conf->max_sessions, 9);
	assert_int_equal(conf->drain_timeout_ms, 120000);
	assert_int_equal(conf->log_level, LOG_LEVEL_DEBUG);
	assert_string_equal(conf->listeners[0].name, "l");
	assert_int_equal(conf->listeners[0].line, 13);
	assert_int_equal(conf->listeners[0].binds.n, 2);
	assert_int_equal(conf->listeners[0].path, PATH_MODE_SOCKMAP);
	assert_int_equal(conf->listeners[0].max_sessions, 8);
	assert_int_equal(conf->listeners[0].idle_timeout_ms, 4000);
	assert_int_equal(conf->listeners[0].half_close_timeout_ms, 6);
	assert_int_equal(conf->backends[0].nservers, 2);
	assert_string_equal(conf->backends[0].servers[0].name, "x");
	assert_int_equal(conf->backends[0].servers[0].weight, 0);
	assert_int_equal(conf->backends[0].servers[0].line, 23);
	assert_string_equal(conf->backends[0].servers[1].name, "unix:/u");
	assert_int_equal(conf->backends[0].servers[1].weight, 256);
	assert_int_equal(conf->backends[0].check, CHECK_OFF);
	assert_int_equal(conf->backends[0].connect_timeout_ms, 1);
	assert_int_equal(conf->backends[0].keepalive_ms, 1000);
	assert_int_equal(conf->backends[0].user_timeout_ms, 86400000);
	survives_its_dump(conf);
}

static void every_served_key_of_balance_and_limits_reaches_its_field(void **state)
{
	struct conf *conf = accept_text(
		"[listener l]\nbind = *:1\nbackend = b\nmax_sessions_per_ip = 3\n"
		"max_rate_per_ip = 10/5s\nhandshake_timeout = 7s\nmax_lifetime = 2h\n"
		"keepalive = 5s\nuser_timeout = 9s\nallow = 10.0.0.0/8\ndeny = 10.1.0.0/16\n"
		"bind_options = v6only freebind interface=lo backlog=77\n"
		"[backend b]\nserver = 1.2.3.4:5 backup max_sessions=4\nbalance = source_hash\n"
		"check = send_expect \"a\" \"bc\"\ncheck_interval = 100ms\ncheck_rise = 4\n"
		"check_fall = 5\nretries = 0\nqueue_timeout = 6s\non_server_down = reset\n"
		"slow_start = 1m\nserver_max_sessions = 8\nejection = off\n");
	const struct conf_listener *listener = &conf->listeners[0];
	const struct conf_backend *backend = &conf->backends[0];

	(void)state;
	assert_int_equal(listener->max_sessions_per_ip, 3);
	assert_int_equal(listener->max_rate_per_ip.count, 10);
	assert_int_equal(listener->max_rate_per_ip.period_ms, 5000);
	assert_int_equal(listener->handshake_timeout_ms, 7000);
	assert_int_equal(listener->max_lifetime_ms, 7200000);
	assert_int_equal(listener->keepalive_ms, 5000);
	assert_int_equal(listener->user_timeout_ms, 9000);
	assert_int_equal(listener->access.n, 2);
	assert_int_equal(listener->bind_options.backlog, 77);
	assert_true(backend->servers[0].backup);
	assert_int_equal(backend->servers[0].max_sessions, 4);
	assert_int_equal(backend->balance, BALANCE_SOURCE_HASH);
	assert_int_equal(backend->check, CHECK_SEND_EXPECT);
	assert_int_equal(backend->check_send_len, 1);
	assert_int_equal(backend->check_expect_len, 2);
	assert_int_equal(backend->check_interval_ms, 100);
	assert_int_equal(backend->check_rise, 4);
	assert_int_equal(backend->check_fall, 5);
	assert_int_equal(backend->retries, 0);
	assert_int_equal(backend->queue_timeout_ms, 6000);
	assert_int_equal(backend->on_server_down, SERVER_DOWN_RESET);
	assert_int_equal(backend->slow_start_ms, 60000);
	assert_int_equal(backend->server_max_sessions, 8);
	assert_int_equal(backend->ejection_ms, 0);
	survives_its_dump(conf);
}

static void every_served_key_of_proxies_and_routes_reaches_its_field(void **state)
{
	struct conf *conf = accept_text(
		"[listener l]\nbind = *:1\nbackend = b\naccept_proxy = on\n"
		"accept_proxy_from = 10.0.0.0/8\naccept_proxy_from = 2001:db8::/32\n"
		"route = *.example.org c\nroute=Example.ORG.\tb\nroute = * c\n"
		"[listener m]\nbind = *:2\nbackend = c\naccept_proxy = off\nroute = * b\n"
		"[backend b]\nserver = 1.2.3.4:5\nsend_proxy = v1\n"
		"[backend c]\nserver = 1.2.3.4:5\nsend_proxy = v2\n"
		"[backend d]\nserver = 1.2.3.4:5\nsend_proxy = off\n");
	const struct conf_listener *listener = &conf->listeners[0];

	(void)state;
	assert_true(listener->accept_proxy);
	assert_false(conf->listeners[1].accept_proxy);
	assert_int_equal(listener->accept_proxy_from.n, 2);
	assert_int_equal(listener->accept_proxy_from.v[0].family, AF_INET);
	assert_int_equal(listener->accept_proxy_from.v[1].prefix, 32);
	assert_int_equal(listener->access.n, 0);
	assert_int_equal(listener->nroutes, 3);
	assert_string_equal(listener->routes[0].pattern, "*.example.org");
	assert_string_equal(listener->routes[0].backend_name, "c");
	assert_ptr_equal(listener->routes[0].backend, &conf->backends[1]);
	assert_int_equal(listener->routes[0].line, 7);
	assert_string_equal(listener->routes[1].pattern, "Example.ORG.");
	assert_ptr_equal(listener->routes[1].backend, &conf->backends[0]);
	assert_int_equal(listener->routes[2].line, 9);
	assert_ptr_equal(listener->backend, &conf->backends[0]);
	assert_ptr_equal(conf->listeners[1].routes[0].backend, &conf->backends[0]);
	assert_int_equal(conf->backends[0].send_proxy, SEND_PROXY_V1);
	assert_int_equal(conf->backends[1].send_proxy, SEND_PROXY_V2);
	assert_int_equal(conf->backends[2].send_proxy, SEND_PROXY_OFF);
	survives_its_dump(conf);
}

static void every_balance_word_has_its_value(void **state)
{
	static const char *const words[] = {
		[BALANCE_ROUND_ROBIN] = "balance = round_robin",
		[BALANCE_LEAST_SESSIONS] = "balance = least_sessions",
		[BALANCE_RANDOM_TWO] = "balance = random_two",
		[BALANCE_SOURCE_HASH] = "balance = source_hash",
	};

	(void)state;
	for (enum balance_mode i = 0; i < ARRAY_LEN(words); i++) {
		struct conf *conf = accept_key(CONF_BACKEND, words[i]);

		assert_int_equal(conf->backends[0].balance, i);
		survives_its_dump(conf);
	}
}

static void parts_are_found_by_name(void **state)
{
	struct conf *conf = accept_text(MINIMAL "server = 1.2.3.4:5 name=x\n[backend b]\n"
						"server = 1.2.3.4:5\n");

	(void)state;
	assert_ptr_equal(conf_find_listener(conf, "web"), &conf->listeners[0]);
	assert_null(conf_find_listener(conf, "app"));
	assert_ptr_equal(conf_find_backend(conf, "b"), &conf->backends[1]);
	assert_null(conf_find_backend(conf, "web"));
	assert_ptr_equal(conf_find_server(&conf->backends[0], "x"), &conf->backends[0].servers[1]);
	assert_null(conf_find_server(&conf->backends[1], "x"));
	conf_free(conf);
}

static bool same_binds(const char *a, const char *b)
{
	struct conf *x = accept_key(CONF_LISTENER, a), *y = accept_key(CONF_LISTENER, b);
	bool same = conf_listener_same_binds(&x->listeners[0], &y->listeners[0]);

	assert_int_equal(same, conf_listener_same_binds(&y->listeners[0], &x->listeners[0]));
	conf_free(x);
	conf_free(y);
	return same;
}

static void binds_are_compared_as_sets_with_their_options(void **state)
{
	(void)state;
	assert_true(same_binds("", "max_sessions = 7"));
	assert_true(same_binds("bind = *:1\nbind = *:2", "bind = *:2\nbind = *:1"));
	assert_true(same_binds("bind = *:0\nbind = *:0", "bind = *:0\nbind = *:0"));
	assert_false(same_binds("bind = *:0\nbind = *:0", "bind = *:0\nbind = *:1"));
	assert_false(same_binds("bind = *:1", "bind = *:2"));
	assert_false(same_binds("bind = *:1", "bind = [::]:1"));
	assert_false(same_binds("bind = *:1", ""));
	assert_true(same_binds(
		"bind_options = backlog=5 freebind", "bind_options = freebind  backlog=5"));
	assert_false(same_binds("bind_options = backlog=5", "bind_options = backlog=6"));
	assert_false(same_binds("bind_options = freebind", ""));
	assert_false(same_binds("bind_options = interface=a", "bind_options = interface=b"));
	assert_false(same_binds("bind = *:1\nbind_options = v6only", "bind = *:1"));
}

static void listener_path_overrides_the_global_one_wherever_it_stands(void **state)
{
	static const char *const order[] = {
		"[global]\npath = relay\n" MINIMAL, MINIMAL "[global]\npath = relay\n"};
	struct conf *conf;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(order); i++) {
		conf = accept_text(order[i]);
		assert_int_equal(conf->listeners[0].path, PATH_MODE_RELAY);
		conf_free(conf);
	}
	conf = accept_text("[global]\npath = relay\n" LISTENER "path = auto\n" BACKEND);
	assert_int_equal(conf->listeners[0].path, PATH_MODE_AUTO);
	survives_its_dump(conf);
}

static void stats_and_control_can_be_off(void **state)
{
	struct conf *conf = accept_text("[global]\nstats = off\ncontrol = off\n" MINIMAL);

	(void)state;
	assert_int_equal(conf->stats.n, 0);
	assert_int_equal(conf->control.len, 0);
	survives_its_dump(conf);
	refuses("[global]\nstats = off\nstats = unix:/s\n" MINIMAL, 3, "key 'stats' in [global]");
	refuses("[global]\nstats = unix:/s\nstats = off\n" MINIMAL, 3, "key 'stats' in [global]");
	refuses_key(CONF_GLOBAL, "control = 127.0.0.1:1", "UNIX socket");
	refuses_key(CONF_LISTENER, "bind = off", "'off'");
}

static void comments_colons_and_line_ends_are_as_the_manual_says(void **state)
{
	struct conf *conf =
		accept_text("\xef\xbb\xbf; comment\r\n# comment\r\n   ; indented\r\n  # too\n"
			    " \t \n[global] ; note\nthreads: 3 ; note\n[listener "
			    "a;b]\r\nbind:*:80\r\nbackend=b#c\r\n"
			    "[backend b#c]\nserver=1.2.3.4:5 name=x;y ; note\n   ");

	(void)state;
	assert_int_equal(conf->threads, 3);
	assert_string_equal(conf->listeners[0].name, "a;b");
	assert_true(conf->listeners[0].binds.v[0].dual_stack);
	assert_string_equal(conf->backends[0].name, "b#c");
	assert_string_equal(conf->backends[0].servers[0].name, "x;y");
	survives_its_dump(conf);
	refuses_key(CONF_GLOBAL, "threads = 4 # four", "'4 # four'");
	refuses_key(CONF_GLOBAL, "threads = 4;four", "'4;four'");
	refuses_key(CONF_GLOBAL, "threads = ; four", "''");
}

/* The traps of libinih */

static void indented_line_is_refused_not_continued(void **state)
{
	(void)state;
	refuses(LISTENER "  idle_timeout = 5s\n" BACKEND, 4, "indented");
	refuses(LISTENER "\tidle_timeout = 5s\n" BACKEND, 4, "indented");
	refuses(" [global]\n" MINIMAL, 1, "indented");
	refuses("[global]\nstats = unix:/a\n unix:/b\n" MINIMAL, 3, "indented");
}

static void over_long_line_is_refused_at_its_own_line(void **state)
{
	char text[1024], filler[400];

	(void)state;
	memset(filler, 'x', sizeof(filler));
	snprintf(text, sizeof(text), "[global]\n; %.*s\nthreads = 3\n" MINIMAL, 195, filler);
	accepts(text); /* 197 characters */
	snprintf(text, sizeof(text), "[global]\n; %.*s\r\nthreads = 3\n" MINIMAL, 195, filler);
	accepts(text);
	snprintf(text, sizeof(text), "[global]\n; %.*s\nthreads = 3\n" MINIMAL, 196, filler);
	refuses(text, 2, "too long");
	snprintf(text, sizeof(text), "[global]\nuser = %.*s\n" MINIMAL, 400, filler);
	refuses(text, 2, "too long");
	/* The tail alone would be a good line. */
	snprintf(text, sizeof(text), "[global]\n;%.*sthreads = 3\n" MINIMAL, 198, filler);
	refuses(text, 2, "too long");
	snprintf(text, sizeof(text), MINIMAL "; %.*s", 196, filler); /* without a newline */
	refuses(text, 6, "too long");
}

static void longest_section_name_is_kept_whole_and_a_longer_one_refused(void **state)
{
	struct conf *conf =
		accept_text("[listener 1234567890123456789012345678901234567890]\nbind = *:1\n"
			    "backend = app\n" BACKEND);

	(void)state;
	assert_int_equal(strlen(conf->listeners[0].name), 40);
	survives_its_dump(conf);
	refuses("[listener 12345678901234567890123456789012345678901]\nbind = *:1\nbackend = "
		"app\n" BACKEND,
		1, "too long");
	refuses("[backend 123456789012345678901234567890123456789012]\n", 1, "too long");
}

static void longest_backend_name_survives_its_dump(void **state)
{
	(void)state;
	survives_its_dump(accept_text(
		"[listener l]\nbind = *:1\n"
		"backend = 12345678901234567890123456789012345678901\n"
		"[backend 12345678901234567890123456789012345678901]\nserver = 1.2.3.4:5\n"));
}

/* A line that could be read, but not as it is dumped ("server = "), is refused. */
static void longest_server_line_survives_its_dump(void **state)
{
	static const char *const options[] = {
		"backup weight=200", "max_sessions=1234567", "max_sessions=12345678"};
	char text[1024], path[107];

	(void)state;
	memset(path, 'p', sizeof(path));
#define LONG_SERVER LISTENER "[backend app]\nserver=unix:/%.*s name=%.*s %s\n"
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		snprintf(text, sizeof(text), LONG_SERVER, 106, path, 48, path, options[i]);
		survives_its_dump(accept_text(text));
	}
	snprintf(text, sizeof(text), LONG_SERVER, 106, path, 48, path, "max_sessions=100000000");
	refuses(text, 5, "at most 188 characters");
	snprintf(text, sizeof(text), LONG_SERVER, 1, path, 49, path, "");
	refuses(text, 5, "48 bytes");
}

/* "route=" is shorter than how it is dumped. */
static void longest_route_survives_its_dump(void **state)
{
	char text[1024], label[64];

	(void)state;
	memset(label, 'p', sizeof(label));
#define LONG_ROUTE LISTENER "route=%.*s.%.*s.%.*s app\n" BACKEND
	snprintf(text, sizeof(text), LONG_ROUTE, 63, label, 63, label, 57, label); /* 189 */
	survives_its_dump(accept_text(text));
	snprintf(text, sizeof(text), LONG_ROUTE, 63, label, 63, label, 58, label);
	refuses(text, 4, "at most 189 characters");
}

static void section_headers_are_strict(void **state)
{
	(void)state;
	refuses(MINIMAL "[global\n", 6, "']'");
	refuses(MINIMAL "[global ; x]\n", 6, "unknown section");
	refuses(MINIMAL "[global] x\n", 6, "only a comment");
	refuses(MINIMAL "[global]# x\n", 6, "only a comment");
	refuses(MINIMAL "[backend a]b]\n", 6, "only a comment");
	refuses(MINIMAL "[]\n", 6, "unknown section []");
	refuses(MINIMAL "[ global ]\n", 6, "unknown section");
	refuses(MINIMAL "[Global]\n", 6, "unknown section");
	refuses(MINIMAL "[globals]\n", 6, "unknown section");
	refuses(MINIMAL "[listeners x]\n", 6, "unknown section");
	refuses(MINIMAL "[listener]\n", 6, "needs a name");
	refuses(MINIMAL "[listener ]\n", 6, "needs a name");
	refuses(MINIMAL "[backend a b]\n", 6, "needs a name");
	refuses(MINIMAL "[backend a ]\n", 6, "needs a name");
	refuses(MINIMAL "[backend ;a]\n", 6, "needs a name");
	refuses(MINIMAL "[backend \xff]\n", 6, "needs a name");
	refuses(MINIMAL "[backend \xc0\xaf]\n", 6, "needs a name"); /* '/' in an over-long form */
	accepts(MINIMAL "[backend caf\xc3\xa9]\nserver = 1.2.3.4:5\n");
	accepts("[global];x\n" MINIMAL);
}

static void duplicate_sections_are_refused_not_merged(void **state)
{
	(void)state;
	refuses("[global]\n" MINIMAL "[global]\n", 7, "given twice");
	refuses(MINIMAL "[listener web]\nmax_sessions = 5\n", 6, "[listener web] is given twice");
	refuses(MINIMAL "[backend app]\n", 6, "[backend app] is given twice");
	refuses(MINIMAL "[backend  app]\n", 6, "given twice");
	accepts(LISTENER BACKEND
		"[backend web]\nserver = 1.2.3.4:5\n"); /* the kinds do not share names */
}

static void nul_and_control_bytes_are_refused(void **state)
{
	static const char nul[] = "[global]\nthreads = 3\0 junk\n" MINIMAL;

	(void)state;
	refuses_bytes(nul, sizeof(nul) - 1, 2, "control character (byte 0x00)");
	refuses_bytes(
		"[global]\n; \0\n" MINIMAL, sizeof("[global]\n; \0\n" MINIMAL) - 1, 2, "0x00");
	refuses("[global]\nuser = a\x1b[31m\n" MINIMAL, 2, "0x1b");
	refuses("[global]\nuser = a\x7f\n" MINIMAL, 2, "0x7f");
	refuses("[global]\rthreads = 3\n" MINIMAL, 1, "0x0d");
	refuses("[global]\n\fthreads = 3\n" MINIMAL, 2, "0x0c");
}

static void lines_that_are_no_pair_are_refused_at_their_line(void **state)
{
	(void)state;
	refuses("[global]\nthreads\n\n\n" MINIMAL, 2, "key = value");
	refuses("[global]\nthreads ; = 3\n" MINIMAL, 2, "key = value");
	refuses(MINIMAL "threads", 6, "key = value"); /* the last line, without a newline */
	refuses("[global]\n= 3\n" MINIMAL, 2, "unknown key ''");
	refuses("threads = 3\n" MINIMAL, 1, "before the first section");
}

static void first_error_is_the_one_reported(void **state)
{
	(void)state;
	refuses("[global]\nnonsense = 1\nthreads = 0\n[nonsense\n", 2, "nonsense");
	refuses("[global]\nthreads = 0\nnonsense\n", 2, "threads");
	refuses("[global]\nnonsense\nthreads = 0\n", 2, "key = value");
}

static void file_without_a_listener_is_refused(void **state)
{
	(void)state;
	refuses("", 1, "no listener");
	refuses("\n\n", 1, "no listener");
	refuses(BACKEND, 1, "no listener");
}

static void unreadable_files_are_refused_by_name(void **state)
{
	struct conf_error error;

	(void)state;
	assert_null(conf_read_file("no/such/file.conf", &error));
	assert_string_equal(error.text, "no/such/file.conf: No such file or directory");
	assert_null(conf_read_file(".", &error));
	assert_non_null(strstr(error.text, "directory"));
}

/* Round trips */

static void sample_equals_the_defaults(void **state)
{
	struct conf_error error = {""};
	struct conf *sample = conf_read_file(SHUNT_SAMPLE, &error), *bare;

	(void)state;
	if (!sample)
		fail_msg("%s", error.text);
	bare = accept_text("[listener web]\nbind = *:8080\nbackend = app\n[backend app]\n"
			   "server = 10.0.0.1:80 name=a weight=2\nserver = 10.0.0.2:80 name=b\n");
	assert_same_dump(sample, bare);
	conf_free(bare);
	survives_its_dump(sample);
}

static void dump_speaks_the_words_of_the_contract(void **state)
{
	struct conf *conf =
		accept_text("[global]\noverflow_limit = 1536K\ndrain_timeout = 0\n" LISTENER
			    "accept_proxy=on\naccept_proxy_from=::ffff:10.0.0.0/104\n"
			    "route=*.A.org.  app\n" BACKEND
			    "keepalive = 0\nconnect_timeout = 90s\nsend_proxy=v2\n");
	char *text = dump(conf);

	(void)state;
	assert_non_null(strstr(text, "\noverflow_limit = 1536K\n"));
	assert_non_null(strstr(text, "\ndrain_timeout = 0\n"));
	assert_non_null(strstr(text, "\nkeepalive = off\n"));
	assert_non_null(strstr(text, "\nconnect_timeout = 90s\n"));
	assert_non_null(strstr(text, "\nuser_timeout = 30s\n"));
	assert_non_null(strstr(text, "\nthreads = auto\n"));
	assert_non_null(strstr(text, "\nuser = shunt\n"));
	assert_non_null(strstr(text, "\naccept_proxy = on\n"));
	assert_non_null(strstr(text, "\naccept_proxy_from = 10.0.0.0/8\n"));
	assert_null(strstr(text, "\naccept_proxy_from = any\n"));
	assert_non_null(strstr(text, "\nroute = *.A.org. app\n"));
	assert_non_null(strstr(text, "\nsend_proxy = v2\n"));
	assert_null(strstr(text, "shortcut"));
	free(text);
	survives_its_dump(conf);
}

static void dump_of_the_defaults_names_any_proxy(void **state)
{
	struct conf *conf = accept_text(MINIMAL);
	char *text = dump(conf);

	(void)state;
	assert_non_null(strstr(text, "\naccept_proxy = off\naccept_proxy_from = any\n"));
	assert_non_null(strstr(text, "\nsend_proxy = off\n"));
	assert_null(strstr(text, "\nroute"));
	free(text);
	conf_free(conf);
}

static void file_less_form_has_neither_stats_nor_control_nor_checks(void **state)
{
	struct conf *conf = conf_new();
	struct conf_error error;

	(void)state;
	assert_int_equal(conf_add_pair(conf, "*:1", "1.2.3.4:5", &error), 0);
	assert_int_equal(conf_add_pair(conf, "unix:/a", "unix:@b", &error), 0);
	conf->path = PATH_MODE_RELAY;
	assert_int_equal(conf_finish(conf, &error), 0);
	assert_int_equal(conf->stats.n, 0);
	assert_int_equal(conf->control.len, 0);
	assert_string_equal(conf->listeners[1].name, "listener2");
	assert_string_equal(conf->backends[1].name, "backend2");
	assert_string_equal(conf->backends[1].servers[0].name, "unix:@b");
	assert_ptr_equal(conf->listeners[1].backend, &conf->backends[1]);
	assert_int_equal(conf->listeners[1].path, PATH_MODE_RELAY);
	assert_int_equal(conf->backends[1].check, CHECK_OFF);
	assert_int_equal(conf->backends[1].keepalive_ms, 60000);
	survives_its_dump(conf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(minimal_file_has_every_default),
		cmocka_unit_test(every_served_key_reaches_its_field),
		cmocka_unit_test(every_served_key_of_balance_and_limits_reaches_its_field),
		cmocka_unit_test(every_served_key_of_proxies_and_routes_reaches_its_field),
		cmocka_unit_test(every_balance_word_has_its_value),
		cmocka_unit_test(parts_are_found_by_name),
		cmocka_unit_test(binds_are_compared_as_sets_with_their_options),
		cmocka_unit_test(listener_path_overrides_the_global_one_wherever_it_stands),
		cmocka_unit_test(stats_and_control_can_be_off),
		cmocka_unit_test(comments_colons_and_line_ends_are_as_the_manual_says),
		cmocka_unit_test(indented_line_is_refused_not_continued),
		cmocka_unit_test(over_long_line_is_refused_at_its_own_line),
		cmocka_unit_test(longest_section_name_is_kept_whole_and_a_longer_one_refused),
		cmocka_unit_test(longest_backend_name_survives_its_dump),
		cmocka_unit_test(longest_server_line_survives_its_dump),
		cmocka_unit_test(longest_route_survives_its_dump),
		cmocka_unit_test(section_headers_are_strict),
		cmocka_unit_test(duplicate_sections_are_refused_not_merged),
		cmocka_unit_test(nul_and_control_bytes_are_refused),
		cmocka_unit_test(lines_that_are_no_pair_are_refused_at_their_line),
		cmocka_unit_test(first_error_is_the_one_reported),
		cmocka_unit_test(file_without_a_listener_is_refused),
		cmocka_unit_test(unreadable_files_are_refused_by_name),
		cmocka_unit_test(sample_equals_the_defaults),
		cmocka_unit_test(dump_speaks_the_words_of_the_contract),
		cmocka_unit_test(dump_of_the_defaults_names_any_proxy),
		cmocka_unit_test(file_less_form_has_neither_stats_nor_control_nor_checks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
