/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client_hello.h"

#define SEEDS "tests/fuzz/fuzz_hello.in"

struct bytes {
	size_t len;
	uint8_t v[8 * CLIENT_HELLO_MAX];
};

/* From a copy that ends where the bytes end, so that a sanitizer sees a read beyond them. */
static int parse(const uint8_t *data, size_t len, struct client_hello *ret)
{
	uint8_t *copy = malloc(len ? len : 1);
	int result;

	assert_non_null(copy);
	memcpy(copy, data, len);
	result = client_hello_parse(copy, len, ret);
	free(copy);
	return result;
}

/* Wherever the bytes are cut, the part before the cut says the same or asks for more, for no more
 * than there is; and what is wrong stays wrong. */
static int each_prefix_agrees(const uint8_t *data, size_t len)
{
	struct client_hello whole, part;
	int result = parse(data, len, &whole), last = 0;

	for (size_t n = 0; n <= len; n++) {
		int now = parse(data, n, &part);

		if (now == 0)
			assert_true(part.need > n);
		if (result > 0 && now == 0)
			assert_true(part.need <= (size_t)result);
		if (result > 0)
			assert_int_equal(now, n < (size_t)result ? 0 : result);
		else
			assert_true(now == 0 || now == result);
		if (now > 0)
			assert_string_equal(part.server_name, whole.server_name);
		assert_true(last == 0 || now == last);
		last = now;
	}
	return result;
}

/* --- seeds ---------------------------------------------------------------------------------------
 */

/* Of real clients are openssl-* (3.0, s_client), openssl4-* (4.0, with ML-KEM), curl and python. */
static const struct seed {
	const char *name, *server_name; /* NULL: the result says why */
	int result; /* > 0: payload after so many bytes; 0: none */
} seeds[] = {
	{"openssl-tls13", "app.example.org", 0},
	{"openssl-tls12", "app.example.org", 0},
	{"openssl-tls10", "old.example.org", 0},
	{"openssl-noname", NULL, -ENOENT},
	{"openssl-records", "records.example.org", 0},
	{"openssl4-default", "pq.example.org", 0},
	{"openssl4-mlkem768", "pq.example.org", 0},
	{"openssl4-mlkem1024", "bigger.pq.example.org", 0},
	{"curl", "curl.example.net", 0},
	{"python", "python.example.com", 0},
	{"grease", "grease.example.org", 0},
	{"records-tiny", "split.example.org", 0},
	{"no-extensions", NULL, -ENOENT},
	{"name-types", "second.example.org", 0},
	{"trailing-dot", "dot.example.org", 85},
	{"max-size", "max.example.org", 0},
	{"refused-two-names", NULL, -EPROTO},
	{"refused-bad-name", NULL, -EPROTO},
	{"refused-sslv2", NULL, -EPROTO},
	{"refused-http", NULL, -EPROTO},
	{"refused-too-long", NULL, -EMSGSIZE},
};

static void read_seed(const char *name, struct bytes *ret)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), SEEDS "/%s", name);
	file = fopen(path, "rb");
	if (!file)
		fail_msg("run in the top directory: no %s", path);
	ret->len = fread(ret->v, 1, sizeof(ret->v), file);
	fclose(file);
}

static void each_seed_agrees_wherever_it_is_cut(void **state)
{
	static struct bytes seed;
	struct client_hello hello;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(seeds); i++) {
		int result, expected = seeds[i].result;

		read_seed(seeds[i].name, &seed);
		if (seeds[i].server_name && !expected)
			expected = (int)seed.len;
		result = each_prefix_agrees(seed.v, seed.len);
		if (result != expected)
			fail_msg("%s: %d instead of %d", seeds[i].name, result, expected);
		if (result < 0)
			continue;
		assert_int_equal(client_hello_parse(seed.v, seed.len, &hello), result);
		assert_string_equal(hello.server_name, seeds[i].server_name);
	}
}

static void each_seed_file_has_its_result(void **state)
{
	struct dirent *entry;
	DIR *dir = opendir(SEEDS);

	(void)state;
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		size_t i = 0;

		while (i < ARRAY_LEN(seeds) && strcmp(seeds[i].name, entry->d_name) != 0)
			i++;
		if (entry->d_name[0] != '.' && i == ARRAY_LEN(seeds))
			fail_msg("%s is not in the table", entry->d_name);
	}
	closedir(dir);
}

/* --- records -------------------------------------------------------------------------------------
 */

