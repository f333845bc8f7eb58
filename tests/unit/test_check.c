/* SPDX-License-Identifier: BSD-2-Clause */
/* Checks real sockets on loopback, with short intervals. Servers and checker share one event loop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "check_conn.h"
#include "conf_check.h"
#include "util.h"

#define SLOTS 700
#define LATE 3.0 /* seconds: by then what is waited for has happened, or never will */

/* What the next connections to a fake server get: one letter each, the last one for all further
 * ones. */
enum { CLIENTS_MAX = 64 };
struct client {
	struct server *server;
	int fd;
	char act;
	ev_io io;
	ev_timer timer;
};

struct server {
	struct fixture *fixture;
	int fd;
	struct addr addr;
	char text[ADDR_TEXT_MAX];
	const char *acts;
	unsigned int accepted;
	char got[64];
	size_t got_len;
	ev_io io;
	struct client clients[CLIENTS_MAX];
};

struct fixture {
	struct ev_loop *loop;
	struct checker *checker;
	struct server_state states[SLOTS];
	struct server server;
	struct conf *conf;
	unsigned int changes, slot;
	bool up;
	char why[128];
	uint64_t failures_then, successes_then;
	unsigned int fds; /* that were open before */
};

static unsigned int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static uint64_t failures(struct fixture *f, unsigned int slot)
{
	return f->states[slot].check_failures;
}

static uint64_t successes(struct fixture *f, unsigned int slot)
{
	return f->states[slot].check_successes;
}

static void on_change(void *arg, unsigned int slot, bool up, const char *why)
{
	struct fixture *f = arg;

	f->changes++;
	f->slot = slot;
	f->up = up;
	f->failures_then = failures(f, slot);
	f->successes_then = successes(f, slot);
	assert_int_equal(f->states[slot].down, !up);
	snprintf(f->why, sizeof(f->why), "%s", why);
}

static void tick_cb(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)timer;
	(void)revents;
}

/* Runs the loop until the expression holds. */
#define RUN_UNTIL(f, seconds, expression)                               \
	do {                                                            \
		uint64_t end_ns = now_ns() + (uint64_t)((seconds)*1e9); \
		ev_timer tick;                                          \
                                                                        \
		ev_timer_init(&tick, tick_cb, 0.001, 0.001);            \
		ev_timer_start((f)->loop, &tick);                       \
		while (!(expression) && now_ns() < end_ns)              \
			ev_run((f)->loop, EVRUN_ONCE);                  \
		ev_timer_stop((f)->loop, &tick);                        \
	} while (0)

#define RUN_FOR(f, seconds) RUN_UNTIL(f, seconds, false)

#define EXPECT_SOON(f, expression)              \
	do {                                    \
		RUN_UNTIL(f, LATE, expression); \
		assert_true(expression);        \
	} while (0)

/* --- a server --- */

static void client_close(struct client *client)
{
	struct ev_loop *loop = client->server->fixture->loop;

	if (client->fd < 0)
		return;
	ev_io_stop(loop, &client->io);
	ev_timer_stop(loop, &client->timer);
	close(client->fd);
	client->fd = -1;
}

