/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Owns the connections of the stats addresses or of the control socket. Must not know what is asked
 * for.
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
#include "http_exchange.h"
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
	struct http_exchange exchanges[HTTP_CLIENTS_MAX]; /* of the client in the same slot */
	struct http_listen listen;
	struct MHD_Daemon *mhd;
	pthread_t thread;
	int epoll_fd;
	int stop_fd;
};

static struct http_exchange *exchange_of(struct http *http, const struct http_client *client)
{
	return &http->exchanges[client - http->clients.slots];
}

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
		http_exchange_done(exchange_of(http, *context));
		http_clients_enter(&http->clients, *context, HTTP_STEP_FREE);
	}
}

static struct http_client *client_of(struct MHD_Connection *connection)
{
	return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)
		->socket_context;
}

/* Called once for the headers, then with each part of a body, then for the answer. */
static enum MHD_Result handle_request(void *arg, struct MHD_Connection *connection,
	const char *path, const char *method, const char *version, const char *upload,
	size_t *upload_size, void **request)
{
	struct http *http = arg;
	struct http_client *client = client_of(connection);
	struct http_exchange *exchange = exchange_of(http, client);
	enum MHD_Result result;
	uint64_t started_ns;
	bool answered;

	(void)version;
	if (client->step == HTTP_STEP_DROPPED)
		return MHD_NO; /* its request was still in the buffer: no act whose answer is lost
				*/
	if (!*request) {
		*request = client;
		result = http_exchange_begin(
			exchange, &http->handlers, connection, method, &answered);
		if (answered)
			http_clients_enter(&http->clients, client, HTTP_STEP_BUSY);
		return result;
	}
	if (*upload_size)
		return http_exchange_add(exchange, &http->handlers, upload, upload_size);
	started_ns = now_ns();
	result = http_exchange_answer(exchange, &http->handlers, connection, method, path);
	/* The others' requests wait unread meanwhile: a handler's time is nobody's fault. */
	http_clients_extend(&http->clients, now_ns() - started_ns);
	http_clients_enter(&http->clients, client, HTTP_STEP_BUSY);
	return result;
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
		/* First what has come: a handler that took its time must not cost others their
		 * turn. */
		MHD_run(http->mhd);
		http_clients_drop_overdue(&http->clients);
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
		MHD_OPTION_UNESCAPE_CALLBACK, http_exchange_keep_escapes, NULL,
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
		pthread_setname_np(
			http->thread, http->handlers.writable ? "shunt-control" : "shunt-http");
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
