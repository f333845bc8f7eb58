/* SPDX-License-Identifier: BSD-2-Clause */
/* Version 2, binary (section 2.2): 16 bytes of head, then a block of addresses and TLVs. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "crc32c.h"
#include "proxy_proto.h"

#define HEAD_LEN 16
#define SIGNATURE_LEN 12
#define VERSION 0x20
#define CRC_LEN 4
#define UNIQUE_ID_MAX 128
#define SSL_FIXED_LEN 5

enum command { COMMAND_LOCAL = 0, COMMAND_PROXY = 1 };
enum family { FAMILY_UNSPEC, FAMILY_INET, FAMILY_INET6, FAMILY_UNIX, FAMILIES };
enum protocol { PROTOCOL_UNSPEC, PROTOCOL_STREAM, PROTOCOL_DGRAM, PROTOCOLS };
enum { TLV_CRC32C = 0x03, TLV_NOOP = 0x04, TLV_UNIQUE_ID = 0x05, TLV_SSL = 0x20 };

static const uint8_t signature[SIGNATURE_LEN] = "\r\n\r\n\0\r\nQUIT\n";

static const size_t addrs_len[FAMILIES] = {
	[FAMILY_INET] = 2 * 4 + 2 * 2,
	[FAMILY_INET6] = 2 * 16 + 2 * 2,
	[FAMILY_UNIX] = 2 * 108,
};

struct tlv {
	uint8_t type;
	const uint8_t *value;
	size_t len;
};

static size_t get16(const uint8_t *bytes)
{
	return (size_t)bytes[0] << 8 | bytes[1];
}

static uint32_t get32(const uint8_t *bytes)
{
	return (uint32_t)get16(bytes) << 16 | (uint32_t)get16(bytes + 2);
}

/* False: what is left is no TLV. */
static bool next_tlv(const uint8_t **at, const uint8_t *end, struct tlv *ret)
{
	const uint8_t *p = *at;

	if (end - p < 3 || (size_t)(end - p - 3) < get16(p + 1))
		return false;
	*ret = (struct tlv){.type = p[0], .value = p + 3, .len = get16(p + 1)};
	*at = ret->value + ret->len;
	return true;
}

/* The value of PP2_TYPE_SSL holds TLVs of its own behind a byte and a 32 bit number (2.2.6). */
static bool ssl_is_sound(const struct tlv *ssl)
{
	const uint8_t *at = ssl->value + SSL_FIXED_LEN, *end = ssl->value + ssl->len;
	struct tlv tlv;

	if (ssl->len < SSL_FIXED_LEN)
		return false;
	while (at < end) {
		if (!next_tlv(&at, end, &tlv))
			return false;
	}
	return true;
}

/* NULL, and *ret_crc the value of the checksum or NULL; or what is wrong. */
static const char *scan_tlvs(const uint8_t *tlvs, size_t len, const uint8_t **ret_crc)
{
	const uint8_t *at = tlvs, *end = tlvs + len, *crc = NULL;
	struct tlv tlv;

	while (at < end) {
		if (!next_tlv(&at, end, &tlv))
			return "PROXY v2: the TLVs do not end with the header";
		if (tlv.type == TLV_CRC32C) {
			if (tlv.len != CRC_LEN)
				return "PROXY v2: a checksum that is not of 4 bytes";
			if (crc)
				return "PROXY v2: two checksums";
			crc = tlv.value;
		}
		if (tlv.type == TLV_UNIQUE_ID && tlv.len > UNIQUE_ID_MAX)
			return "PROXY v2: a unique ID of more than 128 bytes";
		if (tlv.type == TLV_SSL && !ssl_is_sound(&tlv))
			return "PROXY v2: a malformed SSL TLV";
	}
	*ret_crc = crc;
	return NULL;
}

/* Of the whole header, with the four bytes of the checksum taken as zero (2.2.3). */
static uint32_t checksum(const uint8_t *header, size_t len, const uint8_t *crc)
{
	static const uint8_t zeros[CRC_LEN];
	const uint8_t *rest = crc + CRC_LEN;
	uint32_t sum = crc32c(0, header, (size_t)(crc - header));

	sum = crc32c(sum, zeros, sizeof(zeros));
	return crc32c(sum, rest, len - (size_t)(rest - header));
}

static void get_inet(struct addr *addr, const uint8_t *ip, const uint8_t *port)
{
	addr->len = sizeof(addr->in);
	addr->in.sin_family = AF_INET;
	memcpy(&addr->in.sin_addr, ip, 4);
	memcpy(&addr->in.sin_port, port, 2);
}

