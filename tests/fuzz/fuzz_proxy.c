/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes: cut anywhere they say the same; what was read is built and read again as the same. */
#include <stdlib.h>
#include <string.h>

#include "proxy_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
	if (!condition)
		abort();
}

static bool same(const struct proxy_header *a, const struct proxy_header *b)
{
	return a->version == b->version && a->local == b->local && addr_equal(&a->src, &b->src) &&
	       addr_equal(&a->dst, &b->dst) && a->tlvs_len == b->tlvs_len;
}

/* From a copy that ends where the bytes end: a read past them is seen. */
static int parse_prefix(const uint8_t *data, size_t len, struct proxy_header *ret)
{
	uint8_t *copy = malloc(len);
	const char *error = NULL;
	int result;

	if (len)
		memcpy(copy, data, len);
	result = proxy_parse(copy, len, ret, &error);
	require(result >= 0 || error);
	require(result != 0 || ret->need > len);
	require(result <= 0 || (size_t)result <= len);
	free(copy);
	return result;
}

static void check_prefix(
	const uint8_t *data, size_t len, int whole, const struct proxy_header *header)
{
	struct proxy_header part;
	int result = parse_prefix(data, len, &part);

	if (whole <= 0)
		require(result == 0 || result == whole);
	else if (len < (size_t)whole)
		require(result == 0 && part.need <= (size_t)whole);
	else
		require(result == whole && same(&part, header));
}

/* As if it was passed on to a server, and by that one to the next. */
static void check_build(const struct proxy_header *header)
{
	static uint8_t out[PROXY_BUILD_MAX], again[PROXY_BUILD_MAX];
	struct proxy_header ret;
	const char *error;
	int len;

	len = proxy_build_v1(&header->src, &header->dst, out, sizeof(out));
	require(len > 0 && len <= PROXY_V1_MAX);
	require(proxy_parse(out, (size_t)len, &ret, &error) == len);
	if (!addr_is_unix(&header->src))
		require(addr_equal(&ret.src, &header->src) && addr_equal(&ret.dst, &header->dst));
	len = proxy_build_v2(&header->src, &header->dst, header->tlvs, header->tlvs_len, true,
		header->local, out, sizeof(out));
	require(len > 0);
	if (len > PROXY_HEADER_MAX)
		return;
	require(proxy_parse(out, (size_t)len, &ret, &error) == len);
	require(addr_equal(&ret.src, &header->src) && addr_equal(&ret.dst, &header->dst));
	require(ret.local == !header->src.len && ret.tlvs_len <= header->tlvs_len + 7);
	require(proxy_build_v2(&ret.src, &ret.dst, ret.tlvs, ret.tlvs_len, true, ret.local, again,
			sizeof(again)) == len);
	require(memcmp(out, again, (size_t)len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header header;
	size_t step = size / 256 + 1;
	const char *error;
	int whole = proxy_parse(data, size, &header, &error);

	for (size_t len = 0; len < size; len += step)
		check_prefix(data, len, whole, &header);
	if (size)
		check_prefix(data, size - 1, whole, &header);
	check_prefix(data, size, whole, &header);
	if (whole > 0)
		check_build(&header);
	return 0;
}
