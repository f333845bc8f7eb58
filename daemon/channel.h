/* SPDX-License-Identifier: BSD-2-Clause */
/* Typed messages between supervisor and worker, over one SOCK_SEQPACKET socket pair. */
#ifndef SHUNT_CHANNEL_H
#define SHUNT_CHANNEL_H

#include <stdint.h>

#include "util.h"

enum channel_kind {
	CHANNEL_READY = 1, /* worker: serving */
	CHANNEL_DRAIN,	   /* supervisor: accept no more, leave within `value` milliseconds */
	CHANNEL_STOP,	   /* supervisor: leave now */
};

struct channel_message {
	uint32_t kind;
	uint32_t reserved;
	uint64_t value;
};

/* ret_fds[0] is the supervisor's, [1] the worker's. Both close-on-exec. */
MUST_CHECK int channel_open(int ret_fds[2]);
MUST_CHECK int channel_send(int fd, enum channel_kind kind, uint64_t value);
/* 0, -EPIPE when the other side is gone, -EAGAIN, -EPROTO for anything that is not one whole message. */
MUST_CHECK int channel_receive(int fd, struct channel_message *ret);

#endif
