/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PROXY protocol, versions 1 and 2: who speaks, said before the first byte of a connection. As
 * in haproxy's doc/proxy-protocol.txt, whose sections the code names. Pure: knows no socket.
 */
#ifndef SHUNT_PROXY_PROTO_H
#define SHUNT_PROXY_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "util.h"

#define PROXY_V1_MAX 107 /* bytes of a line with its CRLF (2.1) */

/* What proxy_parse() takes, at most. The protocol has no bound below 64 KiB; nginx takes 4 KiB,
 * haproxy a buffer of 16 KiB. What fills it are client certificates. */
#define PROXY_HEADER_MAX 8192

/* Enough to build whatever was parsed: the addresses may grow, a checksum may be added. */
#define PROXY_BUILD_MAX (PROXY_HEADER_MAX + 216 + 7)

struct proxy_header {
	/* On 0 alone, and then nothing else is set: with less than this many bytes in all the
	 * answer stays 0, so it may become SO_RCVLOWAT. More than were given. */
	size_t need;
	unsigned int version; /* 1 or 2 */
	/* LOCAL: the proxy in front speaks for itself, as in a health check, or cannot tell for
	 * whom (haproxy with UNIX clients). */
	bool local;
	/* Both empty (len 0) where the header names none: LOCAL, UNKNOWN, UNSPEC. Then the
	 * connection's own count. IPv4-mapped ones are IPv4 here, as everywhere. */
	struct addr src, dst;
	const uint8_t *tlvs; /* points into the data given; NULL: none */
	size_t tlvs_len;
};

/*
 * Looks for one header at the start of data, which may hold less than it or more. Returns its exact
 * length, the first byte of payload stands there; or 0, more bytes are needed; or -EINVAL with
 * *ret_error set to a static text. An error is found as early as the bytes show it, and no further
 * byte mends it.
 */
MUST_CHECK int proxy_parse(
	const void *data, size_t len, struct proxy_header *ret, const char **ret_error);

/* The parts of proxy_parse(). */
MUST_CHECK int proxy_parse_v1(
	const uint8_t *data, size_t len, struct proxy_header *ret, const char **ret_error);
MUST_CHECK int proxy_parse_v2(
	const uint8_t *data, size_t len, struct proxy_header *ret, const char **ret_error);

/*
 * Both return the length, or -ENOSPC where it does not fit size. The addresses of one header are of
 * one family: IPv4 beside IPv6 is written as IPv4-mapped, and two IPv4-mapped ones as IPv4. Other
 * pairs (UNIX in version 1, UNIX beside IP, an empty one) become UNKNOWN or LOCAL: the receiver
 * then takes the connection's own addresses. Two UNIX ones are sound in version 2, but haproxy up
 * to 2.6 at least refuses them, and nginx passes over them.
 */
MUST_CHECK int proxy_build_v1(
	const struct addr *src, const struct addr *dst, void *out, size_t size);

/*
 * pass_tlvs are those of a parsed header, or NULL. Passed on is what tells of the client; what
 * belongs to one hop is not: the checksum, which is made anew if crc32c is set, and padding. LOCAL
 * has neither addresses nor TLVs (2.2); with local set they may be NULL. -EINVAL: the
 * TLVs are no list of TLVs; -EMSGSIZE: longer than a header can say.
 */
MUST_CHECK int proxy_build_v2(const struct addr *src, const struct addr *dst,
	const uint8_t *pass_tlvs, size_t pass_tlvs_len, bool crc32c, bool local, void *out,
	size_t size);

/* Both addresses in one family, which is returned: AF_INET, AF_INET6, AF_UNIX, or AF_UNSPEC with
 * nothing written. */
int proxy_pair(
	const struct addr *src, const struct addr *dst, struct addr *ret_src, struct addr *ret_dst);

/* The one form: an IPv4-mapped address becomes the IPv4 one. */
void proxy_unmap(struct addr *addr);

#endif