static void put(struct bytes *to, const void *data, size_t len)
{
	assert_true(to->len + len <= sizeof(to->v));
	memcpy(to->v + to->len, data, len);
	to->len += len;
}

static void put_number(struct bytes *to, unsigned int bytes, size_t number)
{
	while (bytes--) {
		uint8_t byte = (uint8_t)(number >> 8 * bytes);

		put(to, &byte, 1);
	}
}

static void put_record(struct bytes *to, const void *data, size_t len)
{
	put(to, "\x16\3\1", 3);
	put_number(to, 2, len);
	put(to, data, len);
}

/* The message of a seed, without the heads of its records. */
static void read_message(const char *name, struct bytes *ret)
{
	static struct bytes seed;

	read_seed(name, &seed);
	ret->len = 0;
	for (size_t at = 0; at < seed.len;) {
		size_t len = (size_t)seed.v[at + 3] << 8 | seed.v[at + 4];

		put(ret, seed.v + at + 5, len);
		at += 5 + len;
	}
}

static void is_found(const struct bytes *wire, const char *server_name)
{
	struct client_hello hello;

	assert_int_equal(parse(wire->v, wire->len, &hello), wire->len);
	assert_string_equal(hello.server_name, server_name);
	assert_int_equal(parse(wire->v, wire->len - 1, &hello), 0);
}

static void two_records_may_be_cut_anywhere(void **state)
{
	static struct bytes message, wire;

	(void)state;
	read_message("openssl4-mlkem1024", &message);
	for (size_t cut = 1; cut < message.len; cut++) {
		wire.len = 0;
		put_record(&wire, message.v, cut);
		put_record(&wire, message.v + cut, message.len - cut);
		is_found(&wire, "bigger.pq.example.org");
	}
}

static void records_may_be_of_any_size(void **state)
{
	static struct bytes message, wire;

	(void)state;
	read_message("grease", &message);
	for (size_t size = 1; size <= message.len; size++) {
		wire.len = 0;
		for (size_t at = 0; at < message.len; at += size)
			put_record(&wire, message.v + at, MIN(size, message.len - at));
		is_found(&wire, "grease.example.org");
		if (size < 4 || size == 500)
			assert_int_equal(each_prefix_agrees(wire.v, wire.len), wire.len);
	}
}

static void needs_say(const struct bytes *wire, size_t len, size_t expected)
{
	struct client_hello hello;

	assert_int_equal(parse(wire->v, len, &hello), 0);
	assert_int_equal(hello.need, expected);
}

/* So that a slow client wakes nobody with each byte. */
static void need_is_all_that_can_be_known(void **state)
{
	static struct bytes message, wire;

	(void)state;
	read_message("grease", &message);
	wire.len = 0;
	put_record(&wire, message.v, 100);
	put_record(&wire, message.v + 100, message.len - 100);
	needs_say(&wire, 0, 5 + 4);
	needs_say(&wire, 5, 5 + 4); /* up to the length of the message */
	needs_say(&wire, 8, 5 + 4);
	needs_say(&wire, 9, wire.len);
	needs_say(&wire, 50, wire.len);
	needs_say(&wire, 105, wire.len);
	needs_say(&wire, 107, wire.len);
	needs_say(&wire, wire.len - 1, wire.len);
}

static void heads_of_records_are_bounded_too(void **state)
{
	static struct bytes message, wire;
	struct client_hello hello;

	(void)state;
	read_message("max-size", &message);
	assert_int_equal(message.len, CLIENT_HELLO_MAX);
	for (size_t records = 64; records <= 65; records++) {
		wire.len = 0;
		for (size_t i = 0; i < records - 1; i++)
			put_record(&wire, message.v + i, 1);
		put_record(&wire, message.v + records - 1, message.len - records + 1);
		if (records == 64) {
			assert_int_equal(wire.len, CLIENT_HELLO_WIRE_MAX);
			is_found(&wire, "max.example.org");
		} else {
			assert_int_equal(parse(wire.v, wire.len, &hello), -EMSGSIZE);
			/* Known long before it is all there. */
			assert_int_equal(parse(wire.v, 6 * 65, &hello), -EMSGSIZE);
		}
	}
	/* At a byte a record, the answer comes within the bytes to look at. */
	wire.len = 0;
	for (size_t i = 0; i < message.len; i++)
		put_record(&wire, message.v + i, 1);
	assert_int_equal(parse(wire.v, CLIENT_HELLO_WIRE_MAX, &hello), -EMSGSIZE);
}

