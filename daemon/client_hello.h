/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The server name in the first message of a TLS client (RFC 8446, 4.1.2; RFC 6066, 3), to choose a
 * backend by. The bytes are only looked at; the handshake is between client and server. Pure.
 */
#ifndef SHUNT_CLIENT_HELLO_H
#define SHUNT_CLIENT_HELLO_H

#include <stddef.h>
#include <stdint.h>

#include "util.h"

/* A name in DNS, without the dot at its end: 255 bytes on the wire are 253 as text. */
#define SERVER_NAME_MAX 253

/* The message with its 4 bytes of head: what fits one record. With post-quantum key shares they
 * come to 1.7 to 2.2 KB, with many session tickets to more. */
#define CLIENT_HELLO_MAX 16384

/* The same with the heads of its records, of which there may be more than one: these bytes are
 * enough to look at, and with them the answer is never 0. */
#define CLIENT_HELLO_WIRE_MAX (CLIENT_HELLO_MAX + 64 * 5)

struct client_hello {
	/* On 0 alone, and then nothing else is set: with less than this many bytes in all the
	 * answer stays 0, so it may become SO_RCVLOWAT. More than were given. */
	size_t need;
	char server_name[SERVER_NAME_MAX + 1]; /* as server_name_normalize() makes it */
};

/*
 * Looks for a ClientHello at the start of data, which may hold less than it or more; it may be cut
 * into records and segments anywhere. Returns the bytes up to its end, and *ret is set; 0, more
 * bytes are needed; -ENOENT, a sound hello without a name (that of SSL 3.0 too); -EPROTO, not TLS
 * (an SSLv2 hello is not), or malformed, or the name is none; -EMSGSIZE, beyond the bounds above.
 * An error is found as early as the bytes show it, and no further byte mends it. The name is that
 * of the outer hello where the client encrypts an inner one (ECH).
 */
MUST_CHECK int client_hello_parse(const void *data, size_t len, struct client_hello *ret);

/* One form of a name: lower case, without a dot at its end. NULL, or a static text of what is wrong
 * with it, and then nothing is written. Letters, digits, '-' and '_' (which DNS names of hosts do
 * not have, but the world has) in labels of 1 to 63. */
MUST_CHECK const char *server_name_normalize(
	const void *text, size_t len, char ret[SERVER_NAME_MAX + 1]);

#endif
