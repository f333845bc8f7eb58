/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Owns the connections of the stats addresses; the only file with libmicrohttpd. Must not know what
 * the pages say.
 *
 * Accepting is done here, and libmicrohttpd gets single connections: on its own it closes the
 * listening socket that it is given, spins on EMFILE while it has no connection, lets idle clients
 * lock out the scraper, and starts its timeout anew with each byte of a slow client.
 */
#include "http.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_clients.h"
#include "http_listen.h"

#define STEP_TIMEOUT_MS 10000
#define CONNECTION_MEMORY ((size_t)16 * 1024)
/* Less than half of the slots: a new client is looked at before it can be the oldest idle one. */
#define ACCEPT_BATCH 16
#define THREAD_NICE 5 /* traffic first */
#define NS_PER_MS 1000000ull

/* Tags in the epoll set, beside the indexes of the listening descriptors. */
#define TAG_STOP UINT32_MAX
#define TAG_MHD (UINT32_MAX - 1)

struct http {
	struct http_handlers handlers;
	struct http_clients clients;
	struct http_listen listen;
	struct MHD_Daemon *mhd;
	pthread_t thread;
	int epoll_fd;
	int stop_fd;
};

static void notify_connection(void *arg, struct MHD_Connection *connection, void **context,
	enum MHD_ConnectionNotificationCode code)
{
	const union MHD_ConnectionInfo *info;
	struct http *http = arg;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		*context = http_clients_add(&http->clients, info->connect_fd);
		assert(*context); /* the limit on connections is the number of slots */
	} else {
		http_clients_enter(&http->clients, *context, HTTP_STEP_FREE);
	}
}

static struct http_client *client_of(struct MHD_Connection *connection)
{
	return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)
		->socket_context;
}

/*
 * Takes a malloc()ed body. One request per connection: scrapes are too far apart to gain from more,
 * and libmicrohttpd would keep a connection whose FIN came together with the request
 * (edge-triggered epoll).
 */
static enum MHD_Result reply(struct MHD_Connection *connection, unsigned int status,
	const char *content_type, char *body, size_t len)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	response = MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(body);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result reply_text(
	struct MHD_Connection *connection, unsigned int status, const char *text)
{
	char *body;
	int len = asprintf(&body, "%s\n", text);

	if (len < 0)
		return MHD_NO;
	return reply(connection, status, "text/plain; charset=utf-8", body, (size_t)len);
}

static enum MHD_Result get_metrics(struct http *http, struct MHD_Connection *connection)
{
	static const char *const types[] = {
		"text/plain; version=0.0.4; charset=utf-8",
		"application/openmetrics-text; version=1.0.0; charset=utf-8",
	};
	bool openmetrics;
	char *body;
	size_t len;
	int r;

	openmetrics = http_accepts_openmetrics(
		MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT));
	r = http->handlers.metrics(http->handlers.arg, openmetrics, &body, &len);
	if (r < 0)
		return reply_text(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, strerror(-r));
	return reply(connection, MHD_HTTP_OK, types[openmetrics], body, len);
}

static enum MHD_Result get_healthz(struct http *http, struct MHD_Connection *connection)
{
	(void)http;
	return reply_text(connection, MHD_HTTP_OK, "ok");
}

static enum MHD_Result get_readyz(struct http *http, struct MHD_Connection *connection)
{
	char why[256] = "not ready";

	if (http->handlers.ready(http->handlers.arg, why, sizeof(why)))
		return reply_text(connection, MHD_HTTP_OK, "ready");
	return reply_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, why);
}

static enum MHD_Result get_index(struct http *http, struct MHD_Connection *connection);

static const struct {
	const char *path, *what;
	enum MHD_Result (*get)(struct http *http, struct MHD_Connection *connection);
} pages[] = {
	{"/", "this list", get_index},
	{"/healthz", "200 while the daemon answers", get_healthz},
	{"/metrics", "Prometheus or OpenMetrics text", get_metrics},
	{"/readyz", "200 when ready for traffic, else 503 and why", get_readyz},
};

static enum MHD_Result get_index(struct http *http, struct MHD_Connection *connection)
{
	char text[512] = "shunt";
	size_t i, used = strlen(text);

	(void)http;
	for (i = 0; i < ARRAY_LEN(pages) && used < sizeof(text); i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "\n%-10s %s",
			pages[i].path, pages[i].what);
	return reply_text(connection, MHD_HTTP_OK, text);
}

/* Called once for the headers, then with each part of a body, then for the answer. */
static enum MHD_Result handle_request(void *arg, struct MHD_Connection *connection,
	const char *path, const char *method, const char *version, const char *upload,
	size_t *upload_size, void **request)
{
	struct http *http = arg;
	size_t i;

	(void)version;
	(void)upload;
	if (!*request) {
		*request = client_of(connection);
		http_clients_enter(&http->clients, *request, HTTP_STEP_BUSY);
		/* An answer now means that the body, if any, is not waited for. */
		if (strcmp(method, MHD_HTTP_METHOD_GET) && strcmp(method, MHD_HTTP_METHOD_HEAD))
			return reply_text(
				connection, MHD_HTTP_METHOD_NOT_ALLOWED, "method not allowed");
		return MHD_YES;
	}
	if (*upload_size)
		return MHD_NO; /* no page takes a body */
	for (i = 0; i < ARRAY_LEN(pages); i++)
		if (!strcmp(path, pages[i].path))
			return pages[i].get(http, connection);
	return reply_text(connection, MHD_HTTP_NOT_FOUND, "not found");
}