/* --- made by hand --------------------------------------------------------------------------------
 */

/* The parts of a hello, each with its length as it goes on the wire. NULL: a sound one. */
struct parts {
	const char *version, *session_id, *ciphers, *compression, *extensions;
	size_t session_id_len, ciphers_len, compression_len, extensions_len;
	bool no_extensions;
};

#define PART(name, bytes) .name = (bytes), .name##_len = sizeof(bytes) - 1
/* The extension with the name "ab.c". */
#define NAMED "\0\0\0\x09\0\7\0\0\4ab.c"

static void make(struct bytes *ret, const struct parts *parts)
{
	static const uint8_t random[32] = {7};
	static struct bytes body;
	struct parts p = *parts;

	if (!p.session_id)
		p.session_id = "", p.session_id_len = 1;
	if (!p.ciphers)
		p.ciphers = "\0\2\x13\1", p.ciphers_len = 4;
	if (!p.compression)
		p.compression = "\1\0", p.compression_len = 2;
	body.len = 0;
	put(&body, p.version ? p.version : "\3\3", 2);
	put(&body, random, sizeof(random));
	put(&body, p.session_id, p.session_id_len);
	put(&body, p.ciphers, p.ciphers_len);
	put(&body, p.compression, p.compression_len);
	if (!p.no_extensions) {
		put_number(&body, 2, p.extensions_len);
		put(&body, p.extensions, p.extensions_len);
	}
	ret->len = 0;
	put(ret, "\x16\3\1", 3);
	put_number(ret, 2, body.len + 4);
	put(ret, "\1", 1);
	put_number(ret, 3, body.len);
	put(ret, body.v, body.len);
}

static int parts_say(const struct parts *parts)
{
	static struct bytes wire;

	make(&wire, parts);
	return each_prefix_agrees(wire.v, wire.len);
}

#define SAY(...) parts_say(&(struct parts){__VA_ARGS__})
#define EXTENSIONS_SAY(bytes) SAY(PART(extensions, bytes))

static void sound_hellos_are_taken(void **state)
{
	(void)state;
	assert_true(EXTENSIONS_SAY(NAMED) > 0);
	assert_true(EXTENSIONS_SAY("\x12\x34\0\0" NAMED) > 0);
	assert_true(EXTENSIONS_SAY(NAMED "\xff\xff\0\1x") > 0);
	assert_true(SAY(.version = "\3\4", PART(extensions, NAMED)) > 0);
	assert_true(SAY(.version = "\3\0", PART(extensions, NAMED)) > 0);
	assert_true(SAY(PART(extensions, NAMED),
			    PART(session_id, "\x20"
					     "12345678901234567890123456789012"),
			    PART(ciphers, "\0\4\x13\1\x5a\x5a"), PART(compression, "\2\0\1")) > 0);
}

static void hellos_without_a_name_are_told_apart(void **state)
{
	(void)state;
	assert_int_equal(SAY(.no_extensions = true), -ENOENT);
	assert_int_equal(EXTENSIONS_SAY(""), -ENOENT);
	assert_int_equal(EXTENSIONS_SAY("\x12\x34\0\0"), -ENOENT);
	/* A name, but not of a host. */
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\6\0\4\1\0\1x"), -ENOENT);
}

static void malformed_hellos_are_refused(void **state)
{
	(void)state;
	assert_int_equal(SAY(.version = "\2\0", PART(extensions, NAMED)), -EPROTO);
	assert_int_equal(SAY(PART(extensions, NAMED),
				 PART(session_id, "\x21"
						  "123456789012345678901234567890123"),
				 PART(ciphers, "\0\2\x13\1"), PART(compression, "\1\0")),
		-EPROTO);
	assert_int_equal(SAY(PART(ciphers, "\0\3\x13\1\2"), PART(extensions, NAMED)), -EPROTO);
	assert_int_equal(SAY(PART(ciphers, "\0\0"), PART(extensions, NAMED)), -EPROTO);
	assert_int_equal(SAY(PART(ciphers, "\xff\xfe\x13\1"), PART(extensions, NAMED)), -EPROTO);
	assert_int_equal(SAY(PART(compression, "\0"), PART(extensions, NAMED)), -EPROTO);
	assert_int_equal(SAY(PART(compression, "\1\0X"), PART(extensions, NAMED)), -EPROTO);
	assert_int_equal(SAY(PART(compression, "\1\0X"), .no_extensions = true), -EPROTO);
	assert_int_equal(SAY(PART(compression, "\1\0\0\0"), PART(extensions, NAMED)), -EPROTO);
	/* The session ID takes all there is. */
	assert_int_equal(SAY(PART(session_id, "\x20"), .no_extensions = true), -EPROTO);
}

