/* SPDX-License-Identifier: BSD-2-Clause */
/* The user-space path on real socket pairs: nothing lost, bounded, pipes only while bytes are in
 * them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../daemon/relay.h"

struct rig {
	int from, source, target, to; /* we write to `from` and read `to` */
	struct relay relay;
	struct relay_pool pool;
};

static void tcp_pair(int fds[2])
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fds[0], (struct sockaddr *)&addr, len), 0);
	fds[1] = accept(listener, NULL, NULL);
	close(listener);
}

static struct rig *rig_new(int tcp)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	int a[2], b[2];

	if (tcp) {
		tcp_pair(a);
		tcp_pair(b);
	} else {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
	}
	rig->from = a[0];
	rig->source = a[1];
	rig->target = b[0];
	rig->to = b[1];
	for (int i = 0; i < 2; i++) {
		fcntl(a[i], F_SETFL, O_NONBLOCK);
		fcntl(b[i], F_SETFL, O_NONBLOCK);
	}
	relay_pool_init(&rig->pool);
	return rig;
}

static void rig_free(struct rig *rig)
{
	relay_done(&rig->pool, &rig->relay);
	relay_pool_done(&rig->pool);
	close(rig->from);
	close(rig->source);
	close(rig->target);
	close(rig->to);
	free(rig);
}

static enum relay_result run(struct rig *rig)
{
	int err = 0;

	rig->relay.source_dry = false;
	rig->relay.target_full = false;
	return relay_run(&rig->pool, &rig->relay, rig->source, rig->target, 1 << 20, true, &err);
}

static unsigned char pattern(uint64_t at)
{
	return (unsigned char)(at * 131 + (at >> 8) * 17 + (at >> 16));
}

/* Pushes `total` bytes through, with a reader that takes at most `gulp` a round. */
static void push(struct rig *rig, uint64_t total, size_t gulp)
{
	static unsigned char out[1 << 16], in[1 << 16];
	uint64_t sent = 0, got = 0;

	while (got < total) {
		size_t want = (size_t)MIN(total - sent, (uint64_t)sizeof(out));
		ssize_t n;

		for (size_t i = 0; i < want; i++)
			out[i] = pattern(sent + i);
		n = want ? write(rig->from, out, want) : 0;
		sent += n > 0 ? (uint64_t)n : 0;
		assert_int_not_equal(run(rig), RELAY_SOURCE_ERROR);
		assert_true(relay_waiting(&rig->relay) <= RELAY_CHUNK);
		n = read(rig->to, in, MIN(gulp, sizeof(in)));
		for (ssize_t i = 0; i < n; i++)
			if (in[i] != pattern(got + (uint64_t)i))
				fail_msg("byte %llu is wrong",
					(unsigned long long)(got + (uint64_t)i));
		got += n > 0 ? (uint64_t)n : 0;
	}
	assert_true(rig->relay.written == total);
}

static void bulk_comes_through_tcp_intact(void **state)
{
	struct rig *rig = rig_new(1);

	(void)state;
	push(rig, 32 << 20, 1 << 16);
	rig_free(rig);
}

static void a_slow_reader_gets_every_byte(void **state)
{
	struct rig *rig = rig_new(1);

	(void)state;
	push(rig, 8 << 20, 5000);
	rig_free(rig);
}

static void copy_only_comes_through_intact(void **state)
{
	struct rig *rig = rig_new(1);

	(void)state;
	rig->relay.copy_only = true;
	push(rig, 8 << 20, 7001);
	assert_int_equal(rig->pool.npipes, 0);
	rig_free(rig);
}

static void unix_sockets_come_through_intact(void **state)
{
	struct rig *rig = rig_new(0);

	(void)state;
	push(rig, 8 << 20, 1 << 16);
	rig_free(rig);
}

static void an_idle_direction_holds_no_buffer_and_no_pipe(void **state)
{
	struct rig *rig = rig_new(1);

	(void)state;
	push(rig, 4 << 20, 1 << 16);
	assert_int_equal(run(rig), RELAY_IDLE);
	assert_null(rig->relay.buf);
	assert_null(rig->relay.pipe);
	rig_free(rig);
}

