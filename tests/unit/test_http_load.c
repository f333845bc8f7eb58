/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients that are slow, greedy or many, and a server that runs out of descriptors or stops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "../../daemon/http_clients.h"
#include "http_fixture.h"

#define MANY 300

static unsigned int count_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static uint64_t cpu_ms(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

static bool is_closed(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT | MSG_PEEK);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

static void close_all(const int *fds, unsigned int n)
{
	while (n)
		close(fds[--n]);
}

static void test_a_byte_now_and_then_does_not_keep_a_connection(void **state)
{
	int fds[] = {connect_tcp(*state), connect_unix(*state)};
	uint64_t start_ns = now_ns();
	unsigned int i;

	while (!is_closed(fds[0]) || !is_closed(fds[1])) {
		assert_true(now_ns() - start_ns < 2000000000ull);
		for (i = 0; i < 2; i++)
			(void)!send(fds[i], "G", 1, MSG_NOSIGNAL);
		usleep(20000);
	}
	assert_true(now_ns() - start_ns >= (SHORT_STEP_MS - 50) * 1000000ull);
	close_all(fds, 2);
}

static void test_a_connection_that_asks_nothing_is_closed(void **state)
{
	int fd = connect_tcp(*state);
	size_t len;

	free(receive_all(fd, 2000, &len));
	assert_int_equal(len, 0);
	close(fd);
}

static void test_a_client_that_does_not_read_is_aborted(void **state)
{
	struct server *server = *state;
	uint64_t end = now_ns() + 2000000000ull;
	int fd = connect_tcp(server), error = 0;
	socklen_t len = sizeof(error);

	server->body_len = 64 << 20;
	send_all(fd, METRICS);
	while (!error) {
		assert_true(now_ns() < end);
		usleep(10000);
		assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	}
	assert_int_equal(error, ECONNRESET);
	close(fd);
}

/* The last part may be unread when the server closes: the client may see the abort instead. */
static void expect_refused(int fd, const char *start, size_t padding)
{
	char *request = malloc(strlen(start) + padding + 1);
	size_t len;
	char *answer;

	assert_non_null(request);
	strcpy(request, start);
	memset(request + strlen(start), 'a', padding);
	(void)!send(fd, request, strlen(start) + padding, MSG_NOSIGNAL);
	answer = receive_all(fd, 1000, &len);
	if (len)
		assert_int_equal(strncmp(answer, "HTTP/1.1 4", 10), 0);
	free(answer);
	free(request);
	close(fd);
}

static void test_a_body_that_drips_does_not_keep_a_connection(void **state)
{
	struct server *server = *state;
	uint64_t start_ns = now_ns();
	int fd = connect_unix(server);

	send_all(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n");
	while (!is_closed(fd)) {
		assert_true(now_ns() - start_ns < 2000000000ull);
		(void)!send(fd, "x", 1, MSG_NOSIGNAL);
		usleep(20000);
	}
	assert_int_equal(server->calls, 0);
	close(fd);
}

static void test_a_handler_that_takes_its_time_costs_nobody_the_answer(void **state)
{
	struct server *server = *state;
	int fds[3];

	server->sleep_ms = 2 * SHORT_STEP_MS;
	for (unsigned int i = 0; i < ARRAY_LEN(fds); i++) {
		fds[i] = connect_unix(server);
		usleep(20000); /* connected and read, or waiting behind the first */
		send_all(fds[i], METRICS);
	}
	for (unsigned int i = 0; i < ARRAY_LEN(fds); i++) {
		char *text = receive_all(fds[i], 5000, NULL);

		expect_status(text, 200);
		free(text);
		close(fds[i]);
	}
}

static void test_headers_beyond_the_limit_are_refused_at_once(void **state)
{
	expect_refused(connect_tcp(*state), "GET / HTTP/1.1\r\nX: ", 20000);
	expect_refused(connect_unix(*state), "GET / HTTP/1.1\r\nX: ", 20000);
	expect_refused(connect_tcp(*state), "GET /", 20000);
	expect_refused(connect_tcp(*state), "", 1000000);
	expect_scrape_in_time(*state);
}

static void test_idle_connections_do_not_lock_out_a_scrape(void **state)
{
	struct server *server = *state;
	unsigned int i, before = count_open_fds();
	int fds[MANY];

	for (i = 0; i < MANY; i++)
		fds[i] = i % 2 ? connect_tcp(server) : connect_unix(server);
	expect_scrape_in_time(server);
	expect_scrape_in_time(server);
	assert_in_range(count_open_fds(), before + MANY, before + MANY + HTTP_CLIENTS_MAX);
	close_all(fds, MANY);
}

static void test_half_sent_requests_do_not_lock_out_a_scrape(void **state)
{
	struct server *server = *state;
	unsigned int i;
	int fds[MANY];

	for (i = 0; i < MANY; i++) {
		fds[i] = connect_tcp(server);
		send_all(fds[i], "GET /metrics HTTP/1.1\r\nHost: ");
	}
	expect_scrape_in_time(server);
	close_all(fds, MANY);
}

static void test_slow_readers_do_not_lock_out_a_scrape(void **state)
{
	struct server *server = *state;
	int small = 4096;
	unsigned int i;
	int fds[MANY];

	server->body_len = 1 << 20;
	for (i = 0; i < MANY; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		assert_int_equal(
			connect(fds[i], (struct sockaddr *)&server->tcp, sizeof(server->tcp)), 0);
		send_all(fds[i], METRICS);
	}
	server->body_len = 10;
	expect_scrape_in_time(server);
	expect_scrape_in_time(server);
	close_all(fds, MANY);
}

static void test_connections_that_come_and_go_leave_nothing_behind(void **state)
{
	unsigned int i, before = count_open_fds();

	for (i = 0; i < 1000; i++) {
		int fd = i % 2 ? connect_tcp(*state) : connect_unix(*state);

		if (i % 3 == 0)
			send_all(fd, "GET /metrics HTTP/1.1\r\n");
		close(fd);
	}
	expect_scrape_in_time(*state);
	for (i = 0; i < 100 && count_open_fds() > before; i++)
		usleep(10000);
	assert_int_equal(count_open_fds(), before);
}

static void test_without_descriptors_it_waits_and_does_not_spin(void **state)
{
	struct server *server = *state;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), unused = dup(fd);
	struct rlimit limit, full;
	uint64_t cpu;
	char *answer;

	close(unused);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	full = limit;
	full.rlim_cur = (rlim_t)unused;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &full), 0);
	cpu = cpu_ms();
	assert_int_equal(connect(fd, (struct sockaddr *)&server->tcp, sizeof(server->tcp)), 0);
	send_all(fd, METRICS);
	usleep(500000);
	assert_false(is_closed(fd));
	assert_in_range(cpu_ms() - cpu, 0, 100);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	answer = receive_all(fd, 1000, NULL);
	expect_status(answer, 200);
	free(answer);
	close(fd);
}