static void malformed_extensions_are_refused(void **state)
{
	(void)state;
	assert_int_equal(EXTENSIONS_SAY("\x12"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\x12\x34\0"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\x12\x34\0\1"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY(NAMED "\x12\x34\0\2x"), -EPROTO); /* behind a good name */
	assert_int_equal(EXTENSIONS_SAY(NAMED NAMED), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\0"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\2\0\0"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\3\0\1\0"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\5\0\3\0\0\0"), -EPROTO); /* an empty name */
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\5\0\3\1\0\0"), -EPROTO); /* of another type */
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\6\0\4\1\0\2x"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\7\0\4\0\0\1xX"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\6\0\5\0\0\1x"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\x0a\0\x08\0\0\1x\0\0\1x"), -EPROTO); /* two */
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\x08\0\6\0\0\3a\0b"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\x08\0\6\0\0\3a b"), -EPROTO);
	assert_int_equal(EXTENSIONS_SAY("\0\0\0\x08\0\6\0\0\3::1"), -EPROTO);
}

static void each_byte_of_the_lengths_counts(void **state)
{
	static struct bytes wire;
	struct client_hello hello;

	(void)state;
	make(&wire, &(struct parts){PART(extensions, NAMED)});
	/* Those inside the message, from behind the random on but for the cipher suite, the
	 * compression method and the name. A length that is too small or too large by one shows. */
	for (size_t at = 5; at < wire.len; at++) {
		bool is_length = (at >= 6 && at <= 8) || (at >= 43 && at <= 45) || at == 48 ||
				 (at >= 50 && at <= 51) || (at >= 54 && at <= 57) ||
				 (at >= 59 && at <= 60);

		for (int step = -1; is_length && step <= 1; step += 2) {
			wire.v[at] = (uint8_t)(wire.v[at] + step);
			if (client_hello_parse(wire.v, wire.len, &hello) > 0)
				fail_msg("byte %zu, %+d: taken", at, step);
			wire.v[at] = (uint8_t)(wire.v[at] - step);
		}
	}
	assert_int_equal(client_hello_parse(wire.v, wire.len, &hello), wire.len);
}

static void bytes_say(const char *data, size_t len, int expected)
{
	assert_int_equal(each_prefix_agrees((const uint8_t *)data, len), expected);
}

static void what_is_not_tls_shows_with_its_first_bytes(void **state)
{
	(void)state;
	bytes_say("G", 1, -EPROTO);
	bytes_say("\x80\x2e\1", 3, -EPROTO); /* SSLv2 */
	bytes_say("\x15\3\1\0\2\2\x28", 7, -EPROTO); /* an alert */
	bytes_say("\x17", 1, -EPROTO);
	bytes_say("\x16\2", 2, -EPROTO);
	bytes_say("\x16\4", 2, -EPROTO);
	bytes_say("\x16\3\1\0\0", 5, -EPROTO); /* an empty record */
	bytes_say("\x16\3\1\x40\1", 5, -EPROTO);
	bytes_say("\x16\3\1\1\0\2", 6, -EPROTO); /* a ServerHello */
	bytes_say("\x16\3\1\1\0\1\0\0\x28", 9, -EPROTO); /* too short to be one */
	bytes_say("\x16\3\1\1\0\1\0\x3f\xfd", 9, -EMSGSIZE);
	bytes_say("\x16\3\1\1\0\1\xff\xff\xff", 9, -EMSGSIZE);
	/* Other records between two of the message. */
	bytes_say("\x16\3\1\0\5\1\0\0\x29\3\x15\3\1\0\2\2\x28", 17, -EPROTO);
	bytes_say("\x16\3\1\0\5\1\0\0\x29\3\x16\3\1\0\0", 15, -EPROTO);
	bytes_say("", 0, 0);
	bytes_say("\x16\3\1\x40\0\1\0\x3f\xfc\3", 10, 0);
}

