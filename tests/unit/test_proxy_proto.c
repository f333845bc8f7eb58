/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "proxy_proto.h"

#define SEEDS "tests/fuzz/fuzz_proxy.in"
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define IN_ADDRS "\300\0\2\1\306\63\144\2\334\004\001\273" /* 192.0.2.1:56324 198.51.100.2:443 */

struct bytes {
	size_t len;
	uint8_t v[PROXY_BUILD_MAX + 1024];
};

/* From a copy that ends where the bytes end, so that a sanitizer sees a read beyond them. */
static int parse(const uint8_t *data, size_t len, struct proxy_header *ret, const char **ret_error)
{
	uint8_t *copy = malloc(len ? len : 1);
	int result;

	assert_non_null(copy);
	memcpy(copy, data, len);
	result = proxy_parse(copy, len, ret, ret_error);
	if (result > 0 && ret->tlvs)
		ret->tlvs = data + (ret->tlvs - copy);
	free(copy);
	return result;
}

static void same_header(const struct proxy_header *a, const struct proxy_header *b)
{
	assert_int_equal(a->version, b->version);
	assert_int_equal(a->local, b->local);
	assert_true(addr_equal(&a->src, &b->src));
	assert_true(addr_equal(&a->dst, &b->dst));
	assert_ptr_equal(a->tlvs, b->tlvs);
	assert_int_equal(a->tlvs_len, b->tlvs_len);
}

/* Wherever the bytes are cut, the part before the cut says the same or asks for more, for no more
 * than there is; and what is wrong stays wrong. */
static int each_prefix_agrees(const uint8_t *data, size_t len)
{
	struct proxy_header whole, part;
	const char *error = NULL;
	int result = parse(data, len, &whole, &error), last = 0;

	for (size_t n = 0; n <= len; n++) {
		int now = parse(data, n, &part, &error);

		if (now == 0)
			assert_true(part.need > n);
		if (result > 0 && now == 0)
			assert_true(part.need <= (size_t)result);
		if (result > 0)
			assert_int_equal(now, n < (size_t)result ? 0 : result);
		else
			assert_true(now == 0 || now == result);
		if (now > 0)
			same_header(&part, &whole);
		assert_true(last == 0 || now == last);
		last = now;
	}
	return result;
}

static struct proxy_header taken(const void *data, size_t len, size_t expected)
{
	struct proxy_header header;
	const char *error = "";

	if (proxy_parse(data, len, &header, &error) < 0)
		fail_msg("refused: %s", error);
	assert_int_equal(each_prefix_agrees(data, len), expected);
	return header;
}

static void refused(const void *data, size_t len, const char *words)
{
	struct proxy_header header, before;
	const char *error = NULL;

	memset(&header, 0x5a, sizeof(header));
	before = header;
	if (proxy_parse(data, len, &header, &error) != -EINVAL)
		fail_msg("not refused: '%s' of %zu bytes", words, len);
	if (!error || !strstr(error, words))
		fail_msg("'%s' does not say '%s'", error ? error : "NULL", words);
	assert_memory_equal(&header, &before, sizeof(header));
	assert_int_equal(each_prefix_agrees(data, len), -EINVAL);
}

static void text_is(const struct addr *addr, const char *expected)
{
	char text[ADDR_TEXT_MAX];

	addr_format(addr, text, sizeof(text));
	assert_string_equal(addr->len ? text : "", expected);
}

static struct addr addr_of(const char *text)
{
	const char *error;
	struct addr addr;

	memset(&addr, 0, sizeof(addr));
	if (text[0])
		assert_int_equal(addr_parse(text, &addr, &error), 0);
	return addr;
}

/* In the one form: an IPv4-mapped address would give the same text, but not the same bytes. */
static void addr_is(const struct addr *addr, const char *expected)
{
	struct addr plain = addr_of(expected);

	text_is(addr, expected);
	assert_int_equal(addr_family(addr), addr_family(&plain));
	assert_int_equal(addr->len, plain.len);
}

