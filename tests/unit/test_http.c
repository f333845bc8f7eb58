/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests and answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http_fixture.h"

#define REQUEST(method, path) method " " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void expect_answer(int fd, const char *request, int status, const char *text)
{
	char *answer = ask(fd, request);

	expect_status(answer, status);
	if (!strstr(answer, text))
		fail_msg("no \"%s\" in: %s", text, answer);
	free(answer);
}

static void test_healthz_is_ok_over_tcp_and_unix(void **state)
{
	expect_answer(connect_tcp(*state), REQUEST("GET", "/healthz"), 200, "\r\n\r\nok\n");
	expect_answer(connect_unix(*state), REQUEST("GET", "/healthz"), 200, "\r\n\r\nok\n");
}

static void test_metrics_are_text_unless_openmetrics_is_asked_for(void **state)
{
	expect_answer(connect_tcp(*state), REQUEST("GET", "/metrics"), 200, "tttttttttt");
	expect_answer(connect_tcp(*state), REQUEST("GET", "/metrics"), 200,
		"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n");
#define OPEN                                                        \
	"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" \
	"Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n"
	expect_answer(connect_unix(*state), OPEN, 200, "oooooooooo");
	expect_answer(connect_unix(*state), OPEN, 200,
		"Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n");
}

static void test_the_preferred_format_wins(void **state)
{
#define OM "application/openmetrics-text"
	static const struct {
		const char *accept;
		bool openmetrics;
	} cases[] = {
		{NULL, false},
		{"", false},
		{"*/*", false},
		{"text/plain", false},
		{"text/html,application/xhtml+xml,*/*;q=0.8", false},
		{OM, true},
		{OM "; version=1.0.0; charset=utf-8", true},
		{OM ";version=\"1.0.0\"", true},
		{"APPLICATION/OpenMetrics-Text ; Version=1.0.0", true},
		{OM ";version=0.0.1", false},
		{OM ";version=1.0.0;q=0", false},
		{OM ";q=junk", false},
		{OM ";q=2", false},
		{OM "x", false},
		{OM ";version=1.0.0;q=0.5," OM
		    ";version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,"
		    "*/*;q=0.2",
			true},
		{OM ";version=1.0.0;escaping=allow-utf-8;q=0.6," OM
		    ";version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.2",
			true},
		{OM ";q=0.3, text/plain;q=0.31", false},
		{OM ";q=0.301, text/plain;q=0.3", true},
		{"text/plain, " OM, true},
		{OM ";q=0.9, */*", false},
		{",, ;;=, ;q=, " OM ",", true},
		{OM ";q=1.000", true},
		{OM ";q=0.9999999", false},
	};
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++)
		if (http_accepts_openmetrics(cases[i].accept) != cases[i].openmetrics)
			fail_msg("case %u: %s", i, cases[i].accept);
}

static void test_head_answers_like_get_without_the_body(void **state)
{
	char *head = ask(connect_tcp(*state), REQUEST("HEAD", "/metrics"));

	expect_status(head, 200);
	assert_non_null(strstr(head, "Content-Length: 10\r\n"));
	assert_string_equal(strstr(head, "\r\n\r\n"), "\r\n\r\n");
	free(head);
	expect_answer(connect_tcp(*state), REQUEST("HEAD", "/nothing"), 404, "\r\n\r\n");
}

static void test_readyz_is_what_the_handler_says(void **state)
{
	struct server *server = *state;

	expect_answer(connect_tcp(server), REQUEST("GET", "/readyz"), 200, "\r\n\r\nready\n");
	server->ready = false;
	expect_answer(connect_tcp(server), REQUEST("GET", "/readyz"), 503,
		"\r\n\r\nbackend app has no server\n");
}

static void test_metrics_that_cannot_be_made_are_a_500(void **state)
{
	struct server *server = *state;

	server->error = -ENOMEM;
	expect_answer(connect_tcp(server), REQUEST("GET", "/metrics"), 500, strerror(ENOMEM));
}

static void test_the_index_names_every_page(void **state)
{
	expect_answer(connect_tcp(*state), REQUEST("GET", "/"), 200, "\n/metrics ");
	expect_answer(connect_tcp(*state), REQUEST("GET", "/"), 200, "\n/healthz ");
	expect_answer(connect_tcp(*state), REQUEST("GET", "/"), 200, "\n/readyz ");
}