static void a_reader_that_never_reads_bounds_what_is_held(void **state)
{
	static const char data[1 << 16];
	struct rig *rig = rig_new(1);
	int small = 4096;
	uint64_t before;

	(void)state;
	setsockopt(rig->target, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	setsockopt(rig->to, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	do {
		before = rig->relay.read;
		while (write(rig->from, data, sizeof(data)) > 0)
			;
		assert_int_equal(run(rig), RELAY_IDLE);
	} while (rig->relay.read != before);
	assert_true(relay_waiting(&rig->relay) > 0);
	assert_true(relay_waiting(&rig->relay) <= RELAY_CHUNK);
	rig_free(rig);
}

static void the_fin_comes_after_the_last_byte(void **state)
{
	static char data[300000], in[300000];
	struct rig *rig = rig_new(1);
	size_t sent = 0, got = 0;
	enum relay_result result;

	(void)state;
	memset(data, 'x', sizeof(data));
	do {
		ssize_t n = sent < sizeof(data) ? write(rig->from, data + sent, sizeof(data) - sent)
						: 0;

		sent += n > 0 ? (size_t)n : 0;
		if (sent == sizeof(data))
			shutdown(rig->from, SHUT_WR);
		result = run(rig);
		if (result != RELAY_EOF) {
			n = read(rig->to, in, 3000);
			got += n > 0 ? (size_t)n : 0;
		}
	} while (result != RELAY_EOF);
	assert_int_equal(rig->relay.written, sizeof(data));
	rig_free(rig);
}

static void a_reset_source_is_told_apart_from_a_reset_target(void **state)
{
	struct linger now = {.l_onoff = 1};
	struct rig *rig = rig_new(1);
	int err = 0;

	(void)state;
	setsockopt(rig->from, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(rig->from);
	rig->from = -1;
	assert_int_equal(
		relay_run(&rig->pool, &rig->relay, rig->source, rig->target, 1 << 20, true, &err),
		RELAY_SOURCE_ERROR);
	assert_int_equal(err, ECONNRESET);
	rig_free(rig);
	rig = rig_new(1);
	setsockopt(rig->to, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(rig->to);
	rig->to = -1;
	assert_int_equal(write(rig->from, "x", 1), 1);
	assert_int_equal(
		relay_run(&rig->pool, &rig->relay, rig->source, rig->target, 1 << 20, true, &err),
		RELAY_TARGET_ERROR);
	rig_free(rig);
}

static void bytes_of_an_ended_session_never_reach_the_next(void **state)
{
	static char data[1 << 16], in[1 << 16];
	struct rig *old = rig_new(1), *new = rig_new(1);
	ssize_t n;

	(void)state;
	memset(data, 'o', sizeof(data));
	do {
		while (write(old->from, data, sizeof(data)) > 0)
			;
		(void)run(old);
	} while (!old->relay.pipe); /* bulk: the rest waits in a pipe */
	relay_done(&old->pool, &old->relay);
	new->pool = old->pool; /* the next session takes what the old one gave back */
	relay_pool_init(&old->pool);
	memset(data, 'n', sizeof(data));
	new->relay.bulk = true;
	assert_true(write(new->from, data, sizeof(data)) > 0);
	(void)run(new);
	n = read(new->to, in, sizeof(in));
	assert_true(n > 0);
	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(in[i], 'n');
	rig_free(old);
	rig_free(new);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bulk_comes_through_tcp_intact),
		cmocka_unit_test(a_slow_reader_gets_every_byte),
		cmocka_unit_test(copy_only_comes_through_intact),
		cmocka_unit_test(unix_sockets_come_through_intact),
		cmocka_unit_test(an_idle_direction_holds_no_buffer_and_no_pipe),
		cmocka_unit_test(a_reader_that_never_reads_bounds_what_is_held),
		cmocka_unit_test(the_fin_comes_after_the_last_byte),
		cmocka_unit_test(a_reset_source_is_told_apart_from_a_reset_target),
		cmocka_unit_test(bytes_of_an_ended_session_never_reach_the_next),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