static void v1_is(const char *line, const char *src, const char *dst)
{
	char with_payload[256];
	int n = snprintf(
		with_payload, sizeof(with_payload), "%s%s", line, "PROXY TCP4 payload\r\n");
	struct proxy_header header = taken(with_payload, (size_t)n, strlen(line));

	assert_int_equal(header.version, 1);
	assert_false(header.local);
	assert_null(header.tlvs);
	addr_is(&header.src, src);
	addr_is(&header.dst, dst);
}

static void v1_names_both_ends(void **state)
{
	(void)state;
	v1_is("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324",
		"192.168.0.11:443");
	v1_is("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0:0",
		"255.255.255.255:65535");
	v1_is("PROXY TCP6 2001:DB8::1 ::1 1 65535\r\n", "[2001:db8::1]:1", "[::1]:65535");
	v1_is("PROXY TCP6 :: :: 0 0\r\n", "[::]:0", "[::]:0");
	v1_is("PROXY TCP6 ::ffff:1.2.3.4 ::ffff:102:305 1 2\r\n", "1.2.3.4:1", "1.2.3.5:2");
}

static void v1_unknown_ignores_the_rest_of_the_line(void **state)
{
	char longest[PROXY_V1_MAX + 1] = "PROXY UNKNOWN ";

	(void)state;
	v1_is("PROXY UNKNOWN\r\n", "", "");
	v1_is("PROXY UNKNOWN \r\n", "", "");
	v1_is("PROXY UNKNOWN 1.2.3.4  \x01\xff\r\n", "", "");
	memset(longest + 14, 'f', PROXY_V1_MAX - 16);
	memcpy(longest + PROXY_V1_MAX - 2, "\r\n", 3);
	v1_is(longest, "", "");
	taken("PROXY UNKNOWN a\0b\r\n", 19, 19);
}

