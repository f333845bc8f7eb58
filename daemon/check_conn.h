/* SPDX-License-Identifier: BSD-2-Clause */
/* One attempt to reach a server: connect, perhaps send a text and wait for another. Knows neither
 * counters nor schedules. */
#ifndef SHUNT_CHECK_CONN_H
#define SHUNT_CHECK_CONN_H

#include <ev.h>

#include "addr.h"
#include "util.h"

/* The bytes of an answer that are searched for the expected text. */
#define CHECK_CONN_ANSWER_MAX 16384
#define CHECK_CONN_EXPECT_MAX 256

enum check_conn_result {
	CHECK_CONN_OK,
	CHECK_CONN_FAILED,
	CHECK_CONN_NO_RESOURCES, /* ours, not the server's: nothing is known of it */
};

struct check_conn {
	/* Set by the owner before check_conn_start(); to stay as it is while the attempt runs. */
	struct addr addr;
	const char *send, *expect;
	size_t send_len,
		expect_len; /* to expect: CHECK_CONN_EXPECT_MAX at most; 0: connecting is enough */
	uint64_t timeout_ms;
	/* Called once per start unless it is cancelled, perhaps within check_conn_start(). */
	void (*done)(struct check_conn *conn, enum check_conn_result result, const char *why);

	struct ev_loop *loop;
	int fd; /* -1: no attempt is running */
	ev_io io;
	ev_timer deadline, retry;
	size_t sent, received, tail_len;
	char tail[CHECK_CONN_EXPECT_MAX]; /* the end of what was received */
};

void check_conn_init(struct check_conn *conn, struct ev_loop *loop);
void check_conn_start(struct check_conn *conn);
void check_conn_cancel(struct check_conn *conn); /* of none is fine */

#endif