static void accept_some(struct http *http, unsigned int index)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int fd, i;

	for (i = 0; i < ACCEPT_BATCH; i++) {
		fd = http_listen_accept(&http->listen, index, &addr, &len);
		if (fd < 0)
			return;
		if (!http->clients.counts[HTTP_STEP_FREE]) {
			http_clients_drop_one(&http->clients);
			MHD_run(http->mhd);
		}
		/* Closes fd if it cannot take it. */
		MHD_add_connection(http->mhd, fd, (struct sockaddr *)&addr, len);
	}
}

/* Milliseconds until something must be done without an event; -1: never. */
static int next_wait(struct http *http)
{
	uint64_t at = MIN(
		http_clients_deadline_ns(&http->clients), http_listen_deadline_ns(&http->listen));
	MHD_UNSIGNED_LONG_LONG pending;
	uint64_t now = now_ns();

	/* It keeps no timeouts for us, but may hold input that makes no further event. */
	if (MHD_get_timeout(http->mhd, &pending) == MHD_YES)
		at = MIN(at, now + pending * NS_PER_MS);
	if (at == UINT64_MAX)
		return -1;
	return at <= now ? 0 : (int)MIN((at - now + NS_PER_MS - 1) / NS_PER_MS, INT_MAX);
}

static void *thread_main(void *arg)
{
	struct epoll_event events[16];
	struct http *http = arg;
	bool stop = false;
	int i, n;

	setpriority(PRIO_PROCESS, (id_t)gettid(), THREAD_NICE);
	while (!stop) {
		n = epoll_wait(http->epoll_fd, events, ARRAY_LEN(events), next_wait(http));
		for (i = 0; i < n; i++) {
			if (events[i].data.u32 == TAG_STOP)
				stop = true;
			else if (events[i].data.u32 != TAG_MHD)
				accept_some(http, events[i].data.u32);
		}
		http_clients_drop_overdue(&http->clients);
		MHD_run(http->mhd);
		http_listen_resume_when_due(&http->listen);
	}
	return NULL;
}

/* No error log: its messages are about single clients, nothing that an operator has to know. */
static int start_mhd(struct http *http)
{
	/* clang-format off */
	http->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL,
		handle_request, http,
		MHD_OPTION_NOTIFY_CONNECTION, notify_connection, http,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned int)HTTP_CLIENTS_MAX,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,
		MHD_OPTION_END);
	/* clang-format on */
	return http->mhd ? 0 : -ENOMEM;
}

static int watch(struct http *http, int fd, uint32_t tag)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = tag};

	return epoll_ctl(http->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int watch_all(struct http *http, const int *listen_fds, unsigned int n)
{
	int mhd_fd = MHD_get_daemon_info(http->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	int r = watch(http, http->stop_fd, TAG_STOP);

	if (!r)
		r = watch(http, mhd_fd, TAG_MHD);
	if (!r)
		r = http_listen_init(&http->listen, http->epoll_fd, listen_fds, n);
	return r;
}

/* Signals are for the event loops. */
static int start_thread(struct http *http)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&http->thread, NULL, thread_main, http);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!r)
		pthread_setname_np(http->thread, "shunt-http");
	return -r;
}

static void http_free(struct http *http)
{
	if (http->mhd)
		MHD_stop_daemon(http->mhd);
	if (http->stop_fd >= 0)
		close(http->stop_fd);
	if (http->epoll_fd >= 0)
		close(http->epoll_fd);
	http_listen_done(&http->listen);
	free(http);
}

int http_start(const int *listen_fds, unsigned int n, const struct http_handlers *handlers,
	struct http **ret)
{
	unsigned int timeout_ms = handlers->step_timeout_ms;
	struct http *http = calloc(1, sizeof(*http));
	int r;

	if (!http)
		return -ENOMEM;
	http->handlers = *handlers;
	http_clients_init(&http->clients, (timeout_ms ? timeout_ms : STEP_TIMEOUT_MS) * NS_PER_MS);
	http->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	http->stop_fd = eventfd(0, EFD_CLOEXEC);
	r = http->epoll_fd < 0 || http->stop_fd < 0 ? -errno : start_mhd(http);
	if (!r)
		r = watch_all(http, listen_fds, n);
	if (!r)
		r = start_thread(http);
	if (r < 0) {
		http_free(http);
		return r;
	}
	*ret = http;
	return 0;
}

void http_stop(struct http *http)
{
	if (!http)
		return;
	eventfd_write(http->stop_fd, 1);
	pthread_join(http->thread, NULL);
	http_free(http);
}