static void say(struct client *client, const char *text)
{
	assert_int_equal(send(client->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void later_cb(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	say(timer->data, "NG\r\n");
}

/* g: good, s: good in two segments, b: bad and silent, c: bad and closed, e: closed at once, l:
 * long, h: hangs without a word. */
static void act(struct client *client)
{
	static char filler[CHECK_CONN_ANSWER_MAX];

	if (client->act == 'g')
		say(client, "+PONG\r\n");
	if (client->act == 's') {
		say(client, "+++PO");
		ev_timer_set(&client->timer, 0.01, 0.);
		ev_timer_start(client->server->fixture->loop, &client->timer);
	}
	if (client->act == 'b' || client->act == 'c')
		say(client, "-ERR +PON G\r\n");
	if (client->act == 'l') {
		memset(filler, '+', sizeof(filler));
		assert_int_equal(
			send(client->fd, filler, sizeof(filler), MSG_NOSIGNAL), sizeof(filler));
		say(client, "+PONG");
	}
	if (client->act == 'c' || client->act == 'e')
		client_close(client);
}

static void client_cb(struct ev_loop *loop, ev_io *io, int revents)
{
	struct client *client = io->data;
	struct server *server = client->server;
	ssize_t n;

	(void)loop;
	(void)revents;
	n = recv(client->fd, server->got, sizeof(server->got), 0);
	if (n <= 0) {
		client_close(client);
		return;
	}
	server->got_len = (size_t)n;
	act(client);
}

static void accept_cb(struct ev_loop *loop, ev_io *io, int revents)
{
	struct server *server = io->data;
	struct client *client = &server->clients[server->accepted % CLIENTS_MAX];

	(void)revents;
	client_close(client);
	client->fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (client->fd < 0)
		return;
	client->act = server->acts[MIN(server->accepted, strlen(server->acts) - 1)];
	server->accepted++;
	ev_io_set(&client->io, client->fd, EV_READ);
	ev_io_start(loop, &client->io);
}

/* Bound, not listening: connections are refused, and the port stays ours. */
static void server_bind(struct fixture *f, const char *text)
{
	struct server *server = &f->server;
	const char *error;

	assert_int_equal(addr_parse(text, &server->addr, &error), 0);
	server->fd =
		socket(addr_family(&server->addr), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(server->fd, &server->addr.sa, server->addr.len), 0);
	if (!addr_is_unix(&server->addr))
		assert_int_equal(getsockname(server->fd, &server->addr.sa, &server->addr.len), 0);
	addr_format(&server->addr, server->text, sizeof(server->text));
}

static void server_serve(struct fixture *f, const char *acts)
{
	f->server.acts = acts;
	f->server.accepted = 0;
	if (!ev_is_active(&f->server.io)) {
		assert_int_equal(listen(f->server.fd, 64), 0);
		ev_io_set(&f->server.io, f->server.fd, EV_READ);
		ev_io_start(f->loop, &f->server.io);
	}
}

static void server_close(struct fixture *f)
{
	ev_io_stop(f->loop, &f->server.io);
	for (unsigned int i = 0; i < CLIENTS_MAX; i++)
		client_close(&f->server.clients[i]);
	if (f->server.fd >= 0)
		close(f->server.fd);
	f->server.fd = -1;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->fds = open_fds();
	f->loop = ev_loop_new(EVFLAG_NOENV | EVBACKEND_EPOLL);
	f->checker = checker_new(f->loop, on_change, f);
	f->server.fixture = f;
	f->server.fd = -1;
	ev_io_init(&f->server.io, accept_cb, -1, 0);
	f->server.io.data = &f->server;
	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		struct client *client = &f->server.clients[i];

		client->server = &f->server;
		client->fd = -1;
		ev_io_init(&client->io, client_cb, -1, 0);
		ev_timer_init(&client->timer, later_cb, 0., 0.);
		client->io.data = client->timer.data = client;
	}
	*state = f;
	return 0;
}

/* Every test is one of leaks too. */
static int teardown(void **state)
{
	struct fixture *f = *state;
	unsigned int fds;

	checker_free(f->checker);
	server_close(f);
	ev_loop_destroy(f->loop);
	conf_free(f->conf);
	fds = open_fds();
	if (fds != f->fds)
		fail_msg("%u descriptors are open, %u were", fds, f->fds);
	free(f);
	return 0;
}

/* --- configurations --- */

static int set(struct fixture *f, struct conf *conf)
{
	unsigned int slot = 0;
	int err;

	for (unsigned int i = 0; i < conf->nbackends; i++) {
		for (unsigned int k = 0; k < conf->backends[i].nservers; k++)
			conf->backends[i].servers[k].slot = slot++;
	}
	err = checker_set(f->checker, conf, f->states);
	conf_free(f->conf); /* nothing of it may be in use any more */
	f->conf = conf;
	return err;
}

/* The one server, and keys of its backend. */
PRINTF(2, 3) static void configure(struct fixture *f, const char *keys, ...)
{
	char text[1024], more[512];
	va_list ap;

	va_start(ap, keys);
	vsnprintf(more, sizeof(more), keys, ap);
	va_end(ap);
	snprintf(text, sizeof(text), LISTENER "[backend app]\nserver = %s name=a\n%s\n",
		f->server.text, more);
	assert_int_equal(set(f, accept_text(text)), 0);
}

#define PING "check = send_expect \"PING\\r\\n\" \"+PONG\"\n"
#define EVERY_20MS "check_interval = 20ms\n"

/* --- tests --- */

static void server_starts_up_and_is_checked_at_once(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "g");
	configure(f, "check_interval = 1h");
	assert_int_equal(f->states[0].down, 0);
	RUN_UNTIL(f, 0.25, successes(f, 0) == 1);
	assert_int_equal(successes(f, 0), 1);
	RUN_FOR(f, 0.2);
	assert_int_equal(successes(f, 0) + failures(f, 0), 1);
	assert_int_equal(f->changes, 0);
	assert_int_equal(f->states[0].up_since_ns, 0); /* no slow start at the start */
}

static unsigned int time_waits(const struct addr *addr)
{
	FILE *file = fopen("/proc/net/tcp", "re");
	char line[256], port[16];
	unsigned int n = 0;

	snprintf(port, sizeof(port), ":%04X ", ntohs(addr->in.sin_port));
	while (fgets(line, sizeof(line), file))
		n += strstr(line, port) && strstr(line, " 06 ");
	fclose(file);
	return n;
}

static void tcp_check_leaves_nothing_to_accept_and_no_time_wait(void **state)
{
	struct fixture *f = *state;
	unsigned int accepted = 0;

	server_bind(f, "127.0.0.1:0");
	assert_int_equal(listen(f->server.fd, 64), 0);
	configure(f, EVERY_20MS);
	EXPECT_SOON(f, successes(f, 0) >= 10);
	/* The kernel's ACK is only delayed, by 40 ms: a busy machine may be late. */
	for (int fd; (fd = accept(f->server.fd, NULL, NULL)) >= 0; accepted++)
		close(fd);
	assert_true(accepted < 3);
	assert_int_equal(failures(f, 0), 0);
	assert_int_equal(time_waits(&f->server.addr), 0);
}

static void send_expect_leaves_no_time_wait(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "g");
	configure(f, PING EVERY_20MS);
	EXPECT_SOON(f, successes(f, 0) >= 10);
	assert_int_equal(time_waits(&f->server.addr), 0);
}

