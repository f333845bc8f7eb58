/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns what both versions share: which one it is, and the families of addresses. */
#include "proxy_proto.h"

#include <errno.h>
#include <string.h>

int proxy_parse(const void *data, size_t len, struct proxy_header *ret, const char **ret_error)
{
	const uint8_t *bytes = data;

	/* The first byte tells: "PROXY" or the CR of the signature of version 2 (2.2). */
	if (len > 0 && bytes[0] == '\r')
		return proxy_parse_v2(bytes, len, ret, ret_error);
	return proxy_parse_v1(bytes, len, ret, ret_error);
}

void proxy_unmap(struct addr *addr)
{
	struct addr in;

	if (addr_family(addr) != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&addr->in6.sin6_addr))
		return;
	memset(&in, 0, sizeof(in));
	in.len = sizeof(in.in);
	in.in.sin_family = AF_INET;
	in.in.sin_port = addr->in6.sin6_port;
	memcpy(&in.in.sin_addr, &addr->in6.sin6_addr.s6_addr[12], sizeof(in.in.sin_addr));
	*addr = in;
}

static void map(struct addr *addr)
{
	struct addr in6;

	if (addr_family(addr) != AF_INET)
		return;
	memset(&in6, 0, sizeof(in6));
	in6.len = sizeof(in6.in6);
	in6.in6.sin6_family = AF_INET6;
	in6.in6.sin6_port = addr->in.sin_port;
	memset(&in6.in6.sin6_addr.s6_addr[10], 0xff, 2);
	memcpy(&in6.in6.sin6_addr.s6_addr[12], &addr->in.sin_addr, sizeof(addr->in.sin_addr));
	*addr = in6;
}

static bool is_inet(const struct addr *addr)
{
	return addr_family(addr) == AF_INET || addr_family(addr) == AF_INET6;
}

int proxy_pair(
	const struct addr *src, const struct addr *dst, struct addr *ret_src, struct addr *ret_dst)
{
	struct addr pair[2] = {*src, *dst};

	if (is_inet(src) && is_inet(dst)) {
		proxy_unmap(&pair[0]);
		proxy_unmap(&pair[1]);
		if (addr_family(&pair[0]) != addr_family(&pair[1])) {
			map(&pair[0]);
			map(&pair[1]);
		}
	} else if (!addr_is_unix(src) || !addr_is_unix(dst)) {
		return AF_UNSPEC;
	}
	*ret_src = pair[0];
	*ret_dst = pair[1];
	return addr_family(&pair[0]);
}
