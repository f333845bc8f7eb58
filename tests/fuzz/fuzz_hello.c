/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes: cut anywhere, into segments or into records, they say the same; a name stays in its
 * form. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "client_hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
	if (!condition)
		abort();
}

/* From a copy that ends where the bytes end: a read past them is seen. */
static int parse_prefix(const uint8_t *data, size_t len, struct client_hello *ret)
{
	uint8_t *copy = malloc(len);
	int result;

	if (len)
		memcpy(copy, data, len);
	result = client_hello_parse(copy, len, ret);
	require(result >= 0 || result == -ENOENT || result == -EPROTO || result == -EMSGSIZE);
	require(result != 0 || (ret->need > len && ret->need <= CLIENT_HELLO_WIRE_MAX));
	require(result <= 0 || (size_t)result <= len);
	free(copy);
	return result;
}

static void check_prefix(
	const uint8_t *data, size_t len, int whole, const struct client_hello *hello)
{
	struct client_hello part;
	int result = parse_prefix(data, len, &part);

	if (whole <= 0)
		require(result == 0 || result == whole);
	else if (len < (size_t)whole)
		require(result == 0 && part.need <= (size_t)whole);
	else
		require(result == whole && strcmp(part.server_name, hello->server_name) == 0);
}

/* The name in other letters gives the same. */
static void check_name(const char *name)
{
	char shouted[SERVER_NAME_MAX + 1], again[SERVER_NAME_MAX + 1];
	size_t len = strlen(name);

	require(len > 0 && len <= SERVER_NAME_MAX);
	for (size_t i = 0; i <= len; i++)
		shouted[i] = name[i] >= 'a' && name[i] <= 'z' ? (char)(name[i] - 32) : name[i];
	require(!server_name_normalize(shouted, len, again) && strcmp(again, name) == 0);
	require(!server_name_normalize(name, len, again) && strcmp(again, name) == 0);
}

/* One record becomes two, cut at a place that the bytes choose. */
static void check_two_records(
	const uint8_t *data, size_t size, int whole, const struct client_hello *hello)
{
	static uint8_t out[65536 + 16];
	struct client_hello ret;
	size_t len, cut;
	int result;

	if (size < 16 || size > 65536 || whole == 0 || whole == -EMSGSIZE)
		return;
	len = (size_t)data[3] << 8 | data[4];
	if (len < 2 || len > size - 5 || len > 16384)
		return;
	cut = 1 + (data[size - 1] + 256u * data[12]) % (len - 1);
	memcpy(out, data, 5 + cut);
	out[3] = (uint8_t)(cut >> 8);
	out[4] = (uint8_t)cut;
	memcpy(out + 5 + cut, data, 5);
	out[5 + cut + 3] = (uint8_t)((len - cut) >> 8);
	out[5 + cut + 4] = (uint8_t)(len - cut);
	memcpy(out + 10 + cut, data + 5 + cut, size - 5 - cut);
	result = client_hello_parse(out, size + 5, &ret);
	if (whole < 0)
		require(result == whole);
	else
		require(result == whole || result == whole + 5 || result == -EMSGSIZE);
	require(result <= 0 || strcmp(ret.server_name, hello->server_name) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct client_hello hello;
	size_t step = size / 256 + 1;
	int whole = client_hello_parse(data, size, &hello);

	for (size_t len = 0; len < size; len += step)
		check_prefix(data, len, whole, &hello);
	if (size)
		check_prefix(data, size - 1, whole, &hello);
	check_prefix(data, size, whole, &hello);
	if (whole > 0)
		check_name(hello.server_name);
	check_two_records(data, size, whole, &hello);
	return 0;
}