static void refused_server_falls_and_rises_after_exactly_as_many_checks(void **state)
{
	struct fixture *f = *state;
	uint64_t before = now_ns();

	server_bind(f, "127.0.0.1:0");
	configure(f, EVERY_20MS "check_fall = 3\ncheck_rise = 4");
	EXPECT_SOON(f, f->changes == 1);
	assert_false(f->up);
	assert_int_equal(f->failures_then, 3);
	assert_string_equal(f->why, "Connection refused");
	RUN_FOR(f, 0.1);
	assert_int_equal(f->changes, 1);
	assert_true(failures(f, 0) > 3);
	server_serve(f, "g");
	EXPECT_SOON(f, f->changes == 2);
	assert_true(f->up);
	assert_int_equal(f->successes_then, 4);
	assert_true(f->states[0].up_since_ns > before && f->states[0].up_since_ns <= now_ns());
	RUN_FOR(f, 0.1);
	assert_int_equal(f->changes, 2);
}

static void fall_and_rise_of_one_follow_each_result(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "gegeg");
	configure(f, PING EVERY_20MS "check_fall = 1\ncheck_rise = 1");
	EXPECT_SOON(f, f->changes == 4);
	assert_int_equal(f->failures_then, 2);
	assert_int_equal(f->successes_then, 3);
}

static void only_results_in_a_row_count(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "eegegeeeggegeggg");
	configure(f, PING EVERY_20MS "check_fall = 3\ncheck_rise = 3");
	EXPECT_SOON(f, f->changes == 1);
	assert_int_equal(f->failures_then, 6);
	assert_int_equal(f->successes_then, 2);
	EXPECT_SOON(f, f->changes == 2);
	assert_true(f->up);
	assert_int_equal(f->failures_then, 8);
	assert_int_equal(f->successes_then, 8);
}

