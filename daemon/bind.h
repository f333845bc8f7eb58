/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens listening sockets. Runs in the supervisor, which keeps them open while workers come and go. */
#ifndef SHUNT_BIND_H
#define SHUNT_BIND_H

#include "conf.h"
#include "stats.h"

struct bound {
	int fd;
	unsigned int listener;
	unsigned int thread; /* whose it is; shared by all threads when `shared` */
	bool shared;	     /* a UNIX socket: there is no SO_REUSEPORT for it */
	bool tcp;	     /* plain TCP, not Multipath TCP and not UNIX */
	enum fallback_reason why; /* if not tcp */
};

struct bounds {
	struct bound *v;
	unsigned int n;
};

/* Every address of every listener, once per thread. Logs each address, or the error, and closes all then. */
MUST_CHECK int bind_listeners(const struct conf *conf, unsigned int threads, struct bounds *ret);
void bind_close(struct bounds *bounds);

/* A stats or control address. A UNIX socket left by a dead daemon is replaced; one in use is -EADDRINUSE.
 * Returns the descriptor, or negative errno. */
MUST_CHECK int bind_service(const struct addr *addr, unsigned int mode);

#endif
