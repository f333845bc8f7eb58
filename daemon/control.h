/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The changes that an operator can make, served on the control socket beside everything of api.h.
 * Who may connect is decided by the mode of the socket; who did is logged with each change.
 */
#ifndef SHUNT_CONTROL_H
#define SHUNT_CONTROL_H

#include "api.h"
#include "log.h"
#include "server_state.h"

enum control_kind {
	CONTROL_SERVER,
	CONTROL_CLOSE_SESSION,
	CONTROL_RELOAD,
	CONTROL_UPGRADE,
	CONTROL_DRAIN,
	CONTROL_READY,
	CONTROL_LOG_LEVEL,
	CONTROL_KIND_COUNT
};

struct control_request {
	enum control_kind kind;
	char server[STATS_NAME_MAX]; /* "backend/server" */
	bool has_state, has_weight;
	enum server_admin state;
	int32_t weight; /* or SERVER_WEIGHT_CONFIGURED */
	uint64_t session;
	bool ready;
	enum log_level level;
};

extern const char *const control_level_names[]; /* by enum log_level */

/*
 * path as it was sent, percent-encoded; body not terminated. 0; -ENOENT: no change has this path;
 * or the status to answer with (400, 404, 405) and *err says where and what. *ret is written only
 * on success. Pure.
 */
MUST_CHECK int control_parse(const char *method, const char *path, const void *body, size_t len,
	struct control_request *ret, char *err, size_t size);

/*
 * Each is called on the control server's thread, and may block it for some seconds. NULL: answered
 * with 501. Each returns 0 or a negative errno: -ENOENT is answered with 404, -EBUSY and -EALREADY
 * with 409, -EINVAL (refused as it is, such as a bad configuration file) with 422, -EOPNOTSUPP with
 * 501, -ETIMEDOUT with 504, others with 500; the text is *why where there is one and it was filled.
 */
struct control_ops {
	void *arg;
	int (*close_session)(void *arg, uint64_t id);
	int (*reload)(void *arg, char *why, size_t size); /* waits for the outcome */
	int (*upgrade)(void *arg, char *why, size_t size);
	int (*drain)(void *arg);
	int (*set_ready)(void *arg, bool ready);
	int (*set_log_level)(void *arg, enum log_level level);
	/* After stats->server_state[slot] has changed. NULL: nobody has to know. */
	void (*server_changed)(void *arg, unsigned int slot);
};

struct control {
	struct api_source *source;
	struct control_ops ops;
};

/* For http_handlers.handle, with .writable: arg is the struct control. */
int control_handle(void *arg, const struct http_request *request, struct http_response *response);

#endif
