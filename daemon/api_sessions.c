/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the filter of the session list. Must not know where sessions come from or how they are
 * shown. */
#include "api_sessions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse_path(const char *value, struct api_filter *filter)
{
	for (int i = 0; i < PATH_COUNT; i++)
		if (!strcmp(value, path_names[i])) {
			filter->path = i;
			return 0;
		}
	return -EINVAL;
}

static int parse_limit(const char *value, struct api_filter *filter)
{
	size_t limit = 0, len = strlen(value);

	if (!len || len > 6 || strspn(value, "0123456789") != len)
		return -EINVAL;
	for (; *value; value++)
		limit = limit * 10 + (size_t)(*value - '0');
	if (limit > API_SESSIONS_LIMIT_MAX)
		return -EINVAL;
	filter->limit = limit;
	return 0;
}

static const struct {
	const char *name;
	size_t text; /* offset of a text that is taken as it is */
	int (*parse)(const char *value, struct api_filter *filter);
	const char *allowed;
} parameters[] = {
	{"listener", offsetof(struct api_filter, listener), NULL, NULL},
	{"backend", offsetof(struct api_filter, backend), NULL, NULL},
	{"server", offsetof(struct api_filter, server), NULL, NULL},
	{"client", offsetof(struct api_filter, client), NULL, NULL},
	{"path", 0, parse_path, "relay, sockmap, shortcut"},
	{"limit", 0, parse_limit, "0 to 100000"},
};

static int parse_one(
	const struct http_parameter *parameter, struct api_filter *filter, char *err, size_t size)
{
	for (unsigned int i = 0; i < ARRAY_LEN(parameters); i++) {
		if (strcmp(parameter->name, parameters[i].name))
			continue;
		if (!parameters[i].parse) {
			memcpy((char *)filter + parameters[i].text, &parameter->value,
				sizeof(parameter->value));
			return 0;
		}
		if (!parameters[i].parse(parameter->value, filter))
			return 0;
		snprintf(err, size, "%s: '%.64s' is not allowed; allowed: %s", parameter->name,
			parameter->value, parameters[i].allowed);
		return -EINVAL;
	}
	snprintf(err, size,
		"unknown parameter '%.64s'; known: listener, backend, server, client, path, limit",
		parameter->name);
	return -EINVAL;
}

int api_filter_parse(
	const struct http_request *request, struct api_filter *ret, char *err, size_t size)
{
	struct api_filter filter = {.path = -1, .limit = API_SESSIONS_LIMIT};

	for (unsigned int i = 0; i < request->nquery; i++) {
		for (unsigned int j = 0; j < i; j++)
			if (!strcmp(request->query[i].name, request->query[j].name)) {
				snprintf(err, size, "parameter '%.64s' is given twice",
					request->query[i].name);
				return -EINVAL;
			}
		if (parse_one(&request->query[i], &filter, err, size) < 0)
			return -EINVAL;
	}
	*ret = filter;
	return 0;
}

static bool name_passes(const char *wanted, const char *name)
{
	return !wanted || (name && !strcmp(wanted, name));
}

static bool server_passes(const char *wanted, const struct api_session *session)
{
	size_t len;

	if (!wanted || name_passes(wanted, session->server))
		return true;
	len = session->backend ? strlen(session->backend) : 0;
	return session->server && len && !strncmp(wanted, session->backend, len) &&
	       wanted[len] == '/' && !strcmp(wanted + len + 1, session->server);
}

static bool client_passes(const char *wanted, const struct addr *addr)
{
	char text[ADDR_TEXT_MAX];

	if (!wanted)
		return true;
	addr_format(addr, text, sizeof(text));
	return !strncmp(text, wanted, strlen(wanted));
}

static bool passes(const struct api_filter *filter, const struct api_session *session)
{
	int path = filter->path;

	return name_passes(filter->listener, session->listener) &&
	       name_passes(filter->backend, session->backend) &&
	       server_passes(filter->server, session) &&
	       (path < 0 || (int)session->dirs[DIR_C2S].path == path ||
		       (int)session->dirs[DIR_S2C].path == path) &&
	       client_passes(filter->client, &session->client_addr);
}

uint64_t api_session_bytes(const struct api_session *session, unsigned int dir)
{
	uint64_t sum = 0;

	for (unsigned int p = 0; p < PATH_COUNT; p++)
		sum += session->dirs[dir].bytes[p];
	return sum;
}

static uint64_t all_bytes(const struct api_session *session)
{
	return api_session_bytes(session, DIR_C2S) + api_session_bytes(session, DIR_S2C);
}

/* The id decides between equals: a list that is read again and again must not jump. */
static int compare(const void *a, const void *b)
{
	const struct api_session *x = a, *y = b;
	uint64_t bytes_x = all_bytes(x), bytes_y = all_bytes(y);

	if (bytes_x != bytes_y)
		return bytes_x < bytes_y ? 1 : -1;
	return x->id < y->id ? -1 : x->id > y->id;
}

size_t api_filter_apply(const struct api_filter *filter, struct api_session *sessions, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++)
		if (passes(filter, &sessions[i])) {
			if (kept != i)
				sessions[kept] = sessions[i];
			kept++;
		}
	if (kept)
		qsort(sessions, kept, sizeof(*sessions), compare);
	return kept;
}
