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

static void test_a_request_is_answered_over_tcp_and_unix(void **state)
{
	expect_answer(connect_tcp(*state), REQUEST("GET", "/metrics"), 200, "tttttttttt");
	expect_answer(connect_unix(*state), REQUEST("GET", "/metrics"), 200, "tttttttttt");
	expect_answer(connect_unix(*state), REQUEST("GET", "/metrics"), 200,
		"Content-Type: text/x-test\r\n");
}

static void test_every_answer_forbids_what_a_page_does_not_need(void **state)
{
	static const char *const paths[] = {
		REQUEST("GET", "/metrics"), REQUEST("GET", "/none"), REQUEST("PUT", "/")};

	for (unsigned int i = 0; i < ARRAY_LEN(paths); i++) {
		char *text = ask(connect_tcp(*state), paths[i]);

		assert_non_null(strstr(text, "\r\nContent-Security-Policy: default-src 'none';"));
		assert_non_null(strstr(text, "\r\nX-Content-Type-Options: nosniff\r\n"));
		assert_non_null(strstr(text, "\r\nCache-Control: no-store\r\n"));
		free(text);
	}
}

static void test_the_peer_of_a_unix_socket_is_known_and_of_tcp_is_not(void **state)
{
	char text[96];

	snprintf(text, sizeof(text), "uid=%d gid=%d pid=%d ", (int)getuid(), (int)getgid(),
		(int)getpid());
	expect_answer(connect_unix(*state), REQUEST("GET", "/echo"), 200, text);
	expect_answer(connect_tcp(*state), REQUEST("GET", "/echo"), 200, "uid=-1 gid=-1 pid=-1 ");
}

