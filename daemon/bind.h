/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens listening sockets. Runs in the supervisor, which keeps them open while workers come and go.
 */
#ifndef SHUNT_BIND_H
#define SHUNT_BIND_H

#include "conf.h"
#include "stats.h"

struct bound {
	uint64_t id; /* never used again for another socket */
	int fd;
	struct addr addr; /* as configured: port 0 stays 0 */
	struct conf_bind_options options;
	unsigned int listener;
	unsigned int thread; /* whose it is; of all threads when `shared` */
	bool shared; /* a UNIX socket: there is no SO_REUSEPORT for it */
	bool tcp; /* plain TCP, not Multipath TCP and not UNIX */
	bool kept; /* taken over from the set before */
	enum fallback_reason why; /* if not tcp */
};

struct bounds {
	struct bound *v;
	unsigned int n;
};

/*
 * Every address of every listener, once per thread. What `old` (may be NULL) has already open with
 * the same address and options is kept: the same descriptor, marked in both sets. Logs each new
 * address, or the error, and closes what it opened then; `old` is not changed but for its marks.
 */
MUST_CHECK int bind_listeners(
	const struct conf *conf, unsigned int threads, struct bounds *old, struct bounds *ret);

/* Keepalive and the like of what was kept: only when the new configuration stands. */
void bind_tune_kept(const struct conf *conf, const struct bounds *bounds);

/* Closes all, or after a successful bind_listeners() those that were not kept; frees the set. */
void bind_close(struct bounds *bounds);
void bind_close_replaced(struct bounds *old);

/* A stats or control address. A UNIX socket left by a dead daemon is replaced; one in use is
 * -EADDRINUSE. Returns the descriptor, or negative errno. */
MUST_CHECK int bind_service(const struct addr *addr, unsigned int mode);

#endif