/* Connections that nobody accepts fill the backlog; further SYNs are dropped. */
static void fill_backlog(const struct addr *addr, int *fds, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		fds[i] = socket(addr_family(addr), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (connect(fds[i], &addr->sa, addr->len) < 0)
			assert_true(errno == EINPROGRESS || errno == EAGAIN);
	}
	usleep(20000);
}

static void close_all(const int *fds, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		close(fds[i]);
}

static void full_backlog_times_out(void **state)
{
	static const char *const addrs[] = {"127.0.0.1:0", "unix:@shunt-test-check-backlog"};
	struct fixture *f = *state;
	uint64_t before;
	int fds[4];

	for (size_t i = 0; i < ARRAY_LEN(addrs); i++) {
		server_bind(f, addrs[i]);
		assert_int_equal(listen(f->server.fd, 0), 0);
		fill_backlog(&f->server.addr, fds, ARRAY_LEN(fds));
		f->changes = 0;
		f->states[0] = (struct server_state){0};
		before = now_ns();
		configure(f, "check_interval = 200ms\nconnect_timeout = 90ms\ncheck_fall = 1");
		EXPECT_SOON(f, f->changes == 1);
		assert_string_equal(f->why, "no connection within 90ms");
		assert_in_range(now_ns() - before, 90000000, 600000000);
		close_all(fds, ARRAY_LEN(fds));
		server_close(f);
	}
}

static void timeout_is_the_interval_where_that_is_shorter(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "h");
	configure(f, PING "check_interval = 60ms\nconnect_timeout = 5s\ncheck_fall = 1");
	EXPECT_SOON(f, f->changes == 1);
	assert_string_equal(f->why, "no answer within 60ms");
}

static void unix_server_with_room_again_in_time_is_up(void **state)
{
	struct fixture *f = *state;
	int fds[3];

	server_bind(f, "unix:@shunt-test-check-room");
	assert_int_equal(listen(f->server.fd, 0), 0);
	fill_backlog(&f->server.addr, fds, ARRAY_LEN(fds));
	configure(f, "check_interval = 1s\ncheck_fall = 1");
	RUN_FOR(f, 0.15); /* the first attempt has begun */
	assert_int_equal(successes(f, 0), 0);
	close(accept(f->server.fd, NULL, NULL));
	EXPECT_SOON(f, successes(f, 0) == 1);
	assert_int_equal(failures(f, 0), 0);
	close_all(fds, ARRAY_LEN(fds));
}

static void unix_server_that_is_gone_falls(void **state)
{
	struct fixture *f = *state;

	snprintf(f->server.text, sizeof(f->server.text), "unix:/nonexistent/socket");
	configure(f, EVERY_20MS);
	EXPECT_SOON(f, f->changes == 1);
	assert_string_equal(f->why, "No such file or directory");
	assert_int_equal(f->failures_then, 3);
}

static void expected_text_is_found_across_segments(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "s");
	configure(f, "check = send_expect \"A\\x00B\\xff\" \"+PONG\\r\\n\"\ncheck_interval = 50ms");
	EXPECT_SOON(f, successes(f, 0) == 4);
	assert_int_equal(failures(f, 0), 0);
	assert_int_equal(f->server.got_len, 4);
	assert_memory_equal(f->server.got, "A\0B\xff", 4);
}

static void greeting_is_expected_without_sending(void **state)
{
	struct fixture *f = *state;
	int fd;

	server_bind(f, "127.0.0.1:0");
	assert_int_equal(listen(f->server.fd, 8), 0);
	configure(f, "check = send_expect \"\" \"220 \"\ncheck_interval = 1s");
	RUN_UNTIL(f, LATE, (fd = accept(f->server.fd, NULL, NULL)) >= 0);
	assert_int_equal(send(fd, "220 hello", 9, MSG_NOSIGNAL), 9);
	EXPECT_SOON(f, successes(f, 0) == 1);
	close(fd);
}

