/* SPDX-License-Identifier: BSD-2-Clause */
/* The read-only HTTP server of the stats addresses: one thread, whatever the number of addresses.
 */
#ifndef SHUNT_HTTP_H
#define SHUNT_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "util.h"

struct http;

/* Called on the server's thread, one at a time. They must not block: nothing else is answered then.
 */
struct http_handlers {
	void *arg;
	/* 0 with a malloc()ed body that the server frees, or a negative errno: answered with 500.
	 */
	int (*metrics)(void *arg, bool openmetrics, char **ret_body, size_t *ret_len);
	bool (*ready)(void *arg, char *why, size_t size); /* why: one line, shown when not ready */
	/* For each step of a client: to send its request, to read the answer, to ask again. 0: 10
	 * s. */
	unsigned int step_timeout_ms;
};

/*
 * The descriptors must be listening (TCP or UNIX) and stay the caller's: they are never closed,
 * shut down or unlinked here, and must stay open until http_stop(). They are made non-blocking,
 * which every holder of a duplicate sees. *handlers is copied. 0 or a negative errno.
 */
MUST_CHECK int http_start(const int *listen_fds, unsigned int n,
	const struct http_handlers *handlers, struct http **ret);

/* Ends the thread and closes its connections. NULL is fine. */
void http_stop(struct http *http);

/* Whether OpenMetrics is asked for at least as much as plain text. `accept` may be NULL. Pure. */
bool http_accepts_openmetrics(const char *accept);

#endif
