/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A new configuration on its way from supervisor to worker: its text and which listening socket
 * serves which listener, in a sealed memfd. Both sides parse the same text, so they cannot disagree
 * about it.
 */
#ifndef SHUNT_HANDOVER_H
#define SHUNT_HANDOVER_H

#include "bind.h"

#define HANDOVER_VERSION 1

struct handover_socket {
	uint64_t id; /* as in CHANNEL_SOCKET */
	uint32_t listener; /* in the configuration's order */
	uint32_t thread;
	uint32_t shared;
	uint32_t tcp;
	uint32_t why; /* enum fallback_reason, if not tcp */
	uint32_t reserved;
};

struct handover {
	char *name; /* of the configuration file, for messages */
	char *text;
	size_t len;
	struct handover_socket *sockets;
	unsigned int nsockets;
};

struct handover_socket handover_socket(const struct bound *bound);

/* A sealed descriptor, or negative errno. */
MUST_CHECK int handover_write(
	const char *name, const char *text, size_t len, const struct bounds *bounds);

/* Checks everything but the text. 0 with *ret to be freed by handover_done(), -EPROTO, -EINVAL
 * (another version) or -ENOMEM. */
MUST_CHECK int handover_read(int fd, struct handover *ret);
void handover_done(struct handover *handover);

#endif