static void get_inet6(struct addr *addr, const uint8_t *ip, const uint8_t *port)
{
	addr->len = sizeof(addr->in6);
	addr->in6.sin6_family = AF_INET6;
	memcpy(&addr->in6.sin6_addr, ip, 16);
	memcpy(&addr->in6.sin6_port, port, 2);
	proxy_unmap(addr);
}

/* The protocol has no length for the name, only zeros behind it: a path ends at the first one, an
 * abstract name (which begins with one) at the last byte that is none; zeros alone are no name. */
static void get_unix(struct addr *addr, const uint8_t *name)
{
	size_t len = sizeof(addr->un.sun_path);

	if (name[0])
		len = strnlen((const char *)name, len);
	else
		while (len && !name[len - 1])
			len--;
	addr->un.sun_family = AF_UNIX;
	memcpy(addr->un.sun_path, name, len);
	if (name[0] && len < sizeof(addr->un.sun_path))
		len++; /* a path is counted with its NUL, where there is room for one */
	addr->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

static void get_addrs(enum family family, const uint8_t *block, struct proxy_header *ret)
{
	if (family == FAMILY_INET) {
		get_inet(&ret->src, block, block + 8);
		get_inet(&ret->dst, block + 4, block + 10);
	} else if (family == FAMILY_INET6) {
		get_inet6(&ret->src, block, block + 32);
		get_inet6(&ret->dst, block + 16, block + 34);
	} else if (family == FAMILY_UNIX) {
		get_unix(&ret->src, block);
		get_unix(&ret->dst, block + 108);
	}
}

/* As far as the bytes go, up to the length: a wrong header ends as soon as it shows. */
static const char *check_head(const uint8_t *data, size_t len)
{
	if (memcmp(data, signature, MIN(len, SIGNATURE_LEN)) != 0)
		return "no PROXY header";
	if (len > 12 && (data[12] & 0xf0) != VERSION)
		return "PROXY v2: the version is not 2";
	if (len > 12 && (data[12] & 0x0f) > COMMAND_PROXY)
		return "PROXY v2: the command is neither LOCAL nor PROXY";
	if (len > 12 && (data[12] & 0x0f) == COMMAND_LOCAL)
		return NULL; /* its family must be ignored */
	if (len > 13 && data[13] >> 4 >= FAMILIES)
		return "PROXY v2: an unknown address family";
	if (len > 13 && (data[13] & 0x0f) >= PROTOCOLS)
		return "PROXY v2: an unknown transport protocol";
	/* Valid, but a receiver is free to refuse what it cannot have relayed. */
	if (len > 13 && (data[13] & 0x0f) == PROTOCOL_DGRAM)
		return "PROXY v2: datagrams on a stream";
	return NULL;
}

/* With LOCAL the whole block must be skipped, whatever it holds, and with UNSPEC nobody knows where
 * addresses end: there TLVs count only where they can be nothing else. A wrong checksum counts
 * everywhere (2.2.3). */
static const char *parse_block(const uint8_t *data, size_t len, struct proxy_header *ret)
{
	unsigned int family = data[13] >> 4;
	bool named = !ret->local && family != FAMILY_UNSPEC && (data[13] & 0x0f) == PROTOCOL_STREAM;
	size_t skip = HEAD_LEN + (family < FAMILIES ? addrs_len[family] : 0);
	const uint8_t *crc = NULL;
	const char *error;

	if (skip > len)
		return named ? "PROXY v2: too short for its addresses" : NULL;
	error = scan_tlvs(data + skip, len - skip, &crc);
	if (error)
		return named ? error : NULL;
	if (crc && get32(crc) != checksum(data, len, crc))
		return "PROXY v2: the checksum is wrong";
	if (named)
		get_addrs((enum family)family, data + HEAD_LEN, ret);
	if (!ret->local && len > skip) {
		ret->tlvs = data + skip;
		ret->tlvs_len = len - skip;
	}
	return NULL;
}

int proxy_parse_v2(
	const uint8_t *data, size_t len, struct proxy_header *ret, const char **ret_error)
{
	const char *error = check_head(data, len);
	struct proxy_header header;
	size_t total = HEAD_LEN;

	memset(&header, 0, sizeof(header));
	if (!error && len >= HEAD_LEN) {
		total += get16(data + 14);
		if (total > PROXY_HEADER_MAX)
			error = "PROXY v2: longer than 8192 bytes";
	}
	if (!error && len < total) {
		ret->need = total;
		return 0;
	}
	if (!error) {
		header.version = 2;
		header.local = (data[12] & 0x0f) == COMMAND_LOCAL;
		error = parse_block(data, total, &header);
	}
	if (error) {
		*ret_error = error;
		return -EINVAL;
	}
	*ret = header;
	return (int)total;
}

/* --- building ----------------------------------------------------------------------------------
 */

struct out {
	uint8_t *bytes;
	size_t len, size; /* what does not fit is counted in len all the same */
};

static void put(struct out *out, const void *data, size_t len)
{
	if (out->len <= out->size && out->size - out->len >= len)
		memcpy(out->bytes + out->len, data, len);
	out->len += len;
}

static void put_unix(struct out *out, const struct addr *addr)
{
	uint8_t name[sizeof(addr->un.sun_path)] = {0};
	size_t offset = offsetof(struct sockaddr_un, sun_path);
	size_t len = addr->len > offset ? MIN(addr->len - offset, sizeof(name)) : 0;

	/* A path may have anything behind its NUL. */
	if (len && addr->un.sun_path[0])
		len = strnlen(addr->un.sun_path, len);
	memcpy(name, addr->un.sun_path, len);
	put(out, name, sizeof(name));
}

static void put_addrs(struct out *out, int family, const struct addr *src, const struct addr *dst)
{
	switch (family) {
	case AF_INET:
		put(out, &src->in.sin_addr, 4);
		put(out, &dst->in.sin_addr, 4);
		put(out, &src->in.sin_port, 2);
		put(out, &dst->in.sin_port, 2);
		break;
	case AF_INET6:
		put(out, &src->in6.sin6_addr, 16);
		put(out, &dst->in6.sin6_addr, 16);
		put(out, &src->in6.sin6_port, 2);
		put(out, &dst->in6.sin6_port, 2);
		break;
	case AF_UNIX:
		put_unix(out, src);
		put_unix(out, dst);
		break;
	}
}

static uint8_t wire_family(int family)
{
	switch (family) {
	case AF_INET:
		return FAMILY_INET << 4 | PROTOCOL_STREAM;
	case AF_INET6:
		return FAMILY_INET6 << 4 | PROTOCOL_STREAM;
	case AF_UNIX:
		return FAMILY_UNIX << 4 | PROTOCOL_STREAM;
	default:
		return FAMILY_UNSPEC << 4 | PROTOCOL_UNSPEC;
	}
}

static int put_tlvs(struct out *out, const uint8_t *tlvs, size_t len)
{
	const uint8_t *at = tlvs, *crc;
	struct tlv tlv;

	if (!len)
		return 0;
	if (scan_tlvs(tlvs, len, &crc))
		return -EINVAL;
	while (next_tlv(&at, tlvs + len, &tlv)) {
		if (tlv.type != TLV_CRC32C && tlv.type != TLV_NOOP)
			put(out, tlv.value - 3, tlv.len + 3);
	}
	return 0;
}

/* The length goes into the head, and after it the checksum over all. */
static int finish(struct out *out, bool with_crc)
{
	static const uint8_t empty_crc[3 + CRC_LEN] = {TLV_CRC32C, 0, CRC_LEN};
	uint16_t block;

	if (with_crc)
		put(out, empty_crc, sizeof(empty_crc));
	if (out->len - HEAD_LEN > UINT16_MAX)
		return -EMSGSIZE;
	if (out->len > out->size)
		return -ENOSPC;
	block = htons((uint16_t)(out->len - HEAD_LEN));
	memcpy(out->bytes + 14, &block, sizeof(block));
	if (with_crc) {
		uint32_t sum = htonl(crc32c(0, out->bytes, out->len));

		memcpy(out->bytes + out->len - CRC_LEN, &sum, CRC_LEN);
	}
	return (int)out->len;
}

int proxy_build_v2(const struct addr *src, const struct addr *dst, const uint8_t *pass_tlvs,
	size_t pass_tlvs_len, bool crc32c, bool local, void *out, size_t size)
{
	struct out o = {.bytes = out, .size = size};
	struct addr a, b;
	int family = local ? AF_UNSPEC : proxy_pair(src, dst, &a, &b), err;
	/* PROXY with UNSPEC would do as well, but haproxy up to 2.6 at least refuses that. It sends
	 * LOCAL itself. */
	bool named = family != AF_UNSPEC;
	uint8_t tail[4] = {VERSION | (named ? COMMAND_PROXY : COMMAND_LOCAL), wire_family(family)};

	put(&o, signature, sizeof(signature));
	put(&o, tail, sizeof(tail));
	if (named) {
		put_addrs(&o, family, &a, &b);
		err = put_tlvs(&o, pass_tlvs, pass_tlvs_len);
		if (err < 0)
			return err;
	}
	return finish(&o, crc32c);
}
