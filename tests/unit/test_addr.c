/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "addr.h"

static struct addr parsed(const char *text)
{
	struct addr addr;
	const char *error = "";

	if (addr_parse(text, &addr, &error) < 0)
		fail_msg("'%s' was refused: %s", text, error);
	return addr;
}

/* Refused, with a text that holds the given words, and the result untouched. */
static void refused(const char *text, const char *words)
{
	struct addr addr, before;
	const char *error = NULL;

	memset(&addr, 0x5a, sizeof(addr));
	before = addr;
	if (addr_parse(text, &addr, &error) != -EINVAL)
		fail_msg("'%s' was taken", text);
	assert_non_null(error);
	if (!strstr(error, words))
		fail_msg("'%s': '%s' does not say '%s'", text, error, words);
	assert_memory_equal(&addr, &before, sizeof(addr));
}

static void reads_back_as(const char *text, const char *expected)
{
	struct addr addr = parsed(text), again;
	char formatted[ADDR_TEXT_MAX];

	addr_format(&addr, formatted, sizeof(formatted));
	assert_string_equal(formatted, expected);
	again = parsed(formatted);
	assert_true(addr_equal(&addr, &again));
}

static void ipv4_is_parsed_into_sockaddr_in(void **state)
{
	struct addr addr = parsed("1.2.3.4:80");

	(void)state;
	assert_int_equal(addr_family(&addr), AF_INET);
	assert_int_equal(addr.len, sizeof(struct sockaddr_in));
	assert_int_equal(ntohl(addr.in.sin_addr.s_addr), 0x01020304);
	assert_int_equal(ntohs(addr.in.sin_port), 80);
	assert_false(addr.dual_stack);
	assert_false(addr_is_unix(&addr));
}

static void ipv6_is_parsed_into_sockaddr_in6(void **state)
{
	struct addr addr = parsed("[2001:db8::1]:65535");

	(void)state;
	assert_int_equal(addr_family(&addr), AF_INET6);
	assert_int_equal(addr.len, sizeof(struct sockaddr_in6));
	assert_int_equal(addr.in6.sin6_addr.s6_addr[0], 0x20);
	assert_int_equal(addr.in6.sin6_addr.s6_addr[15], 1);
	assert_int_equal(ntohs(addr.in6.sin6_port), 65535);
	assert_int_equal(addr.in6.sin6_scope_id, 0);
	assert_false(addr.dual_stack);
}

static void star_is_dual_stack_any(void **state)
{
	struct addr addr = parsed("*:8080");

	(void)state;
	assert_int_equal(addr_family(&addr), AF_INET6);
	assert_true(IN6_IS_ADDR_UNSPECIFIED(&addr.in6.sin6_addr));
	assert_int_equal(ntohs(addr.in6.sin6_port), 8080);
	assert_true(addr.dual_stack);
}