static void wrong_answers_fail_with_their_reason(void **state)
{
	static const struct {
		const char *acts, *why;
	} cases[] = {
		{"b", "no expected answer within 100ms"},
		{"c", "closed without the expected answer"},
		{"e", "closed without an answer"},
		{"h", "no answer within 100ms"},
		{"l", "a long answer without the expected text"},
	};
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		server_serve(f, cases[i].acts);
		f->states[0] = (struct server_state){0};
		f->changes = 0;
		/* Another check each time: it starts afresh. */
		configure(f, PING "check_interval = %zums\nconnect_timeout = 100ms\ncheck_fall = 1",
			200 + i);
		EXPECT_SOON(f, f->changes == 1);
		assert_false(f->up);
		assert_string_equal(f->why, cases[i].why);
		assert_int_equal(failures(f, 0), 1);
	}
}

static void maint_is_not_checked_and_drain_is(void **state)
{
	struct fixture *f = *state;
	uint64_t n;

	server_bind(f, "127.0.0.1:0");
	f->states[0].admin = SERVER_MAINT;
	configure(f, EVERY_20MS);
	RUN_FOR(f, 0.2);
	assert_int_equal(failures(f, 0) + successes(f, 0), 0);
	f->states[0].admin = SERVER_DRAIN;
	EXPECT_SOON(f, f->changes == 1);
	assert_int_equal(f->failures_then, 3);
	f->states[0].admin = SERVER_MAINT;
	n = failures(f, 0);
	server_serve(f, "g");
	RUN_FOR(f, 0.2);
	assert_int_equal(failures(f, 0), n);
	assert_int_equal(successes(f, 0), 0);
	f->states[0].admin = SERVER_READY;
	EXPECT_SOON(f, f->changes == 2);
	assert_true(f->up);
}

static void result_that_comes_in_during_maint_is_not_counted(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "h");
	configure(f, PING "check_interval = 300ms\ncheck_fall = 1");
	EXPECT_SOON(f, f->server.accepted == 1);
	f->states[0].admin = SERVER_MAINT;
	RUN_FOR(f, 0.4);
	assert_int_equal(failures(f, 0), 0);
	assert_int_equal(f->changes, 0);
}

static void intervals_vary_by_a_tenth(void **state)
{
	struct fixture *f = *state;
	double shortest = 1e9, longest = 0;
	uint64_t last, now;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "g");
	configure(f, PING "check_interval = 100ms");
	EXPECT_SOON(f, f->server.accepted == 1);
	last = now_ns();
	for (unsigned int i = 2; i < 22; i++) {
		EXPECT_SOON(f, f->server.accepted == i);
		now = now_ns();
		shortest = MIN(shortest, (double)(now - last) / 1e6);
		longest = MAX(longest, (double)(now - last) / 1e6);
		last = now;
	}
	/* 20 draws; the upper end has some air for a busy machine. */
	assert_true(shortest > 85 && shortest < 99);
	assert_true(longest > 101 && longest < 200);
}

static void interval_is_a_quarter_while_the_state_changes(void **state)
{
	struct fixture *f = *state;
	uint64_t before, ms;

	server_bind(f, "127.0.0.1:0");
	before = now_ns();
	configure(f, "check_interval = 1s\ncheck_fall = 3\ncheck_rise = 3");
	EXPECT_SOON(f, f->changes == 1);
	ms = (now_ns() - before) / 1000000;
	assert_in_range(ms, 2 * 225, 100 + 2 * 275 + 200); /* not 2 s */
	server_serve(f, "g");
	before = now_ns();
	EXPECT_SOON(f, f->changes == 2);
	ms = (now_ns() - before) / 1000000;
	assert_in_range(ms, 900 + 2 * 225 - 50, 1100 + 2 * 275 + 300);
}

/* n servers with this address. */
static struct conf *many(const char *addr, unsigned int n, const char *keys)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	struct conf *conf;

	fprintf(out, LISTENER "[backend app]\n%s\n", keys);
	for (unsigned int i = 0; i < n; i++)
		fprintf(out, "server = %s name=s%u\n", addr, i);
	fclose(out);
	conf = accept_text(text);
	free(text);
	return conf;
}