static void v1_is_read_strictly(void **state)
{
	static const struct {
		const char *line, *words;
	} cases[] = {
		{"GET / HTTP/1.1\r\n", "no PROXY header"},
		{"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "no PROXY header"},
		{"PROXY\tTCP4 1.2.3.4 1.2.3.4 1 2\r\n", "no PROXY header"},
		{"X", "no PROXY header"},
		{"PROXY X", "not TCP4, TCP6 or UNKNOWN"},
		{"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "not TCP4, TCP6 or UNKNOWN"},
		{"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "not TCP4, TCP6 or UNKNOWN"},
		{"PROXY UNKNOWNX\r\n", "not TCP4, TCP6 or UNKNOWN"},
		{"PROXY \r\n", "not TCP4, TCP6 or UNKNOWN"},
		{"PROXY TCP4\r\n", "not TCP4, TCP6 or UNKNOWN"},
		{"PROXY TCP4 \r\n", "single spaces"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "single spaces"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "single spaces"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "single spaces"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4  2\r\n", "source port"},
		{"PROXY TCP4  1.2.3.4 1 2\r\n", "source is no address"},
		{"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", "source is no address"},
		{"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", "source is no address"},
		{"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", "source is no address"},
		{"PROXY TCP4 ::1 ::1 1 2\r\n", "source is no address"},
		{"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "source is no address"},
		{"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", "source is no address"},
		{"PROXY TCP6 ::1 1:2:3:4:5:6:7 1 2\r\n", "destination is no address"},
		{"PROXY TCP6 ::1 1::2::3 1 2\r\n", "destination is no address"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4.5 1 2\r\n", "destination is no address"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "source port"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "source port"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 18446744073709551617 2\r\n", "source port"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "source port"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 -2\r\n", "destination port"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n", "destination port"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 2a\r\n", "destination port"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", "destination port"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "LF without a CR"},
		{"PROXY UNKNOWN\n", "not TCP4, TCP6 or UNKNOWN"},
		{"PROXY UNKNOWN \n", "LF without a CR"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX", "CR without an LF"},
		{"PROXY UNKNOWN \r\r\n", "CR without an LF"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		refused(cases[i].line, strlen(cases[i].line), cases[i].words);
	refused("PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n", 34, "single spaces");
	refused("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\0\r\n", 33, "single spaces");
}

static void v1_ends_within_107_bytes(void **state)
{
	char line[128];

	(void)state;
	memset(line, 'f', sizeof(line));
	memcpy(line, "PROXY UNKNOWN ", 14);
	refused(line, sizeof(line), "longer than 107");
	/* One byte too long, whether all is there or only what shows it. */
	memcpy(line + 106, "\r\n", 2);
	refused(line, 108, "longer than 107");
	refused(line, 107, "longer than 107");
	refused(line, 106, "longer than 107");
	assert_int_equal(each_prefix_agrees((uint8_t *)line, 105), 0);
}

/* A header of version 2 in which the length is right. */
static struct bytes v2(unsigned int command, unsigned int family, const void *block, size_t len)
{
	struct bytes header = {.len = 16 + len};

	memcpy(header.v, SIGNATURE, 12);
	header.v[12] = (uint8_t)(0x20 | command);
	header.v[13] = (uint8_t)family;
	header.v[14] = (uint8_t)(len >> 8);
	header.v[15] = (uint8_t)len;
	if (len)
		memcpy(header.v + 16, block, len);
	return header;
}

static struct bytes v2_in(const void *tlvs, size_t len)
{
	uint8_t block[PROXY_HEADER_MAX] = IN_ADDRS;

	memcpy(block + 12, tlvs, len);
	return v2(1, 0x11, block, 12 + len);
}

#define REFUSED_V2(command, family, block, words)                                \
	do {                                                                     \
		struct bytes b_ = v2(command, family, block, sizeof(block) - 1); \
		refused(b_.v, b_.len, words);                                    \
	} while (0)
#define REFUSED_TLVS(tlvs, words)                                \
	do {                                                     \
		struct bytes b_ = v2_in(tlvs, sizeof(tlvs) - 1); \
		refused(b_.v, b_.len, words);                    \
	} while (0)

static void v2_is_read_strictly(void **state)
{
	struct bytes header;

	(void)state;
	refused(SIGNATURE "\x11", 13, "version is not 2");
	refused(SIGNATURE "\x31", 13, "version is not 2");
	refused("\r\n\r\n\1", 5, "no PROXY header");
	REFUSED_V2(2, 0x11, IN_ADDRS, "neither LOCAL nor PROXY");
	REFUSED_V2(15, 0x11, IN_ADDRS, "neither LOCAL nor PROXY");
	REFUSED_V2(1, 0x41, IN_ADDRS, "unknown address family");
	REFUSED_V2(1, 0x13, IN_ADDRS, "unknown transport protocol");
	REFUSED_V2(1, 0x12, IN_ADDRS, "datagrams");
	REFUSED_V2(1, 0x22, IN_ADDRS, "datagrams");
	REFUSED_V2(1, 0x32, IN_ADDRS, "datagrams");
	REFUSED_V2(1, 0x11, "\1\2\3\4\1\2\3\4\0\1\0", "too short");
	REFUSED_V2(1, 0x21, IN_ADDRS, "too short");
	REFUSED_V2(1, 0x31, IN_ADDRS, "too short");
	REFUSED_TLVS("\1", "do not end with the header");
	REFUSED_TLVS("\1\0", "do not end with the header");
	REFUSED_TLVS("\1\0\3ab", "do not end with the header");
	REFUSED_TLVS("\1\0\2abX", "do not end with the header");
	REFUSED_TLVS("\3\0\3abc", "not of 4 bytes");
	REFUSED_TLVS("\3\0\4abcd\3\0\4abcd", "two checksums");
	REFUSED_TLVS("\3\0\4abcd", "checksum is wrong");
	REFUSED_TLVS("\x20\0\4abcd", "malformed SSL");
	REFUSED_TLVS("\x20\0\7abcde\1\0", "malformed SSL");
	header = v2_in("\5\0\x81", 3);
	header.len += 129;
	header.v[15] = (uint8_t)(header.v[15] + 129);
	refused(header.v, header.len, "more than 128");
}

static void v2_is_bounded(void **state)
{
	struct bytes header = v2(1, 0, NULL, 0);
	struct proxy_header ret;

	(void)state;
	header.v[14] = (PROXY_HEADER_MAX - 16) >> 8;
	header.v[15] = (PROXY_HEADER_MAX - 16) & 255;
	header.len = PROXY_HEADER_MAX;
	ret = taken(header.v, header.len + 7, PROXY_HEADER_MAX);
	assert_int_equal(ret.src.len, 0);
	header.v[15]++;
	refused(header.v, 16, "longer than 8192");
	header.v[14] = header.v[15] = 255;
	refused(header.v, 16, "longer than 8192");
}

static void v2_names_both_ends(void **state)
{
	uint8_t in6[36] = {
		0x20, 1, 0xd, 0xb8, [15] = 9, [26] = 0xff, 0xff, 1, 2, 3, 4, 0, 80, 1, 187};
	uint8_t un[216] = "/run/client.sock\0leftover";
	struct bytes header = v2_in("\1\0\2h2", 5);
	struct proxy_header ret;

	(void)state;
	memcpy(header.v + header.len, "payload", 7);
	ret = taken(header.v, header.len + 7, header.len);
	assert_int_equal(ret.version, 2);
	assert_false(ret.local);
	addr_is(&ret.src, "192.0.2.1:56324");
	addr_is(&ret.dst, "198.51.100.2:443");
	assert_ptr_equal(ret.tlvs, header.v + 28);
	assert_int_equal(ret.tlvs_len, 5);
	header = v2(1, 0x21, in6, sizeof(in6));
	ret = taken(header.v, header.len, header.len);
	addr_is(&ret.src, "[2001:db8::9]:80");
	addr_is(&ret.dst, "1.2.3.4:443");
	assert_null(ret.tlvs);
	memcpy(un + 108, "\0abstract", 9);
	header = v2(1, 0x31, un, sizeof(un));
	ret = taken(header.v, header.len, header.len);
	addr_is(&ret.src, "unix:/run/client.sock");
	addr_is(&ret.dst, "unix:@abstract");
}

static void v2_without_addresses_leaves_the_connections_own(void **state)
{
	static const struct {
		unsigned int command, family;
		const char *block;
		size_t len, tlvs_len;
	} cases[] = {
		{0, 0x00, "", 0, 0},
		{0, 0x00, "\1\0\2h2", 5, 0}, /* discarded with the block */
		{0, 0x11, IN_ADDRS, 12, 0},
		{0, 0x12, "junk", 4, 0},
		{0, 0xff, "junk", 4, 0},
		{1, 0x00, "", 0, 0},
		{1, 0x00, "\1\0\2h2", 5, 5},
		{1, 0x00, IN_ADDRS, 12, 0},
		{1, 0x01, "x", 1, 0},
		{1, 0x10, IN_ADDRS "\1\0\2h2", 17, 5},
		{1, 0x20, "short", 5, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct bytes header =
			v2(cases[i].command, cases[i].family, cases[i].block, cases[i].len);
		struct proxy_header ret = taken(header.v, header.len, header.len);

		assert_int_equal(ret.local, cases[i].command == 0);
		assert_int_equal(ret.src.len, 0);
		assert_int_equal(ret.dst.len, 0);
		assert_int_equal(ret.tlvs_len, cases[i].tlvs_len);
	}
	/* Even there a checksum counts. */
	REFUSED_V2(0, 0x00, "\3\0\4abcd", "checksum is wrong");
	REFUSED_V2(1, 0x00, "\3\0\4abcd", "checksum is wrong");
}

static void crc32c_gives_the_published_values(void **state)
{
	uint8_t block[32];

	(void)state;
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
	memset(block, 0, sizeof(block));
	assert_int_equal(crc32c(0, block, sizeof(block)), 0x8a9136aa); /* RFC 3720, B.4 */
	memset(block, 0xff, sizeof(block));
	assert_int_equal(crc32c(0, block, sizeof(block)), 0x62a8ab43);
	assert_int_equal(crc32c(7, NULL, 0), 7);
}

static void checksum_notices_each_flipped_bit(void **state)
{
	struct addr src = addr_of("1.2.3.4:5"), dst = addr_of("6.7.8.9:10");
	struct proxy_header ret;
	const char *error;
	uint8_t out[128];
	int len = proxy_build_v2(
		&src, &dst, (const uint8_t *)"\1\0\2h2", 5, true, false, out, sizeof(out));

	(void)state;
	assert_int_equal(len, 16 + 12 + 5 + 7);
	assert_int_equal(proxy_parse(out, (size_t)len, &ret, &error), len);
	/* The addresses, the value of the TLV, the checksum. */
	for (int bit = 16 * 8; bit < len * 8; bit++) {
		if (bit / 8 >= 28 && bit / 8 < 31)
			continue;
		if (bit / 8 >= 33 && bit / 8 < 36)
			continue;
		out[bit / 8] ^= (uint8_t)(1 << bit % 8);
		refused(out, (size_t)len, "checksum is wrong");
		out[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

static void v1_line_is(const char *src, const char *dst, const char *expected)
{
	struct addr a = addr_of(src), b = addr_of(dst);
	char out[PROXY_V1_MAX + 1];
	int len = proxy_build_v1(&a, &b, out, sizeof(out));

	assert_int_equal(len, strlen(expected));
	assert_memory_equal(out, expected, strlen(expected));
	for (size_t size = 0; size < (size_t)len; size++)
		assert_int_equal(proxy_build_v1(&a, &b, out, size), -ENOSPC);
	assert_int_equal(each_prefix_agrees((uint8_t *)out, (size_t)len), len);
}

static struct addr mapped(const char *text)
{
	struct addr in = addr_of(text), in6 = addr_of("[::ffff:0:0]:0");

	memset(&in6, 0, sizeof(in6));
	in6.len = sizeof(in6.in6);
	in6.in6.sin6_family = AF_INET6;
	in6.in6.sin6_port = in.in.sin_port;
	memset(in6.in6.sin6_addr.s6_addr + 10, 0xff, 2);
	memcpy(in6.in6.sin6_addr.s6_addr + 12, &in.in.sin_addr, 4);
	return in6;
}

static void v1_is_built_in_one_family(void **state)
{
	struct addr a = mapped("1.2.3.4:5"), b = mapped("6.7.8.9:10");
	char out[PROXY_V1_MAX];

	(void)state;
	v1_line_is("1.2.3.4:5", "6.7.8.9:65535", "PROXY TCP4 1.2.3.4 6.7.8.9 5 65535\r\n");
	v1_line_is("[::1]:5", "[2001:db8::9]:0", "PROXY TCP6 ::1 2001:db8::9 5 0\r\n");
	v1_line_is("1.2.3.4:5", "[::1]:10", "PROXY TCP6 ::ffff:1.2.3.4 ::1 5 10\r\n");
	v1_line_is("[::1]:5", "1.2.3.4:10", "PROXY TCP6 ::1 ::ffff:1.2.3.4 5 10\r\n");
	v1_line_is("unix:/a", "unix:/b", "PROXY UNKNOWN\r\n");
	v1_line_is("1.2.3.4:5", "unix:/b", "PROXY UNKNOWN\r\n");
	v1_line_is("", "1.2.3.4:5", "PROXY UNKNOWN\r\n");
	v1_line_is("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
		"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
		"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n");
	/* As getpeername() and getsockname() on a dual-stack listener give them. */
	assert_int_equal(proxy_build_v1(&a, &b, out, sizeof(out)), 33);
	assert_memory_equal(out, "PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n", 33);
}

/* Built and parsed again; at every smaller size refused, and then not a byte beyond it touched. */
static struct proxy_header v2_reads_back(const struct addr *src, const struct addr *dst,
	const void *tlvs, size_t tlvs_len, bool crc, bool local, struct bytes *out)
{
	int len = proxy_build_v2(src, dst, tlvs, tlvs_len, crc, local, out->v, sizeof(out->v));

	if (len < 0)
		fail_msg("not built: %s", strerror(-len));
	for (size_t size = 0; size < (size_t)len; size += size < 300 ? 1 : 97) {
		uint8_t *small = malloc(size + 1);

		assert_non_null(small);
		small[size] = 0x5a;
		assert_int_equal(
			proxy_build_v2(src, dst, tlvs, tlvs_len, crc, local, small, size), -ENOSPC);
		assert_int_equal(small[size], 0x5a);
		free(small);
	}
	out->len = (size_t)len;
	return taken(out->v, out->len, out->len);
}

static void v2_pair_is(const char *src, const char *dst, unsigned int family, bool named)
{
	struct addr a = addr_of(src), b = addr_of(dst);
	struct bytes out;

	for (int crc = 0; crc < 2; crc++) {
		struct proxy_header ret = v2_reads_back(&a, &b, NULL, 0, crc, false, &out);

		assert_int_equal(out.v[12], named ? 0x21 : 0x20);
		assert_int_equal(out.v[13], family);
		assert_int_equal(ret.local, !named);
		addr_is(&ret.src, named ? src : "");
		addr_is(&ret.dst, named ? dst : "");
		assert_int_equal(ret.tlvs_len, named && crc ? 7 : 0);
	}
}

static void v2_reads_back_as_it_was_built(void **state)
{
	(void)state;
	v2_pair_is("1.2.3.4:5", "6.7.8.9:65535", 0x11, true);
	v2_pair_is("[::1]:5", "[2001:db8::9]:0", 0x21, true);
	v2_pair_is("1.2.3.4:5", "[2001:db8::9]:0", 0x21, true);
	v2_pair_is("[2001:db8::9]:0", "1.2.3.4:5", 0x21, true);
	v2_pair_is("unix:/a", "unix:@b", 0x31, true);
	v2_pair_is("unix:/a", "1.2.3.4:5", 0x00, false);
	v2_pair_is("", "1.2.3.4:5", 0x00, false);
	v2_pair_is("", "", 0x00, false);
}

static void v2_keeps_each_kind_of_unix_name(void **state)
{
	struct addr unnamed, full, listener = addr_of("unix:/run/listener.sock");
	struct proxy_header ret;
	struct bytes out;

	(void)state;
	memset(&unnamed, 0, sizeof(unnamed));
	unnamed.un.sun_family = AF_UNIX;
	unnamed.len = offsetof(struct sockaddr_un, sun_path); /* a client that did not bind() */
	full = unnamed;
	full.len = sizeof(full.un); /* 108 characters and no NUL: the kernel takes it */
	memset(full.un.sun_path, 'x', sizeof(full.un.sun_path));
	full.un.sun_path[0] = '/';
	ret = v2_reads_back(&unnamed, &listener, NULL, 0, true, false, &out);
	assert_true(addr_equal(&ret.src, &unnamed));
	assert_int_equal(ret.src.len, unnamed.len);
	assert_true(addr_equal(&ret.dst, &listener));
	assert_int_equal(ret.dst.len, listener.len);
	ret = v2_reads_back(&full, &unnamed, NULL, 0, false, false, &out);
	assert_true(addr_equal(&ret.src, &full));
	assert_int_equal(ret.src.len, full.len);
	assert_true(addr_equal(&ret.dst, &unnamed));
}

static void v2_passes_on_what_tells_of_the_client(void **state)
{
	static const char incoming[] = "\1\0\2h2\4\0\3\0\0\0\2\0\1a\3\0\4\1\2\3\4\x20\0\5\1\0\0\0\0"
				       "\xe0\0\0\4\0\0\5\0\2id";
	static const char outgoing[] = "\1\0\2h2\2\0\1a\x20\0\5\1\0\0\0\0\xe0\0\0\5\0\2id";
	size_t len = sizeof(outgoing) - 1;
	struct addr src = addr_of("1.2.3.4:5"), dst = addr_of("6.7.8.9:10");
	struct proxy_header ret;
	struct bytes out, again;

	(void)state;
	ret = v2_reads_back(&src, &dst, incoming, sizeof(incoming) - 1, false, false, &out);
	assert_int_equal(ret.tlvs_len, len);
	assert_memory_equal(ret.tlvs, outgoing, len);
	ret = v2_reads_back(&src, &dst, incoming, sizeof(incoming) - 1, true, false, &out);
	assert_int_equal(ret.tlvs_len, len + 7);
	assert_memory_equal(ret.tlvs, outgoing, len);
	/* Through a second proxy it stays as it is. */
	v2_reads_back(&ret.src, &ret.dst, ret.tlvs, ret.tlvs_len, true, false, &again);
	assert_int_equal(again.len, out.len);
	assert_memory_equal(again.v, out.v, out.len);
}

static void v2_local_tells_nothing(void **state)
{
	struct addr src = addr_of("1.2.3.4:5");
	struct proxy_header ret;
	struct bytes out;

	(void)state;
	ret = v2_reads_back(&src, &src, "\1\0\2h2", 5, false, true, &out);
	assert_true(ret.local);
	assert_int_equal(out.len, 16);
	assert_memory_equal(out.v, SIGNATURE "\x20\0\0\0", 16);
	ret = v2_reads_back(NULL, NULL, NULL, 0, true, true, &out);
	assert_true(ret.local);
	assert_int_equal(out.len, 16 + 7);
}

static void v2_does_not_build_from_broken_tlvs(void **state)
{
	struct addr src = addr_of("1.2.3.4:5");
	size_t len = 65535;
	uint8_t *tlvs = calloc(1, len), *out = malloc(2 * len);

	(void)state;
	assert_non_null(tlvs);
	assert_non_null(out);
	assert_int_equal(
		proxy_build_v2(&src, &src, (const uint8_t *)"\1\0", 2, false, false, out, 2 * len),
		-EINVAL);
	tlvs[0] = 0xe0;
	tlvs[1] = (uint8_t)((len - 3) >> 8);
	tlvs[2] = (uint8_t)(len - 3);
	assert_int_equal(
		proxy_build_v2(&src, &src, tlvs, len, false, false, out, 2 * len), -EMSGSIZE);
	free(tlvs);
	free(out);
}

static struct addr random_addr(void)
{
	struct addr addr;

	memset(&addr, 0, sizeof(addr));
	switch (rand() % 4) {
	case 0:
		addr.len = sizeof(addr.in);
		addr.in.sin_family = AF_INET;
		addr.in.sin_port = (in_port_t)rand();
		addr.in.sin_addr.s_addr = (in_addr_t)rand();
		break;
	case 1:
		addr = mapped("1.2.3.4:5");
		addr.in6.sin6_port = (in_port_t)rand();
		addr.in6.sin6_addr.s6_addr[rand() % 16] = (uint8_t)rand();
		break;
	case 2:
		addr.len = sizeof(addr.in6);
		addr.in6.sin6_family = AF_INET6;
		addr.in6.sin6_port = (in_port_t)rand();
		for (int i = 0; i < 16; i++)
			addr.in6.sin6_addr.s6_addr[i] = (uint8_t)rand();
		break;
	case 3:
		addr.un.sun_family = AF_UNIX;
		addr.len =
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)rand() % 109);
		for (size_t i = offsetof(struct sockaddr_un, sun_path); i < addr.len; i++)
			((char *)&addr.un)[i] = (char)('a' + rand() % 26);
		break;
	}
	return addr;
}

static void any_pair_reads_back(void **state)
{
	(void)state;
	srand(9);
	for (int i = 0; i < 20000; i++) {
		struct addr src = random_addr(), dst = random_addr();
		bool same = addr_is_unix(&src) == addr_is_unix(&dst), ip = !addr_is_unix(&src);
		struct proxy_header ret;
		uint8_t out[PROXY_BUILD_MAX];
		const char *error;
		int len = proxy_build_v2(&src, &dst, NULL, 0, i & 1, false, out, sizeof(out));

		assert_true(len > 0);
		assert_int_equal(proxy_parse(out, sizeof(out), &ret, &error), len);
		assert_true(same ? addr_equal(&ret.src, &src) : !ret.src.len);
		assert_true(same ? addr_equal(&ret.dst, &dst) : !ret.dst.len);
		len = proxy_build_v1(&src, &dst, out, sizeof(out));
		assert_true(len > 0);
		assert_int_equal(proxy_parse(out, sizeof(out), &ret, &error), len);
		assert_true(same && ip ? addr_equal(&ret.src, &src) : !ret.src.len);
		assert_true(same && ip ? addr_equal(&ret.dst, &dst) : !ret.dst.len);
	}
}

/* haproxy-* were sent by HAProxy 2.6 with "hi" as payload, checksums among them. */
static void each_seed_agrees_wherever_it_is_cut(void **state)
{
	struct dirent *entry;
	DIR *dir = opendir(SEEDS);
	unsigned int seeds = 0;

	(void)state;
	if (!dir)
		fail_msg("run in the top directory: no %s", SEEDS);
	while ((entry = readdir(dir))) {
		char path[512];
		struct bytes seed;
		FILE *file;
		int len;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), SEEDS "/%s", entry->d_name);
		file = fopen(path, "rb");
		assert_non_null(file);
		seed.len = fread(seed.v, 1, sizeof(seed.v), file);
		fclose(file);
		len = each_prefix_agrees(seed.v, seed.len);
		if (strncmp(entry->d_name, "refused-", 8) == 0 ? len != -EINVAL : len <= 0)
			fail_msg("%s: %d", path, len);
		if (strncmp(entry->d_name, "haproxy-", 8) == 0) {
			assert_int_equal(seed.len, len + 2);
			assert_memory_equal(seed.v + len, "hi", 2);
		}
		seeds++;
	}
	closedir(dir);
	assert_true(seeds >= 25);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v1_names_both_ends),
		cmocka_unit_test(v1_unknown_ignores_the_rest_of_the_line),
		cmocka_unit_test(v1_is_read_strictly),
		cmocka_unit_test(v1_ends_within_107_bytes),
		cmocka_unit_test(v2_is_read_strictly),
		cmocka_unit_test(v2_is_bounded),
		cmocka_unit_test(v2_names_both_ends),
		cmocka_unit_test(v2_without_addresses_leaves_the_connections_own),
		cmocka_unit_test(crc32c_gives_the_published_values),
		cmocka_unit_test(checksum_notices_each_flipped_bit),
		cmocka_unit_test(v1_is_built_in_one_family),
		cmocka_unit_test(v2_reads_back_as_it_was_built),
		cmocka_unit_test(v2_keeps_each_kind_of_unix_name),
		cmocka_unit_test(v2_passes_on_what_tells_of_the_client),
		cmocka_unit_test(v2_local_tells_nothing),
		cmocka_unit_test(v2_does_not_build_from_broken_tlvs),
		cmocka_unit_test(any_pair_reads_back),
		cmocka_unit_test(each_seed_agrees_wherever_it_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