static void test_a_query_is_decoded_and_a_path_is_not(void **state)
{
	static const struct {
		const char *request;
		int status;
		const char *text;
	} cases[] = {
		{REQUEST("GET", "/echo?a=1&b=2"), 200, "a=1 b=2 n=2"},
		{REQUEST("GET", "/echo?b=x%20y%2Bz+w"), 200, "a=none b=x y+z w n=1"},
		{REQUEST("GET", "/echo?a&b="), 200, "a= b= n=2"},
		{REQUEST("GET", "/echo?%61=%41"), 200, "a=A b=none"},
		{REQUEST("GET", "/echo?a=%"), 400, "broken escape"},
		{REQUEST("GET", "/echo?a=%4"), 400, "broken escape"},
		{REQUEST("GET", "/echo?a=%zz"), 400, "broken escape"},
		{REQUEST("GET", "/echo?a=x%00y"), 400, "broken escape"},
		{REQUEST("GET", "/echo?&&&=&a=1"), 200, "a=1"},
		{REQUEST("GET", "/echo?1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16"), 200, "n=16"},
		{REQUEST("GET", "/echo?1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16&17"), 400,
			"too many parameters"},
		{REQUEST("GET", "/%65cho"), 404, "\n/%65cho"},
		{REQUEST("GET", "/a%2Fb/c"), 404, "\n/a%2Fb/c"},
		{REQUEST("GET", "/metrics%00x"), 404, "/metrics%00x"},
	};

	for (unsigned int i = 0; i < ARRAY_LEN(cases); i++)
		expect_answer(
			connect_tcp(*state), cases[i].request, cases[i].status, cases[i].text);
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

static void test_a_handler_that_fails_is_a_500_with_its_reason(void **state)
{
	struct server *server = *state;

	server->error = -ENOMEM;
	expect_answer(connect_tcp(server), REQUEST("GET", "/metrics"), 500, strerror(ENOMEM));
}

static void test_a_handler_that_refuses_the_method_says_which_would_do(void **state)
{
	expect_answer(connect_tcp(*state), REQUEST("GET", "/refuse"), 405, "\r\nAllow: POST\r\n");
}

static void test_other_methods_are_refused_without_waiting_for_the_body(void **state)
{
	static const char *const methods[] = {
		"PUT", "POST", "DELETE", "OPTIONS", "TRACE", "get", "X"};
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

#define POST(headers, body) "POST /echo HTTP/1.1\r\nHost: x\r\n" headers "\r\n" body

static void test_a_writable_server_hands_on_the_body(void **state)
{
	expect_answer(
		connect_unix(*state), POST("Content-Length: 5\r\n", "hello"), 200, "POST uid=");
	expect_answer(
		connect_unix(*state), POST("Content-Length: 5\r\n", "hello"), 200, " body=hello");
	expect_answer(connect_unix(*state), POST("Content-Length: 0\r\n", ""), 200, " body=");
	expect_answer(connect_unix(*state),
		POST("Transfer-Encoding: chunked\r\n", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), 200,
		" body=hello");
	expect_answer(connect_unix(*state), REQUEST("DELETE", "/echo"), 200, "DELETE uid=");
	expect_answer(connect_unix(*state), REQUEST("PUT", "/echo"), 405,
		"Allow: GET, HEAD, POST, DELETE\r\n");
}

static void test_a_form_is_a_body_like_any_other(void **state)
{
	expect_answer(connect_unix(*state),
		POST("Content-Length: 5\r\nContent-Type: application/x-www-form-urlencoded\r\n",
			"b=%zz"),
		200, "b=none n=0 body=b=%zz");
}

static void test_a_body_is_bounded(void **state)
{
	size_t len = HTTP_BODY_MAX, head;
	char *request = malloc(len + 128), *text;
	int fd = connect_unix(*state);

	assert_non_null(request);
	head = (size_t)sprintf(request, POST("Content-Length: %zu\r\n", ""), len);
	memset(request + head, 'x', len);
	request[head + len] = '\0';
	text = ask(fd, request);
	expect_status(text, 200);
	assert_int_equal(strlen(strstr(text, "body=")), strlen("body=") + len);
	free(text);
	free(request);
	expect_answer(connect_unix(*state), POST("Content-Length: 65537\r\n", ""), 413,
		"larger than 64 KiB");
	expect_answer(connect_unix(*state), POST("Content-Length: 99999999999999999999\r\n", ""),
		413, "");
}

static void test_a_chunked_body_is_cut_off_at_the_bound(void **state)
{
	struct server *server = *state;
	int fd = connect_unix(server);
	char *text;

	send_all(fd, POST("Transfer-Encoding: chunked\r\n", ""));
	for (unsigned int i = 0; i < 1000; i++) {
		char chunk[1024 + 16];
		int n = sprintf(chunk, "400\r\n%01024d\r\n", 0);

		if (send(fd, chunk, (size_t)n, MSG_NOSIGNAL) != n)
			break;
	}
	text = receive_all(fd, 2000, NULL);
	assert_null(strstr(text, " 200 "));
	assert_int_equal(server->calls, 0);
	free(text);
	close(fd);
}

static void test_a_connection_serves_one_request_and_is_closed(void **state)
{
	char *answer;

	answer = ask(connect_tcp(*state), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
					  "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	expect_status(answer, 200);
	assert_non_null(strstr(answer, "Connection: close\r\n"));
	assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\ntttttttttt");
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
	char *answer = ask(connect_unix(*state), "GET /metrics HTTP/1.0\r\n\r\n");

	assert_non_null(strstr(answer, " 200 OK\r\n"));
	assert_non_null(strstr(answer, "\r\n\r\ntttttttttt"));
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
#define TEST_WRITABLE(name) cmocka_unit_test_setup_teardown(name, setup_writable, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_request_is_answered_over_tcp_and_unix),
		TEST(test_every_answer_forbids_what_a_page_does_not_need),
		TEST(test_the_peer_of_a_unix_socket_is_known_and_of_tcp_is_not),
		TEST(test_a_query_is_decoded_and_a_path_is_not),
		cmocka_unit_test(test_the_preferred_format_wins),
		TEST(test_head_answers_like_get_without_the_body),
		TEST(test_a_handler_that_fails_is_a_500_with_its_reason),
		TEST(test_a_handler_that_refuses_the_method_says_which_would_do),
		TEST(test_other_methods_are_refused_without_waiting_for_the_body),
		TEST(test_a_get_with_a_body_is_closed),
		TEST_WRITABLE(test_a_writable_server_hands_on_the_body),
		TEST_WRITABLE(test_a_form_is_a_body_like_any_other),
		TEST_WRITABLE(test_a_body_is_bounded),
		TEST_WRITABLE(test_a_chunked_body_is_cut_off_at_the_bound),
		TEST(test_a_connection_serves_one_request_and_is_closed),
		TEST(test_a_client_that_has_sent_its_fin_gets_the_whole_answer),
		TEST(test_http_1_0_is_answered_and_closed),
		TEST(test_garbage_is_never_answered_with_200),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