static unsigned int checked(struct fixture *f, unsigned int n)
{
	unsigned int found = 0;

	for (unsigned int i = 0; i < n; i++)
		found += successes(f, i) + failures(f, i) > 0;
	return found;
}

static void first_checks_are_spread(void **state)
{
	struct fixture *f = *state;
	uint64_t first;

	server_bind(f, "127.0.0.1:0");
	assert_int_equal(listen(f->server.fd, 128), 0);
	assert_int_equal(set(f, many(f->server.text, 60, "check_interval = 1h")), 0);
	EXPECT_SOON(f, checked(f, 60) >= 1);
	first = now_ns();
	EXPECT_SOON(f, checked(f, 60) == 60);
	assert_in_range(now_ns() - first, 50000000, 400000000);
}

static void attempts_at_the_same_time_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit, old;
	unsigned int most = 0, base;
	int fds[3];

	getrlimit(RLIMIT_NOFILE, &old);
	limit = old;
	limit.rlim_cur = MAX(limit.rlim_cur, MIN(limit.rlim_max, 2048));
	setrlimit(RLIMIT_NOFILE, &limit);
	server_bind(f, "127.0.0.1:0");
	assert_int_equal(listen(f->server.fd, 0), 0);
	fill_backlog(&f->server.addr, fds, ARRAY_LEN(fds));
	base = open_fds();
	assert_int_equal(
		set(f, many(f->server.text, SLOTS, "check_interval = 1h\nconnect_timeout = 300ms")),
		0);
	assert_int_equal(checker_fds(f->conf), CHECKER_CONNS_MAX);
	RUN_UNTIL(f, LATE, (most = MAX(most, open_fds())) && checked(f, SLOTS) == SLOTS);
	assert_int_equal(checked(f, SLOTS), SLOTS);
	assert_int_equal(most - base, CHECKER_CONNS_MAX);
	/* A configuration that drops them while others wait, and then all. */
	assert_int_equal(
		set(f, many(f->server.text, SLOTS, "check_interval = 1h\nconnect_timeout = 301ms")),
		0);
	RUN_FOR(f, 0.2);
	assert_int_equal(
		set(f, many(f->server.text, 300, "check_interval = 1h\nconnect_timeout = 302ms")),
		0);
	for (unsigned int i = 0; i < SLOTS; i++)
		f->states[i].check_failures = 0;
	EXPECT_SOON(f, checked(f, 300) == 300);
	assert_int_equal(set(f, many(f->server.text, 2, "check = off")), 0);
	assert_int_equal(checker_fds(f->conf), 0);
	assert_int_equal(open_fds(), base);
	close_all(fds, ARRAY_LEN(fds));
	setrlimit(RLIMIT_NOFILE, &old);
}

/* n servers that are to time out, and then one that refuses. */
static struct conf *late(struct fixture *f, unsigned int n)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	struct conf *conf;

	fputs(LISTENER, out);
	fprintf(out, "[backend app]\nserver = %s name=first\ncheck = %s\ncheck_interval = 1h\n",
		f->server.text, n ? "tcp" : "off");
	for (unsigned int i = 1; i < n; i++)
		fprintf(out, "server = %s name=s%u\n", f->server.text, i);
	fprintf(out, "[backend late]\nserver = 127.0.0.2:%u\ncheck_interval = 1h\n",
		ntohs(f->server.addr.in.sin_port));
	fclose(out);
	conf = accept_text(text);
	free(text);
	return conf;
}

static void last_place_that_is_dropped_goes_to_who_waits(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit, old;
	int fds[3];

	getrlimit(RLIMIT_NOFILE, &old);
	limit = old;
	limit.rlim_cur = MAX(limit.rlim_cur, MIN(limit.rlim_max, 2048));
	setrlimit(RLIMIT_NOFILE, &limit);
	server_bind(f, "127.0.0.1:0");
	assert_int_equal(listen(f->server.fd, 0), 0);
	fill_backlog(&f->server.addr, fds, ARRAY_LEN(fds));
	assert_int_equal(set(f, many(f->server.text, 600, "check_interval = 1h")), 0);
	RUN_FOR(f, 0.2); /* every place is taken for 5 s */
	assert_int_equal(set(f, late(f, 600)), 0);
	RUN_FOR(f, 0.2);
	assert_int_equal(checked(f, 601), 0);
	assert_int_equal(set(f, late(f, 0)), 0);
	EXPECT_SOON(f, failures(f, 1) == 1);
	close_all(fds, ARRAY_LEN(fds));
	setrlimit(RLIMIT_NOFILE, &old);
}

