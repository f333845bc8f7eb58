/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "client_hello.h"
#include "routes.h"

#define ROUTES(...)                                    \
	built((const struct route_row[]){__VA_ARGS__}, \
		ARRAY_LEN(((const struct route_row[]){__VA_ARGS__})))

static struct routes *built(const struct route_row *rows, size_t n)
{
	const char *error = "";
	size_t row = 0;
	struct routes *routes = routes_new(rows, n, &row, &error);

	if (!routes)
		fail_msg("row %zu, '%s': %s", row, rows[row].pattern, error);
	return routes;
}

static void the_name_itself_wins(void **state)
{
	struct routes *routes =
		ROUTES({"*", 1}, {"*.example.org", 2}, {"www.example.org", 3}, {"example.org", 4});

	(void)state;
	assert_int_equal(routes_find(routes, "www.example.org"), 3);
	assert_int_equal(routes_find(routes, "example.org"), 4);
	assert_int_equal(routes_find(routes, "app.example.org"), 2);
	assert_int_equal(routes_find(routes, "example.net"), 1);
	routes_free(routes);
}

static void a_wildcard_takes_every_depth_but_its_own_name(void **state)
{
	struct routes *routes = ROUTES({"*.example.org", 2});

	(void)state;
	assert_int_equal(routes_find(routes, "a.example.org"), 2);
	assert_int_equal(routes_find(routes, "a.b.c.d.e.example.org"), 2);
	assert_int_equal(routes_find(routes, "example.org"), -ENOENT);
	assert_int_equal(routes_find(routes, "badexample.org"), -ENOENT);
	assert_int_equal(routes_find(routes, "example.org.net"), -ENOENT);
	assert_int_equal(routes_find(routes, "org"), -ENOENT);
	routes_free(routes);
}

static void the_longest_wildcard_wins(void **state)
{
	struct routes *routes = ROUTES({"*.org", 1}, {"*.a.b.example.org", 4}, {"*.example.org", 2},
		{"*.b.example.org", 3});

	(void)state;
	assert_int_equal(routes_find(routes, "x.a.b.example.org"), 4);
	assert_int_equal(routes_find(routes, "a.b.example.org"), 3);
	assert_int_equal(routes_find(routes, "x.c.b.example.org"), 3);
	assert_int_equal(routes_find(routes, "b.example.org"), 2);
	assert_int_equal(routes_find(routes, "example.org"), 1);
	assert_int_equal(routes_find(routes, "org"), -ENOENT);
	routes_free(routes);
}

static void case_and_the_last_dot_do_not_count(void **state)
{
	struct routes *routes = ROUTES({"WWW.Example.org.", 0}, {"*.Example.NET", 1});

	(void)state;
	assert_int_equal(routes_find(routes, "www.EXAMPLE.ORG"), 0);
	assert_int_equal(routes_find(routes, "www.example.org."), 0);
	assert_int_equal(routes_find(routes, "WWW.EXAMPLE.NET."), 1);
	routes_free(routes);
}

static void without_a_name_there_is_the_default(void **state)
{
	struct routes *routes = ROUTES({"a", 7}, {"*", INT_MAX});

	(void)state;
	assert_int_equal(routes_default(routes), INT_MAX);
	assert_int_equal(routes_find(routes, NULL), INT_MAX);
	assert_int_equal(routes_find(routes, ""), INT_MAX);
	assert_int_equal(routes_find(routes, "*"), INT_MAX);
	assert_int_equal(routes_find(routes, "no name"), INT_MAX);
	assert_int_equal(routes_find(routes, ".a"), INT_MAX);
	routes_free(routes);
	routes = ROUTES({"a", 7});
	assert_int_equal(routes_default(routes), -ENOENT);
	assert_int_equal(routes_find(routes, NULL), -ENOENT);
	routes_free(routes);
	routes = built(NULL, 0);
	assert_int_equal(routes_find(routes, "a"), -ENOENT);
	routes_free(routes);
	routes_free(NULL);
}

