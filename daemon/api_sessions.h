/* SPDX-License-Identifier: BSD-2-Clause */
/* Which sessions are shown, and in which order. Pure. */
#ifndef SHUNT_API_SESSIONS_H
#define SHUNT_API_SESSIONS_H

#include "api.h"
#include "http.h"

#define API_SESSIONS_LIMIT 100
#define API_SESSIONS_LIMIT_MAX 100000

struct api_filter {
	const char *listener, *backend, *server; /* NULL: any; a server also as "backend/server" */
	const char *client; /* the start of the client's address as it is shown */
	int path; /* enum path: a direction is on it; -1: any */
	size_t limit;
};

/* 0, or -EINVAL with one line that says which parameter and why. Borrows from the request. */
MUST_CHECK int api_filter_parse(
	const struct http_request *request, struct api_filter *ret, char *err, size_t size);

/* Moves those that pass to the front, most bytes first. Returns their number, before the limit. */
size_t api_filter_apply(const struct api_filter *filter, struct api_session *sessions, size_t n);

uint64_t api_session_bytes(const struct api_session *session, unsigned int dir);

#endif
