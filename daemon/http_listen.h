/* SPDX-License-Identifier: BSD-2-Clause */
/* The listening descriptors of the HTTP server in its epoll set. They are borrowed: never closed
 * here. */
#ifndef SHUNT_HTTP_LISTEN_H
#define SHUNT_HTTP_LISTEN_H

#include <stdint.h>
#include <sys/socket.h>

#include "log.h"
#include "util.h"

struct http_listen {
	int epoll_fd;
	uint64_t paused_until_ns; /* 0: accepting */
	struct log_limit pause_log;
	int *fds;
	unsigned int n;
};

/* Makes them non-blocking and adds each to the set with its index as data.u32. 0 or a negative
 * errno; http_listen_done() in either case. */
MUST_CHECK int http_listen_init(
	struct http_listen *listen, int epoll_fd, const int *fds, unsigned int n);
void http_listen_done(struct http_listen *listen);

/* The next connection, non-blocking, or -1: nothing more to do now. */
int http_listen_accept(struct http_listen *listen, unsigned int index,
	struct sockaddr_storage *ret_addr, socklen_t *ret_len);

/* Without descriptors or memory accepting pauses. When to resume, UINT64_MAX: not paused. */
uint64_t http_listen_deadline_ns(const struct http_listen *listen);
void http_listen_resume_when_due(struct http_listen *listen);

#endif
