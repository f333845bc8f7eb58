/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the socket of an attempt. Must not know why it is made, nor log. */
#include "check_conn.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A UNIX server whose backlog is full says so at once and gives no event when there is room. */
#define UNIX_RETRY_S 0.01

/* On its way to the caller: everything is stopped and closed, so it may start the next attempt. */
static void finish(struct check_conn *conn, enum check_conn_result result, const char *why)
{
	check_conn_cancel(conn);
	conn->done(conn, result, why);
}

static void fail_errno(struct check_conn *conn, int err)
{
	bool ours = err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM;

	finish(conn, ours ? CHECK_CONN_NO_RESOURCES : CHECK_CONN_FAILED, strerror(err));
}

static bool is_connected(const struct check_conn *conn)
{
	return conn->io.events & EV_READ;
}

static void watch(struct check_conn *conn, int events)
{
	ev_io_stop(conn->loop, &conn->io);
	ev_io_set(&conn->io, conn->fd, events);
	ev_io_start(conn->loop, &conn->io);
}

static void connected(struct check_conn *conn)
{
	ev_timer_stop(conn->loop, &conn->retry);
	if (conn->expect_len)
		watch(conn, EV_READ | (conn->send_len ? EV_WRITE : 0));
	else
		finish(conn, CHECK_CONN_OK, "connected");
}

static void try_connect(struct check_conn *conn)
{
	if (connect(conn->fd, &conn->addr.sa, conn->addr.len) == 0)
		connected(conn);
	else if (errno == EINPROGRESS)
		watch(conn, EV_WRITE);
	else if (errno == EAGAIN && addr_is_unix(&conn->addr))
		ev_timer_again(conn->loop, &conn->retry);
	else
		fail_errno(conn, errno);
}

static void finish_connect(struct check_conn *conn)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		err = errno;
	if (err)
		fail_errno(conn, err);
	else
		connected(conn);
}

/* An error is left to be told by what is received: the answer may have come before it. */
static void send_more(struct check_conn *conn)
{
	ssize_t n =
		send(conn->fd, conn->send + conn->sent, conn->send_len - conn->sent, MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	conn->sent = n < 0 ? conn->send_len : conn->sent + (size_t)n;
	if (conn->sent == conn->send_len)
		watch(conn, EV_READ);
}

/* The expected text may begin in one segment and end in another: what may be its beginning is kept.
 */
static bool is_expected(struct check_conn *conn, char *buf, size_t len)
{
	if (memmem(buf, len, conn->expect, conn->expect_len))
		return true;
	conn->tail_len = MIN(len, conn->expect_len - 1);
	memcpy(conn->tail, buf + len - conn->tail_len, conn->tail_len);
	return false;
}

static void receive(struct check_conn *conn)
{
	char buf[4096 + CHECK_CONN_EXPECT_MAX];
	size_t kept = conn->tail_len;
	ssize_t n;

	memcpy(buf, conn->tail, kept);
	n = recv(conn->fd, buf + kept,
		MIN(sizeof(buf) - kept, (size_t)CHECK_CONN_ANSWER_MAX - conn->received), 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		fail_errno(conn, errno);
		return;
	}
	conn->received += (size_t)n;
	if (n == 0)
		finish(conn, CHECK_CONN_FAILED,
			conn->received ? "closed without the expected answer"
				       : "closed without an answer");
	else if (is_expected(conn, buf, kept + (size_t)n))
		finish(conn, CHECK_CONN_OK, "expected answer");
	else if (conn->received == CHECK_CONN_ANSWER_MAX)
		finish(conn, CHECK_CONN_FAILED, "a long answer without the expected text");
}

static void handle_io(struct check_conn *conn, int revents)
{
	if (!is_connected(conn)) {
		finish_connect(conn);
		return;
	}
	if (revents & EV_WRITE && conn->sent < conn->send_len)
		send_more(conn);
	if (revents & EV_READ)
		receive(conn);
}

static void io_cb(struct ev_loop *loop, ev_io *io, int revents)
{
	(void)loop;
	handle_io(io->data, revents);
}

static void retry_cb(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	try_connect(timer->data);
}

static void deadline_cb(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct check_conn *conn = timer->data;
	char why[64];

	(void)loop;
	(void)revents;
	snprintf(why, sizeof(why), "%s within %llums",
		!is_connected(conn) ? "no connection"
		: conn->received    ? "no expected answer"
				    : "no answer",
		(unsigned long long)conn->timeout_ms);
	finish(conn, CHECK_CONN_FAILED, why);
}

void check_conn_init(struct check_conn *conn, struct ev_loop *loop)
{
	conn->loop = loop;
	conn->fd = -1;
	ev_io_init(&conn->io, io_cb, -1, 0);
	ev_timer_init(&conn->deadline, deadline_cb, 0., 0.);
	ev_timer_init(&conn->retry, retry_cb, 0., UNIX_RETRY_S);
	conn->io.data = conn->deadline.data = conn->retry.data = conn;
}

/* Closing resets: no TIME_WAIT is left here. Where connecting is all, the server need not even
 * notice: its SYN-ACK is answered with the reset rather than with the ACK that would complete the
 * connection, so there is nothing to accept and to log. */
static void tune(const struct check_conn *conn)
{
	struct linger reset = {.l_onoff = 1};
	int off = 0;

	(void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (!addr_is_unix(&conn->addr) && !conn->expect_len)
		(void)setsockopt(conn->fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof(off));
}

void check_conn_start(struct check_conn *conn)
{
	int family = addr_family(&conn->addr);

	conn->sent = conn->received = conn->tail_len = 0;
	ev_io_set(&conn->io, -1, 0);
	conn->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (conn->fd < 0) {
		fail_errno(conn, errno);
		return;
	}
	tune(conn);
	ev_timer_set(&conn->deadline, (double)conn->timeout_ms / 1000.0, 0.);
	ev_timer_start(conn->loop, &conn->deadline);
	try_connect(conn);
}

void check_conn_cancel(struct check_conn *conn)
{
	if (conn->fd < 0)
		return;
	ev_io_stop(conn->loop, &conn->io);
	ev_timer_stop(conn->loop, &conn->deadline);
	ev_timer_stop(conn->loop, &conn->retry);
	close(conn->fd);
	conn->fd = -1;
}