/* Runs with stderr kept; returns how many lines of it hold the words. */
static unsigned int logged(struct fixture *f, double seconds, const char *words, int *saved)
{
	char text[8192];
	unsigned int n = 0;
	int fd = memfd_create("stderr", MFD_CLOEXEC);
	ssize_t len;

	*saved = dup(STDERR_FILENO);
	dup2(fd, STDERR_FILENO);
	RUN_FOR(f, seconds);
	dup2(*saved, STDERR_FILENO);
	close(*saved);
	len = pread(fd, text, sizeof(text) - 1, 0);
	close(fd);
	text[MAX(len, 0)] = '\0';
	for (const char *p = text; (p = strstr(p, words)); p++)
		n++;
	return n;
}

static int free_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

static void lack_of_descriptors_is_not_held_against_the_server(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit, old;
	unsigned int lines;
	int saved;

	server_bind(f, "127.0.0.1:0");
	assert_int_equal(listen(f->server.fd, 64), 0);
	configure(f, EVERY_20MS "check_fall = 1");
	EXPECT_SOON(f, successes(f, 0) == 1);
	getrlimit(RLIMIT_NOFILE, &old);
	limit = old;
	limit.rlim_cur = (rlim_t)free_fd() + 2; /* logged() takes two */
	setrlimit(RLIMIT_NOFILE, &limit);
	f->states[0].check_successes = 0;
	lines = logged(
		f, 0.5, "backend app: server a cannot be checked: Too many open files", &saved);
	setrlimit(RLIMIT_NOFILE, &old);
	assert_int_equal(lines, 1); /* of about 25 */
	assert_int_equal(f->changes, 0);
	assert_int_equal(failures(f, 0), 0);
	assert_int_equal(successes(f, 0), 0);
	EXPECT_SOON(f, successes(f, 0) >= 3);
}

static void each_transition_is_one_line(void **state)
{
	struct fixture *f = *state;
	int saved;

	server_bind(f, "127.0.0.1:0");
	configure(f, EVERY_20MS);
	assert_int_equal(
		logged(f, 0.4, "warning: backend app: server a is down: Connection refused\n",
			&saved),
		1);
	server_serve(f, "g");
	assert_int_equal(
		logged(f, 0.4, "notice: backend app: server a is up: connected\n", &saved), 1);
	assert_int_equal(logged(f, 0.2, "backend", &saved), 0);
}

/* --- reconfiguration --- */

static void same_check_goes_on_counting_after_a_reload(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(f->changes, 0);
		configure(f, "check_interval = 500ms\nkeepalive = %us", i + 1);
		EXPECT_SOON(f, failures(f, 0) == i + 1);
	}
	assert_int_equal(f->changes, 1);
	assert_int_equal(f->failures_then, 3);
	configure(f, "check_interval = 500ms");
	assert_int_equal(f->states[0].down, 1);
	assert_int_equal(f->changes, 1);
}

static void attempt_under_way_survives_a_reload(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "h");
	configure(f, PING "check_interval = 400ms\ncheck_fall = 1");
	EXPECT_SOON(f, f->server.accepted == 1);
	for (unsigned int i = 0; i < 10; i++) {
		configure(f, PING "check_interval = 400ms\ncheck_fall = 1");
		RUN_FOR(f, 0.01);
	}
	EXPECT_SOON(f, f->changes == 1);
	assert_int_equal(f->server.accepted, 1);
}

static void verdict_is_kept_when_only_the_check_changes(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	configure(f, EVERY_20MS);
	EXPECT_SOON(f, f->changes == 1);
	configure(f, "check_interval = 21ms\ncheck_rise = 2");
	assert_int_equal(f->states[0].down, 1);
	server_serve(f, "g");
	EXPECT_SOON(f, f->changes == 2);
	assert_int_equal(f->successes_then, 2);
}

