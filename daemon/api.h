/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every HTTP address serves, read only: metrics, health, the JSON API and the status page.
 * Asks the worker through callbacks; knows no thread, no session and no socket.
 */
#ifndef SHUNT_API_H
#define SHUNT_API_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "addr.h"
#include "stats.h"

struct conf;
struct http_request;
struct http_response;

/* A session's id as the access log, the API and `shuntctl close` show and take it. */
#define API_SESSION_ID PRIx64

enum api_session_state {
	API_SESSION_QUEUED, /* waits for a place at a server */
	API_SESSION_CONNECTING,
	API_SESSION_OPEN,
	API_SESSION_STATE_COUNT
};

extern const char *const api_session_state_names[API_SESSION_STATE_COUNT];

struct api_session_dir {
	enum path path; /* now */
	bool overflow; /* of a sockmap direction */
	bool finished; /* its FIN was passed on: half-closed when it is one of the two */
	uint64_t bytes[PATH_COUNT];
};

struct api_session {
	uint64_t id;
	/* NULL: not chosen. Valid until the snapshot is freed: a session may be of an older
	 * configuration, so its names lie behind the array, in the same block. */
	const char *listener, *backend, *server;
	struct addr client_addr, server_addr; /* len 0: not known */
	struct api_session_dir dirs[DIR_COUNT];
	enum api_session_state state;
	uint64_t age_ms, idle_ms;
};

struct api_info {
	pid_t pid; /* of the supervisor: the one that takes signals */
	pid_t worker_pid;
	unsigned int threads;
	unsigned int generation; /* of the configuration: 1 at the start */
	bool kernel_path; /* offered to sessions at all */
	const char *kernel_path_why; /* why not; NULL with kernel_path; static, or as long as the
					worker lives */
	bool draining;
	bool not_ready; /* the operator's word */
	uint32_t max_sessions;
	uint32_t sessions; /* now */
};

/* All callbacks run on the thread of an HTTP server: on two threads at once where two servers share
 * this. */
struct api_source {
	void *arg;
	struct stats *stats;
	const char *version;
	/* The configuration of now, never NULL, which stays valid until *ret_hold is put back. */
	const struct conf *(*conf_get)(void *arg, void **ret_hold);
	void (*conf_put)(void *arg, void *hold);
	void (*info)(void *arg, struct api_info *ret);
	/* Brings the counters up to date for live sessions. NULL: they are. */
	void (*refresh)(void *arg);
	/* 0 with a malloc()ed page, or a negative errno. */
	int (*metrics)(void *arg, bool openmetrics, char **ret_body, size_t *ret_len);
	/* 0 with a malloc()ed snapshot of all live sessions (NULL where there are none), or a
	 * negative errno. */
	int (*sessions)(void *arg, struct api_session **ret, size_t *ret_n);
	/* False with one line why: draining, not ready. The servers are looked at here. NULL:
	 * always ready. */
	bool (*ready)(void *arg, char *why, size_t size);
};

/* For http_handlers.handle: arg is the struct api_source. Other methods than GET: 405. */
int api_handle(void *arg, const struct http_request *request, struct http_response *response);

/* 200 of /readyz, or one line why not. */
bool api_is_ready(const struct api_source *source, const struct conf *conf, char *why, size_t size);

/* {"error": text}. 0 or -ENOMEM. */
MUST_CHECK int api_respond_error(
	struct http_response *response, unsigned int status, const char *text);

#endif