static void nothing_is_written_but_on_success(void **state)
{
	static struct bytes seed;
	struct client_hello hello, before;

	(void)state;
	memset(&hello, 0x5a, sizeof(hello));
	before = hello;
	for (size_t i = 0; i < ARRAY_LEN(seeds); i++) {
		read_seed(seeds[i].name, &seed);
		if (client_hello_parse(seed.v, seed.len, &hello) < 0)
			assert_memory_equal(&hello, &before, sizeof(hello));
		else
			hello = before;
	}
	assert_int_equal(client_hello_parse("\x16\3", 2, &hello), 0);
	assert_int_equal(hello.need, 9); /* up to the length of the message */
	assert_memory_equal(hello.server_name, before.server_name, sizeof(hello.server_name));
}

/* --- names ---------------------------------------------------------------------------------------
 */

static void name_is(const char *text, const char *expected)
{
	char name[SERVER_NAME_MAX + 1];
	const char *error = server_name_normalize(text, strlen(text), name);

	if (error)
		fail_msg("'%s' was refused: %s", text, error);
	assert_string_equal(name, expected);
}

static void name_refused(const char *text, size_t len, const char *words)
{
	char name[SERVER_NAME_MAX + 1] = "untouched";
	const char *error = server_name_normalize(text, len, name);

	if (!error || !strstr(error, words))
		fail_msg("'%s': '%s' does not say '%s'", text, error ? error : "NULL", words);
	assert_string_equal(name, "untouched");
}

static void names_have_one_form(void **state)
{
	char longest[SERVER_NAME_MAX + 2], name[SERVER_NAME_MAX + 1];

	(void)state;
	name_is("a", "a");
	name_is("WWW.Example.ORG", "www.example.org");
	name_is("www.example.org.", "www.example.org");
	name_is("_dns.xn--bcher-kva.example", "_dns.xn--bcher-kva.example");
	name_is("-.1.2_3", "-.1.2_3");
	memset(longest, 'a', sizeof(longest));
	for (size_t i = 63; i < SERVER_NAME_MAX; i += 64)
		longest[i] = '.';
	longest[SERVER_NAME_MAX] = '\0';
	name_is(longest, longest);
	longest[SERVER_NAME_MAX] = '.';
	longest[SERVER_NAME_MAX + 1] = '\0';
	assert_null(server_name_normalize(longest, SERVER_NAME_MAX + 1, name));
	longest[SERVER_NAME_MAX] = 'a';
	name_refused(longest, SERVER_NAME_MAX + 1, "longer than 253");
}

static void what_is_no_name_is_refused(void **state)
{
	char label[65];

	(void)state;
	memset(label, 'a', sizeof(label));
	label[64] = '\0';
	name_refused("", 0, "is empty");
	name_refused(".", 1, "is empty");
	name_refused("..", 2, "two dots");
	name_refused(".a", 2, "two dots");
	name_refused("a..b", 4, "two dots");
	name_refused("a..", 3, "two dots");
	name_refused(label, 64, "more than 63");
	name_is(label + 1, label + 1);
	name_refused("a\0b", 3, "other characters");
	name_refused("a b", 3, "other characters");
	name_refused("*.a", 3, "other characters");
	name_refused("b\xc3\xbc"
		     "cher",
		7, "xn--");
	name_refused("[::1]", 5, "other characters");
	name_refused("a:443", 5, "other characters");
	for (int c = 1; c < 256; c++) {
		char one[1] = {(char)c}, name[SERVER_NAME_MAX + 1];
		bool good = c == '-' || c == '_' || (c >= '0' && c <= '9') ||
			    (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

		assert_int_equal(server_name_normalize(one, 1, name) == NULL, good);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_seed_agrees_wherever_it_is_cut),
		cmocka_unit_test(each_seed_file_has_its_result),
		cmocka_unit_test(two_records_may_be_cut_anywhere),
		cmocka_unit_test(records_may_be_of_any_size),
		cmocka_unit_test(need_is_all_that_can_be_known),
		cmocka_unit_test(heads_of_records_are_bounded_too),
		cmocka_unit_test(sound_hellos_are_taken),
		cmocka_unit_test(hellos_without_a_name_are_told_apart),
		cmocka_unit_test(malformed_hellos_are_refused),
		cmocka_unit_test(malformed_extensions_are_refused),
		cmocka_unit_test(each_byte_of_the_lengths_counts),
		cmocka_unit_test(what_is_not_tls_shows_with_its_first_bytes),
		cmocka_unit_test(nothing_is_written_but_on_success),
		cmocka_unit_test(names_have_one_form),
		cmocka_unit_test(what_is_no_name_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
