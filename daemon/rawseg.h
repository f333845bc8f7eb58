/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP segments made by hand, in the name of a connected IPv4 socket: the only way to send old and
 * new bytes in one segment at will. Needs CAP_NET_RAW (the raw socket) and CAP_NET_ADMIN (the
 * sequence numbers).
 */
#ifndef SHUNT_RAWSEG_H
#define SHUNT_RAWSEG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "util.h"

#define RAWSEG_MAX 8192 /* payload bytes; the path's MTU is another limit */

struct rawseg {
	struct sockaddr_in from, to;
	uint32_t next_seq; /* of the first byte that the socket has not sent */
	uint32_t ack;
	uint32_t timestamp; /* a TSval that the other side will take */
	bool timestamps; /* were negotiated */
};

MUST_CHECK int rawseg_open(void); /* the raw socket, or negative errno */
/* Reads addresses and numbers from the socket, which must be idle. */
MUST_CHECK int rawseg_init(struct rawseg *seg, int fd);
/* Sends a segment whose first byte is `offset` bytes behind next_seq (in front of it when
 * negative). */
MUST_CHECK int rawseg_send(
	int raw_fd, const struct rawseg *seg, int offset, const void *data, size_t len);

#endif