static void test_an_unknown_path_is_not_found(void **state)
{
	expect_answer(connect_tcp(*state), REQUEST("GET", "/metrics/"), 404, "not found");
	expect_answer(connect_tcp(*state), REQUEST("GET", "/../etc/passwd"), 404, "not found");
	expect_answer(connect_tcp(*state), REQUEST("GET", "/healthz?verbose=1"), 200, "ok");
}

static void test_other_methods_are_refused_without_waiting_for_the_body(void **state)
{
	static const char *const methods[] = {"PUT", "DELETE", "OPTIONS", "TRACE", "get", "X"};
	char request[128];
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(methods); i++) {
		snprintf(request, sizeof(request),
			"%s / HTTP/1.1\r\nHost: x\r\n"
			"Connection: close\r\n\r\n",
			methods[i]);
		expect_answer(connect_tcp(*state), request, 405, "Allow: GET, HEAD\r\n");
	}
	expect_answer(connect_tcp(*state),
		"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", 405,
		"Allow: GET, HEAD\r\n");
}

static void test_a_get_with_a_body_is_closed(void **state)
{
	char *answer = ask(connect_tcp(*state), "GET /metrics HTTP/1.1\r\nHost: x\r\n"
						"Content-Length: 1000000000\r\n\r\nxxxxxxxx");

	assert_null(strstr(answer, "tttt"));
	free(answer);
	expect_scrape_in_time(*state);
}

static void test_a_connection_serves_one_request_and_is_closed(void **state)
{
	char *answer;

	answer = ask(connect_tcp(*state), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
					  "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
	expect_status(answer, 200);
	assert_non_null(strstr(answer, "Connection: close\r\n"));
	assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\nok\n");
	free(answer);
}

static void test_a_client_that_has_sent_its_fin_gets_the_whole_answer(void **state)
{
	struct server *server = *state;
	int fds[] = {connect_tcp(server), connect_unix(server)};
	unsigned int i;

	server->body_len = 8 << 20;
	for (i = 0; i < ARRAY_LEN(fds); i++) {
		size_t len;
		char *answer;

		send_all(fds[i], METRICS);
		assert_int_equal(shutdown(fds[i], SHUT_WR), 0);
		answer = receive_all(fds[i], 5000, &len);
		assert_true(len > server->body_len);
		free(answer);
		close(fds[i]);
	}
}

static void test_http_1_0_is_answered_and_closed(void **state)
{
	char *answer = ask(connect_unix(*state), "GET /healthz HTTP/1.0\r\n\r\n");

	assert_non_null(strstr(answer, " 200 OK\r\n"));
	assert_non_null(strstr(answer, "\r\n\r\nok\n"));
	free(answer);
}

static void test_garbage_is_never_answered_with_200(void **state)
{
	static const char *const garbage[] = {"\x16\x03\x01\x02\r\n\r\n", "GET\r\n\r\n",
		"GET /metrics\r\n\r\n", "GET /metrics HTTP/9.9\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nContent-Length: x\r\n\r\n"};
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(garbage); i++) {
		char *answer = ask(connect_tcp(*state), garbage[i]);

		assert_null(strstr(answer, " 200 "));
		free(answer);
	}
	expect_scrape_in_time(*state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_healthz_is_ok_over_tcp_and_unix),
		TEST(test_metrics_are_text_unless_openmetrics_is_asked_for),
		cmocka_unit_test(test_the_preferred_format_wins),
		TEST(test_head_answers_like_get_without_the_body),
		TEST(test_readyz_is_what_the_handler_says),
		TEST(test_metrics_that_cannot_be_made_are_a_500),
		TEST(test_the_index_names_every_page),
		TEST(test_an_unknown_path_is_not_found),
		TEST(test_other_methods_are_refused_without_waiting_for_the_body),
		TEST(test_a_get_with_a_body_is_closed),
		TEST(test_a_connection_serves_one_request_and_is_closed),
		TEST(test_a_client_that_has_sent_its_fin_gets_the_whole_answer),
		TEST(test_http_1_0_is_answered_and_closed),
		TEST(test_garbage_is_never_answered_with_200),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
