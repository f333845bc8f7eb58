/* SPDX-License-Identifier: BSD-2-Clause */
/* A server on a loopback port and on a UNIX socket, and raw clients. Include after cmocka.h. */
#ifndef SHUNT_TESTS_HTTP_FIXTURE_H
#define SHUNT_TESTS_HTTP_FIXTURE_H

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../daemon/http.h"
#include "../../daemon/util.h"

#define SHORT_STEP_MS 300
#define METRICS "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

struct server {
	struct http *http;
	int listen_fds[2]; /* TCP, UNIX */
	struct sockaddr_in tcp;
	struct sockaddr_un unix_addr;
	char dir[32];
	/* What the handler answers on /metrics; /echo says what it was asked. */
	_Atomic size_t body_len;
	_Atomic int error;
	_Atomic unsigned int sleep_ms;
	_Atomic unsigned int calls;
	bool writable;
};

static inline int answer_metrics(struct server *server, struct http_response *response)
{
	response->body = malloc(server->body_len);
	if (!response->body)
		return -ENOMEM;
	memset(response->body, 't', server->body_len);
	response->len = server->body_len;
	response->content_type = "text/x-test";
	return server->error;
}

static inline int answer_echo(const struct http_request *request, struct http_response *response)
{
	const char *a = http_request_query(request, "a"), *b = http_request_query(request, "b");
	int len = asprintf(&response->body, "%s uid=%d gid=%d pid=%d a=%s b=%s n=%u body=%.*s",
		request->method, (int)request->uid, (int)request->gid, (int)request->pid,
		a ? a : "none", b ? b : "none", request->nquery, (int)request->body_len,
		request->body_len ? request->body : "");

	response->len = (size_t)len;
	return len < 0 ? -ENOMEM : 0;
}

static inline int answer(
	void *arg, const struct http_request *request, struct http_response *response)
{
	struct server *server = arg;

	server->calls++;
	if (server->sleep_ms)
		usleep(server->sleep_ms * 1000);
	if (!strcmp(request->path, "/metrics"))
		return answer_metrics(server, response);
	if (!strcmp(request->path, "/echo"))
		return answer_echo(request, response);
	if (!strcmp(request->path, "/refuse")) {
		response->allow = "POST";
		return http_respond_text(response, 405, "no");
	}
	return http_respond_text(response, 404, request->path);
}

static inline int start(struct server *server, unsigned int step_timeout_ms)
{
	const struct http_handlers handlers = {
		.arg = server,
		.handle = answer,
		.writable = server->writable,
		.step_timeout_ms = step_timeout_ms,
	};

	return http_start(server->listen_fds, 2, &handlers, &server->http);
}

static inline int open_server(void **state, unsigned int step_timeout_ms, bool writable)
{
	struct server *server = calloc(1, sizeof(*server));
	socklen_t len = sizeof(server->tcp);

	if (!server)
		return -1;
	*state = server;
	server->body_len = 10;
	server->writable = writable;
	server->tcp.sin_family = AF_INET;
	server->tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server->listen_fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(server->listen_fds[0], (struct sockaddr *)&server->tcp, len) < 0 ||
		listen(server->listen_fds[0], 1024) < 0 ||
		getsockname(server->listen_fds[0], (struct sockaddr *)&server->tcp, &len) < 0)
		return -1;
	snprintf(server->dir, sizeof(server->dir), "%s/shunt-XXXXXX", P_tmpdir);
	if (!mkdtemp(server->dir))
		return -1;
	server->unix_addr.sun_family = AF_UNIX;
	snprintf(server->unix_addr.sun_path, sizeof(server->unix_addr.sun_path), "%s/stats",
		server->dir);
	server->listen_fds[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(server->listen_fds[1], (struct sockaddr *)&server->unix_addr,
		    sizeof(server->unix_addr)) < 0 ||
		listen(server->listen_fds[1], 1024) < 0)
		return -1;
	return start(server, step_timeout_ms);
}

static inline int setup(void **state)
{
	return open_server(state, 0, false);
}

static inline int setup_short(void **state)
{
	return open_server(state, SHORT_STEP_MS, false);
}

static inline int setup_writable(void **state)
{
	return open_server(state, 0, true);
}

static inline int setup_writable_short(void **state)
{
	return open_server(state, SHORT_STEP_MS, true);
}

static inline int teardown(void **state)
{
	struct server *server = *state;

	http_stop(server->http);
	close(server->listen_fds[0]);
	close(server->listen_fds[1]);
	unlink(server->unix_addr.sun_path);
	rmdir(server->dir);
	free(server);
	return 0;
}

static inline int connect_tcp(const struct server *server)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(
		connect(fd, (const struct sockaddr *)&server->tcp, sizeof(server->tcp)), 0);
	return fd;
}

static inline int connect_unix(const struct server *server)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(
		connect(fd, (const struct sockaddr *)&server->unix_addr, sizeof(server->unix_addr)),
		0);
	return fd;
}

static inline void send_all(int fd, const char *text)
{
	size_t len = strlen(text);

	assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

/* Reads to the end, which must come within `ms`; an abort is an end too. Terminated; the caller
 * frees. */
static inline char *receive_all(int fd, int ms, size_t *ret_len)
{
	size_t size = 1 << 16, len = 0;
	char *text = malloc(size);
	uint64_t end = now_ns() + (uint64_t)ms * 1000000;

	for (;;) {
		struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
		uint64_t now = now_ns();
		ssize_t n;

		assert_true(now < end);
		if (poll(&poll_fd, 1, (int)((end - now) / 1000000) + 1) != 1)
			continue;
		if (size - len < 2)
			size *= 2;
		text = realloc(text, size);
		assert_non_null(text);
		n = recv(fd, text + len, size - len - 1, 0);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	text[len] = '\0';
	if (ret_len)
		*ret_len = len;
	return text;
}

/* One request, one answer, both at once closed. */
static inline char *ask(int fd, const char *request)
{
	char *answer;

	send_all(fd, request);
	answer = receive_all(fd, 5000, NULL);
	close(fd);
	return answer;
}

static inline void expect_status(const char *answer, int status)
{
	char line[32];

	snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
	assert_int_equal(strncmp(answer, line, strlen(line)), 0);
}

/* A scrape that must succeed, and within a second, whatever else goes on. */
static inline void expect_scrape_in_time(const struct server *server)
{
	int fd = connect_tcp(server);
	size_t len;
	char *answer;

	send_all(fd, METRICS);
	answer = receive_all(fd, 1000, &len);
	expect_status(answer, 200);
	assert_true(len > server->body_len);
	free(answer);
	close(fd);
}

#endif