static void test_a_listener_that_was_shut_down_is_left_alone(void **state)
{
	struct server *server = *state;
	uint64_t cpu = cpu_ms();
	char *answer;

	shutdown(server->listen_fds[0], SHUT_RDWR);
	usleep(300000);
	assert_in_range(cpu_ms() - cpu, 0, 100);
	answer = ask(connect_unix(server), METRICS);
	expect_status(answer, 200);
	free(answer);
}

static void test_after_a_stop_the_sockets_are_still_the_callers(void **state)
{
	struct server *server = *state;
	int open_tcp = connect_tcp(server), open_unix = connect_unix(server);
	int waiting_tcp, waiting_unix, accepting = 0;
	socklen_t len = sizeof(accepting);
	struct stat st;
	char *answer;

	usleep(50000);
	http_stop(server->http);
	server->http = NULL;
	assert_true(is_closed(open_tcp) && is_closed(open_unix));
	close(open_tcp);
	close(open_unix);
	assert_int_equal(
		getsockopt(server->listen_fds[0], SOL_SOCKET, SO_ACCEPTCONN, &accepting, &len), 0);
	assert_true(accepting);
	assert_int_equal(stat(server->unix_addr.sun_path, &st), 0);
	/* What comes in between is answered by the next one. */
	waiting_tcp = connect_tcp(server);
	waiting_unix = connect_unix(server);
	assert_int_equal(start(server, 0), 0);
	answer = ask(waiting_tcp, METRICS);
	expect_status(answer, 200);
	free(answer);
	answer = ask(waiting_unix, METRICS);
	expect_status(answer, 200);
	free(answer);
}

static void test_a_stop_in_the_middle_of_answers_is_clean(void **state)
{
	struct server *server = *state;
	unsigned int i, before = count_open_fds();
	int fds[40];

	server->body_len = 1 << 20;
	for (i = 0; i < ARRAY_LEN(fds); i++) {
		fds[i] = connect_tcp(server);
		send_all(fds[i], METRICS);
	}
	http_stop(server->http);
	server->http = NULL;
	assert_true(count_open_fds() < before + ARRAY_LEN(fds));
	close_all(fds, ARRAY_LEN(fds));
}

static void test_a_descriptor_that_cannot_be_watched_is_an_error(void **state)
{
	const struct http_handlers handlers = {.arg = NULL};
	int none = -1, file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	unsigned int before = count_open_fds();
	struct http *http = NULL;

	(void)state;
	assert_int_equal(http_start(&none, 1, &handlers, &http), -EBADF);
	assert_int_equal(http_start(&file, 1, &handlers, &http), -EPERM);
	assert_null(http);
	assert_int_equal(count_open_fds(), before);
	close(file);
	http_stop(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_SHORT(name) cmocka_unit_test_setup_teardown(name, setup_short, teardown)
#define TEST_WRITABLE_SHORT(name) \
	cmocka_unit_test_setup_teardown(name, setup_writable_short, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_SHORT(test_a_byte_now_and_then_does_not_keep_a_connection),
		TEST_SHORT(test_a_connection_that_asks_nothing_is_closed),
		TEST_SHORT(test_a_client_that_does_not_read_is_aborted),
		TEST_WRITABLE_SHORT(test_a_body_that_drips_does_not_keep_a_connection),
		TEST_WRITABLE_SHORT(test_a_handler_that_takes_its_time_costs_nobody_the_answer),
		TEST(test_headers_beyond_the_limit_are_refused_at_once),
		TEST(test_idle_connections_do_not_lock_out_a_scrape),
		TEST(test_half_sent_requests_do_not_lock_out_a_scrape),
		TEST(test_slow_readers_do_not_lock_out_a_scrape),
		TEST_SHORT(test_connections_that_come_and_go_leave_nothing_behind),
		TEST(test_without_descriptors_it_waits_and_does_not_spin),
		TEST(test_a_listener_that_was_shut_down_is_left_alone),
		TEST(test_after_a_stop_the_sockets_are_still_the_callers),
		TEST(test_a_stop_in_the_middle_of_answers_is_clean),
		cmocka_unit_test(test_a_descriptor_that_cannot_be_watched_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
