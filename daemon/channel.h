/* SPDX-License-Identifier: BSD-2-Clause */
/* Typed messages between supervisor and worker, over one SOCK_SEQPACKET socket pair. */
#ifndef SHUNT_CHANNEL_H
#define SHUNT_CHANNEL_H

#include <stdint.h>

#include "util.h"

enum channel_kind {
	CHANNEL_READY = 1, /* worker: serving the generation `value` */
	CHANNEL_DRAIN, /* supervisor: accept no more, leave within `value` milliseconds */
	CHANNEL_STOP, /* supervisor: leave now */
	CHANNEL_SOCKET, /* supervisor: a listening socket, known as `value`; with a descriptor */
	CHANNEL_CONF, /* supervisor: the configuration of generation `value`; with a descriptor */
	CHANNEL_CONF_FAILED, /* worker: generation `value` could not be taken, the old one stays */
	CHANNEL_RELOAD, /* worker: an operator asks for a reload; answered by CHANNEL_RELOADED */
	CHANNEL_RELOADED, /* supervisor: `text` is empty, or says why nothing changed */
	CHANNEL_DRAIN_ASKED, /* worker: an operator asks for a drain */
	CHANNEL_LOG_LEVEL, /* worker: an operator set it to `value` */
	CHANNEL_KIND_END
};

#define CHANNEL_TEXT_MAX 512

struct channel_message {
	uint32_t kind;
	uint32_t reserved;
	uint64_t value;
	char text[CHANNEL_TEXT_MAX]; /* terminated */
};

/* ret_fds[0] is the supervisor's, [1] the worker's. Both close-on-exec. */
MUST_CHECK int channel_open(int ret_fds[2]);

/* pass_fd: a descriptor to send along, or -1; it stays the caller's. text may be NULL. */
MUST_CHECK int channel_send(
	int fd, enum channel_kind kind, uint64_t value, int pass_fd, const char *text);

/*
 * 0, -EPIPE when the other side is gone, -EAGAIN, -EPROTO for anything that is not one whole
 * message of a known kind. *ret_fd is a descriptor that came along, now the caller's, or -1.
 */
MUST_CHECK int channel_receive(int fd, struct channel_message *ret, int *ret_fd);

#endif