static void every_form_formats_as_it_was_written(void **state)
{
	static const char *const texts[] = {"0.0.0.0:0", "1.2.3.4:80", "255.255.255.255:65535",
		"[::]:1", "[::1]:80", "[2001:db8::ff]:443", "*:0", "*:65535", "unix:/run/a.sock",
		"unix:@name", "unix:/"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		reads_back_as(texts[i], texts[i]);
	reads_back_as("[2001:DB8:0:0:0:0:0:1]:1", "[2001:db8::1]:1");
}

static void ipv4_mapped_is_ipv4(void **state)
{
	struct addr a = parsed("[::ffff:1.2.3.4]:80"), b = parsed("1.2.3.4:80");
	struct addr raw = {.len = sizeof(struct sockaddr_in6)};
	char text[ADDR_TEXT_MAX];

	(void)state;
	assert_int_equal(addr_family(&a), AF_INET);
	assert_true(addr_equal(&a, &b));
	/* As accept() gives it on a dual stack socket. */
	raw.in6.sin6_family = AF_INET6;
	raw.in6.sin6_port = htons(80);
	memcpy(raw.in6.sin6_addr.s6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\1\2\3\4", 16);
	addr_format(&raw, text, sizeof(text));
	assert_string_equal(text, "1.2.3.4:80");
	assert_true(addr_equal(&raw, &b));
	assert_true(addr_equal(&b, &raw));
}

static void ports_are_strict(void **state)
{
	(void)state;
	refused("1.2.3.4", "port is missing");
	refused("1.2.3.4:", "port is missing");
	refused("[::1]", "port is missing");
	refused("[::1]:", "port is missing");
	refused("*", "port is missing");
	refused("*:", "port is missing");
	refused("*8080", "port is missing");
	refused("[::1]80", "port is missing");
	refused("1.2.3.4:65536", "0 to 65535");
	refused("1.2.3.4:99999999999999999999", "0 to 65535");
	refused("1.2.3.4:18446744073709551696", "0 to 65535"); /* 80 modulo 2^64 */
	refused("1.2.3.4:080", "leading zeros");
	refused("1.2.3.4:00", "leading zeros");
	refused("1.2.3.4:+80", "number");
	refused("1.2.3.4:-1", "number");
	refused("1.2.3.4: 80", "number");
	refused("1.2.3.4:80 ", "number");
	refused("1.2.3.4:80x", "number");
	refused("1.2.3.4:0x50", "number");
	refused("*:http", "number");
	refused("[::1]:80/", "number");
}

static void ipv4_is_strict(void **state)
{
	(void)state;
	refused("1.2.3:80", "not an IPv4 address");
	refused("1.2.3.4.5:80", "not an IPv4 address");
	refused("256.2.3.4:80", "not an IPv4 address");
	refused("01.2.3.4:80", "not an IPv4 address");
	refused("1.2.3.4.:80", "not an IPv4 address");
	refused("16909060:80", "not an IPv4 address");
	refused("1111111111111111111111111111111:80", "not an IPv4 address");
	refused(" 1.2.3.4:80", "not an address");
	refused("1.2.3.4 :80", "not an address");
	refused("", "address is missing");
	refused(":80", "address is missing");
}

static void ipv6_is_strict(void **state)
{
	(void)state;
	refused("::1:80", "brackets");
	refused("1:2:3:4:5:6:7:8", "brackets");
	refused("[::1:80", "']'");
	refused("[", "']'");
	refused("[]:80", "not an IPv6 address");
	refused("[1.2.3.4]:80", "not an IPv6 address");
	refused("[:::1]:80", "not an IPv6 address");
	refused("[1:2:3:4:5:6:7:8:9]:80", "not an IPv6 address");
	refused("[12345::]:80", "not an IPv6 address");
	refused("[::1 ]:80", "not an IPv6 address");
	refused("[*]:80", "not an IPv6 address");
	refused("[1111:2222:3333:4444:5555:6666:7777:8888:1111:2222:3333:4444:5555:6666]:80",
		"not an IPv6 address");
}

static void names_are_refused_as_not_supported_yet(void **state)
{
	(void)state;
	refused("localhost:80", "names are not supported yet");
	refused("app.example.org:80", "names are not supported yet");
	refused("a-very-long-name.that-is-longer.than-any-address.example.org:80",
		"names are not supported yet");
	refused("localhost", "names are not supported yet");
	refused("a b:80", "not an address");
	refused("http://x:80", "brackets");
}

static void scope_goes_with_link_local_addresses_only(void **state)
{
	struct addr one = parsed("[fe80::1%1]:80"), two = parsed("[fe80::1%2]:80");
	struct addr max = parsed("[fe80::1%4294967295]:80");

	(void)state;
	assert_int_equal(one.in6.sin6_scope_id, 1);
	assert_int_equal(max.in6.sin6_scope_id, 4294967295u);
	assert_false(addr_equal(&one, &two));
	reads_back_as("[fe80::1%2]:80", "[fe80::1%2]:80");
	parsed("[ff02::1%1]:80");
	parsed("[fe80::1]:80");
	refused("[::1%1]:80", "link-local");
	refused("[2001:db8::1%1]:80", "link-local");
	refused("[fe80::1%]:80", "interface");
	refused("[fe80::1%0]:80", "interface");
	refused("[fe80::1%4294967296]:80", "interface");
	refused("[fe80::1%no-such-if]:80", "interface");
	refused("[fe80::1%1%1]:80", "interface");
	refused("[fe80::1%an-interface-name-that-is-too-long-for-linux-to-take-it]:80", "");
}

static void scope_takes_an_interface_name(void **state)
{
	unsigned int index = if_nametoindex("lo");
	struct addr addr;

	(void)state;
	if (!index)
		skip();
	addr = parsed("[fe80::1%lo]:80");
	assert_int_equal(addr.in6.sin6_scope_id, index);
}

static void unix_path_may_fill_sun_path_but_for_the_terminator(void **state)
{
	char text[5 + 108 + 1], formatted[ADDR_TEXT_MAX];
	struct addr addr;

	(void)state;
	memset(text, 'a', sizeof(text));
	memcpy(text, "unix:/", 6);
	text[5 + 107] = '\0';
	addr = parsed(text);
	assert_true(addr_is_unix(&addr));
	assert_int_equal(addr.un.sun_path[107], '\0');
	assert_int_equal(addr.len, offsetof(struct sockaddr_un, sun_path) + 108);
	addr_format(&addr, formatted, sizeof(formatted));
	assert_string_equal(formatted, text);
	text[5 + 107] = 'a';
	text[5 + 108] = '\0';
	refused(text, "too long");
}

static void abstract_name_has_no_terminator(void **state)
{
	struct addr addr = parsed("unix:@ab");

	(void)state;
	assert_int_equal(addr.len, offsetof(struct sockaddr_un, sun_path) + 3);
	assert_memory_equal(addr.un.sun_path, "\0ab", 3);
}

static void unix_names_are_strict(void **state)
{
	(void)state;
	refused("unix:", "absolute");
	refused("unix:relative", "absolute");
	refused("unix:@", "name is missing");
	refused("unix:/a b", "spaces");
	refused("unix:/a ;b", "spaces");
	refused("unix:/a\tb", "spaces");
	refused("unix:/a\x1b[31m", "control");
	refused("unix:/a\x7f", "control");
	refused("UNIX:/a", "");
	refused("unix", "names are not supported");
}

static void strangers_names_are_made_printable(void **state)
{
	struct addr addr = {.len = offsetof(struct sockaddr_un, sun_path)};
	char text[ADDR_TEXT_MAX];

	(void)state;
	addr.un.sun_family = AF_UNIX;
	addr_format(&addr, text, sizeof(text));
	assert_string_equal(text, "unix:"); /* unnamed, as a client's usually is */
	memcpy(addr.un.sun_path, "\0a\0\nb", 5);
	addr.len += 5;
	addr_format(&addr, text, sizeof(text));
	assert_string_equal(text, "unix:@a??b");
	memset(addr.un.sun_path, 'x',
		sizeof(addr.un.sun_path)); /* the kernel may leave no terminator */
	addr.len = sizeof(addr.un);
	addr_format(&addr, text, sizeof(text));
	assert_int_equal(strlen(text), 5 + sizeof(addr.un.sun_path));
}

static void format_never_writes_past_the_buffer(void **state)
{
	struct addr addr = parsed("[2001:db8::1]:80");
	char text[8];

	(void)state;
	memset(text, 'z', sizeof(text));
	addr_format(&addr, text, 5);
	assert_string_equal(text, "[200");
	assert_int_equal(text[5], 'z');
}

static void different_addresses_are_not_equal(void **state)
{
	static const char *const texts[] = {"1.2.3.4:80", "1.2.3.4:81", "1.2.3.5:80", "[::1]:80",
		"[::1]:81", "[::2]:80", "*:80", "[::]:80", "0.0.0.0:80", "unix:/a", "unix:/ab",
		"unix:@a", "unix:@/a"};
	struct addr empty = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct addr a = parsed(texts[i]);

		assert_false(addr_equal(&a, &empty));
		for (size_t k = 0; k < ARRAY_LEN(texts); k++) {
			struct addr b = parsed(texts[k]);

			assert_int_equal(addr_equal(&a, &b), i == k);
		}
	}
	assert_true(addr_equal(&empty, &empty));
	assert_int_equal(addr_family(&empty), AF_UNSPEC);
}

static void unix_path_equals_itself_with_the_kernels_length(void **state)
{
	struct addr a = parsed("unix:/a"), b = a;

	(void)state;
	b.len = sizeof(b.un); /* getsockname() may count more than the path */
	assert_true(addr_equal(&a, &b));
	b.len = a.len - 1;
	assert_true(addr_equal(&a, &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ipv4_is_parsed_into_sockaddr_in),
		cmocka_unit_test(ipv6_is_parsed_into_sockaddr_in6),
		cmocka_unit_test(star_is_dual_stack_any),
		cmocka_unit_test(every_form_formats_as_it_was_written),
		cmocka_unit_test(ipv4_mapped_is_ipv4),
		cmocka_unit_test(ports_are_strict),
		cmocka_unit_test(ipv4_is_strict),
		cmocka_unit_test(ipv6_is_strict),
		cmocka_unit_test(names_are_refused_as_not_supported_yet),
		cmocka_unit_test(scope_goes_with_link_local_addresses_only),
		cmocka_unit_test(scope_takes_an_interface_name),
		cmocka_unit_test(unix_path_may_fill_sun_path_but_for_the_terminator),
		cmocka_unit_test(abstract_name_has_no_terminator),
		cmocka_unit_test(unix_names_are_strict),
		cmocka_unit_test(strangers_names_are_made_printable),
		cmocka_unit_test(format_never_writes_past_the_buffer),
		cmocka_unit_test(different_addresses_are_not_equal),
		cmocka_unit_test(unix_path_equals_itself_with_the_kernels_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