static void pattern_refused(const char *pattern, const char *words)
{
	const struct route_row rows[] = {{"a", 0}, {pattern, 1}, {"b", 2}};
	const char *error = NULL, *again = NULL;
	size_t row = 99;

	if (routes_check(pattern, &error) != -EINVAL)
		fail_msg("'%s' was taken", pattern);
	if (!strstr(error, words))
		fail_msg("'%s': '%s' does not say '%s'", pattern, error, words);
	assert_null(routes_new(rows, ARRAY_LEN(rows), &row, &again));
	assert_int_equal(row, 1);
	assert_ptr_equal(again, error);
}

static void wrong_patterns_say_what_is_wrong(void **state)
{
	char label[70], longest[SERVER_NAME_MAX + 10];

	(void)state;
	memset(label, 'a', 64);
	strcpy(label + 64, ".org");
	memset(longest, 'a', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	pattern_refused("", "empty");
	pattern_refused(".", "empty");
	pattern_refused("*.", "after '*.' is missing");
	pattern_refused("**", "nowhere else");
	pattern_refused("*example.org", "nowhere else");
	pattern_refused("a.*.example.org", "nowhere else");
	pattern_refused("*.*.example.org", "nowhere else");
	pattern_refused("example.*", "nowhere else");
	pattern_refused("*..org", "two dots");
	pattern_refused("a..org", "two dots");
	pattern_refused(".example.org", "two dots");
	pattern_refused("b\xc3\xbc"
			"cher.example",
		"xn--");
	pattern_refused("example.org:443", "other characters");
	pattern_refused("https://example.org", "other characters");
	pattern_refused("~^www", "other characters");
	pattern_refused(label, "more than 63");
	pattern_refused(longest, "longer than 253");
}

static void right_patterns_are_taken(void **state)
{
	static const char *const patterns[] = {
		"*", "*.org", "localhost", "a.b", "*.xn--p1ai", "_sip.example.org", "EXAMPLE.org."};
	char longest[2 + SERVER_NAME_MAX + 1] = "*.";
	const char *error = "";
	struct routes *routes;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(patterns); i++)
		assert_int_equal(routes_check(patterns[i], &error), 0);
	for (size_t i = 0; i < SERVER_NAME_MAX; i++)
		longest[2 + i] = i % 2 ? '.' : 'a';
	routes = ROUTES({longest, 1}, {longest + 2, 2}, {"*.a", 3});
	assert_int_equal(routes_find(routes, longest + 2), 2);
	assert_int_equal(routes_find(routes, longest + 4), 3); /* two less, by 124 steps */
	routes_free(routes);
}

static void twice_is_refused(const char *a, const char *b)
{
	const struct route_row rows[] = {{"x", 0}, {a, 1}, {"y", 2}, {b, 3}};
	const char *error = "";
	size_t row = 0;

	assert_null(routes_new(rows, ARRAY_LEN(rows), &row, &error));
	assert_int_equal(row, 3);
	assert_string_equal(error, "the pattern is given twice");
}

static void the_same_pattern_twice_is_refused(void **state)
{
	(void)state;
	twice_is_refused("*", "*");
	twice_is_refused("a.org", "A.org");
	twice_is_refused("a.org", "a.org.");
	twice_is_refused("*.a.org", "*.A.org");
	routes_free(ROUTES({"a.org", 0}, {"*.a.org", 1}, {"*", 2}));
}

static void without_memory_there_are_no_routes(void **state)
{
	const struct route_row row = {"a", 0};
	const char *error = "";
	size_t at = 0;

	(void)state;
	assert_null(routes_new(&row, SIZE_MAX, &at, &error));
	assert_string_equal(error, "out of memory");
}

