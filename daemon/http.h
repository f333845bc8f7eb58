/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The HTTP server of the stats addresses and of the control socket: one thread for each
 * http_start(), whatever the number of addresses. What the pages say is the handler's business.
 */
#ifndef SHUNT_HTTP_H
#define SHUNT_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "util.h"

#define HTTP_BODY_MAX ((size_t)64 * 1024)
#define HTTP_QUERY_MAX 16

struct http;

/* One "name=value" of the query, decoded. */
struct http_parameter {
	const char *name, *value;
};

/* Borrowed for the length of one call. */
struct http_request {
	const char *method; /* GET also where the client sent HEAD: the server drops the body */
	const char *path; /* as sent, without the query: still percent-encoded */
	const char *accept; /* that header; NULL: none */
	struct http_parameter query[HTTP_QUERY_MAX];
	unsigned int nquery;
	const char *body; /* not terminated; NULL only with body_len 0 */
	size_t body_len;
	pid_t pid; /* of the peer of a UNIX socket when it connected; -1: TCP */
	uid_t uid; /* (uid_t)-1 then */
	gid_t gid;
};

/* Starts as 200 without a body. */
struct http_response {
	unsigned int status;
	const char *content_type; /* static */
	const char *allow; /* static; for 405: the methods that would do */
	char *body; /* malloc()ed; the server frees it */
	size_t len;
};

struct http_handlers {
	void *arg;
	/*
	 * Called on the server's thread, one at a time. A read-only server's must not block:
	 * nothing else is answered then. 0, or a negative errno: answered with 500 and its text.
	 */
	int (*handle)(
		void *arg, const struct http_request *request, struct http_response *response);
	/* POST and DELETE reach the handler, with bodies of up to HTTP_BODY_MAX. Else 405. */
	bool writable;
	/* For each step of a client: to send its request, to read the answer. 0: 10 s. */
	unsigned int step_timeout_ms;
};

/*
 * The descriptors must be listening (TCP or UNIX) and stay the caller's: they are never closed,
 * shut down or unlinked here, and must stay open until http_stop(). They are made non-blocking,
 * which every holder of a duplicate sees. *handlers is copied. 0 or a negative errno.
 */
MUST_CHECK int http_start(const int *listen_fds, unsigned int n,
	const struct http_handlers *handlers, struct http **ret);

/* Ends the thread, once a running handler has returned, and closes its connections. NULL is fine.
 */
void http_stop(struct http *http);

/* For handlers. NULL: there is no such parameter. */
const char *http_request_query(const struct http_request *request, const char *name);

/* A text/plain answer: `text` and a newline. 0 or -ENOMEM. */
MUST_CHECK int http_respond_text(
	struct http_response *response, unsigned int status, const char *text);

/* Whether OpenMetrics is asked for at least as much as plain text. `accept` may be NULL. Pure. */
bool http_accepts_openmetrics(const char *accept);

/* Decodes %XX in place. False: a broken escape, or an encoded NUL. Pure. */
bool http_decode(char *text);

#endif