static void another_address_or_no_check_is_up(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	configure(f, EVERY_20MS);
	EXPECT_SOON(f, f->changes == 1);
	snprintf(f->server.text, sizeof(f->server.text), "127.0.0.2:%u",
		ntohs(f->server.addr.in.sin_port));
	configure(f, EVERY_20MS);
	assert_int_equal(f->changes, 2);
	assert_true(f->up);
	assert_string_equal(f->why, "new address");
	EXPECT_SOON(f, f->changes == 3);
	assert_false(f->up);
	configure(f, "check = off");
	assert_int_equal(f->changes, 4);
	assert_string_equal(f->why, "not checked any more");
	RUN_FOR(f, 0.1);
	assert_int_equal(f->changes, 4);
}

static void servers_move_between_slots_with_their_checks(void **state)
{
	struct fixture *f = *state;
	char text[512];

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "g");
	configure(f, "check_interval = 40ms");
	EXPECT_SOON(f, successes(f, 0) >= 2);
	snprintf(text, sizeof(text),
		LISTENER "[backend app]\nserver = 127.0.0.2:%u name=b\nserver = %s name=a\n"
			 "check_interval = 40ms\n",
		ntohs(f->server.addr.in.sin_port), f->server.text);
	assert_int_equal(set(f, accept_text(text)), 0);
	assert_int_equal(failures(f, 0), 0);
	EXPECT_SOON(f, f->changes == 1);
	assert_int_equal(f->slot, 0);
	EXPECT_SOON(f, successes(f, 1) >= 2);
	assert_int_equal(failures(f, 1), 0);
}

static void first_configuration_keeps_the_verdicts_of_a_worker_before(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "g");
	f->states[0].down = 1;
	configure(f, "check_interval = 50ms\ncheck_rise = 2");
	assert_int_equal(f->states[0].down, 1);
	EXPECT_SOON(f, f->changes == 1);
	assert_true(f->up);
	assert_int_equal(f->successes_then, 2);
}

static void checker_can_be_freed_at_any_time(void **state)
{
	struct fixture *f = *state;

	server_bind(f, "127.0.0.1:0");
	server_serve(f, "h");
	assert_int_equal(set(f, many(f->server.text, 20, PING "check_interval = 1s")), 0);
	EXPECT_SOON(
		f, f->server.accepted == 10); /* some run, some are to come; the rest: teardown */
	checker_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(server_starts_up_and_is_checked_at_once),
		TEST(tcp_check_leaves_nothing_to_accept_and_no_time_wait),
		TEST(send_expect_leaves_no_time_wait),
		TEST(refused_server_falls_and_rises_after_exactly_as_many_checks),
		TEST(fall_and_rise_of_one_follow_each_result),
		TEST(only_results_in_a_row_count),
		TEST(full_backlog_times_out),
		TEST(timeout_is_the_interval_where_that_is_shorter),
		TEST(unix_server_with_room_again_in_time_is_up),
		TEST(unix_server_that_is_gone_falls),
		TEST(expected_text_is_found_across_segments),
		TEST(greeting_is_expected_without_sending),
		TEST(wrong_answers_fail_with_their_reason),
		TEST(maint_is_not_checked_and_drain_is),
		TEST(result_that_comes_in_during_maint_is_not_counted),
		TEST(intervals_vary_by_a_tenth),
		TEST(interval_is_a_quarter_while_the_state_changes),
		TEST(first_checks_are_spread),
		TEST(attempts_at_the_same_time_are_bounded),
		TEST(last_place_that_is_dropped_goes_to_who_waits),
		TEST(lack_of_descriptors_is_not_held_against_the_server),
		TEST(each_transition_is_one_line),
		TEST(same_check_goes_on_counting_after_a_reload),
		TEST(attempt_under_way_survives_a_reload),
		TEST(verdict_is_kept_when_only_the_check_changes),
		TEST(another_address_or_no_check_is_up),
		TEST(servers_move_between_slots_with_their_checks),
		TEST(first_configuration_keeps_the_verdicts_of_a_worker_before),
		TEST(checker_can_be_freed_at_any_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