/* What routes.h says, without a hash: every row is tried. */
static int find_slowly(const struct route_row *rows, size_t n, const char *name)
{
	int found = -ENOENT;
	size_t best = 0, name_len = strlen(name);

	for (size_t i = 0; i < n; i++) {
		const char *pattern = rows[i].pattern;
		size_t len = strlen(pattern), weight = 0;

		if (strcasecmp(pattern, name) == 0)
			weight = 1000;
		else if (strcmp(pattern, "*") == 0)
			weight = 1;
		else if (pattern[0] == '*' && name_len >= len &&
			 strcasecmp(name + name_len - (len - 1), pattern + 1) == 0)
			weight = len;
		if (weight > best) {
			best = weight;
			found = (int)rows[i].backend;
		}
	}
	return found;
}

/* Of few labels, so that they meet. */
static void make_name(char *name, int labels)
{
	*name = '\0';
	for (int i = 0; i < labels; i++)
		sprintf(name + strlen(name), "%s%c", i ? "." : "", "aBcd"[rand() % 4]);
}

static void any_table_finds_what_its_rows_say(void **state)
{
	enum { ROWS = 40 };
	char texts[ROWS][64], name[64];
	struct route_row rows[ROWS];

	(void)state;
	srand(9);
	for (int round = 0; round < 300; round++) {
		struct routes *routes = NULL;
		size_t n = 0;

		for (unsigned int i = 0; i < ROWS; i++) {
			const char *error;
			size_t row;

			strcpy(texts[n], rand() % 2 ? "*." : "");
			make_name(texts[n] + strlen(texts[n]), 1 + rand() % 3);
			if (rand() % 40 == 0)
				strcpy(texts[n], "*");
			rows[n] = (struct route_row){texts[n], i};
			routes_free(routes);
			routes = routes_new(rows, n + 1, &row, &error);
			n += routes != NULL; /* else it was there already */
			if (!routes)
				routes = built(rows, n);
		}
		for (int i = 0; i < 200; i++) {
			make_name(name, 1 + rand() % 5);
			assert_int_equal(routes_find(routes, name), find_slowly(rows, n, name));
		}
		routes_free(routes);
	}
}

static void thousands_of_rows_are_found(void **state)
{
	enum { ROWS = 20000 };
	struct route_row *rows = calloc(ROWS, sizeof(*rows));
	struct routes *routes;
	char name[64];

	(void)state;
	assert_non_null(rows);
	for (unsigned int i = 0; i < ROWS; i++) {
		char *text = malloc(64);

		assert_non_null(text);
		sprintf(text, "%shost-%u.example.org", i % 2 ? "*." : "", i);
		rows[i] = (struct route_row){text, i};
	}
	routes = built(rows, ROWS);
	for (unsigned int i = 0; i < ROWS; i++) {
		sprintf(name, "%sHost-%u.example.org", i % 2 ? "a.b." : "", i);
		assert_int_equal(routes_find(routes, name), i);
		sprintf(name, "%shost-%u.example.org", i % 2 ? "" : "a.b.", i);
		assert_int_equal(routes_find(routes, name), -ENOENT);
	}
	for (unsigned int i = 0; i < ROWS; i++)
		free((void *)(uintptr_t)rows[i].pattern); /* it has copies */
	free(rows);
	assert_int_equal(routes_find(routes, "host-0.example.org"), 0);
	routes_free(routes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_name_itself_wins),
		cmocka_unit_test(a_wildcard_takes_every_depth_but_its_own_name),
		cmocka_unit_test(the_longest_wildcard_wins),
		cmocka_unit_test(case_and_the_last_dot_do_not_count),
		cmocka_unit_test(without_a_name_there_is_the_default),
		cmocka_unit_test(wrong_patterns_say_what_is_wrong),
		cmocka_unit_test(right_patterns_are_taken),
		cmocka_unit_test(the_same_pattern_twice_is_refused),
		cmocka_unit_test(without_memory_there_are_no_routes),
		cmocka_unit_test(any_table_finds_what_its_rows_say),
		cmocka_unit_test(thousands_of_rows_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
