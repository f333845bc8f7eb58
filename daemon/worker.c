/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "channel.h"
#include "http.h"
#include "log.h"
#include "thread.h"
#include "view.h"

struct worker {
	const struct worker_setup *setup;
	struct thread_shared shared;
	struct http *http;
	struct view view;
	_Atomic bool draining;
	unsigned int left; /* threads that have left their loop */
};

/* The supervisor handles signals, whoever sent them to the whole group. */
static void ignore_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};

	for (unsigned int i = 0; i < ARRAY_LEN(signals); i++)
		(void)signal(signals[i], SIG_IGN);
	(void)signal(SIGCHLD, SIG_DFL);
}

static bool wants_sockmap(const struct conf_listener *listener)
{
	return listener->path != PATH_MODE_RELAY;
}

static unsigned int sockets_of(const struct worker_setup *setup, unsigned int thread,
	struct listen_socket *out)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < setup->bounds->n; i++) {
		const struct bound *bound = &setup->bounds->v[i];
		bool wanted = wants_sockmap(&setup->conf->listeners[bound->listener]);

		if (!bound->shared && bound->thread != thread)
			continue;
		out[n++] = (struct listen_socket){
			.fd = bound->fd,
			.listener = bound->listener,
			.wanted = wanted,
			.spliceable = wanted && bound->tcp && setup->bpf,
			.why = bound->tcp ? FALLBACK_UNAVAILABLE : bound->why,
		};
	}
	return n;
}

static int start_threads(struct worker *worker)
{
	const struct worker_setup *setup = worker->setup;
	struct thread_shared *shared = &worker->shared;
	struct listen_socket *sockets = calloc(setup->bounds->n + 1, sizeof(*sockets));
	int err = 0;

	shared->threads = calloc(setup->threads, sizeof(*shared->threads));
	if (!sockets || !shared->threads)
		err = -ENOMEM;
	for (unsigned int i = 0; i < setup->threads && !err; i++) {
		unsigned int n = sockets_of(setup, i, sockets);

		shared->nthreads = setup->threads;
		err = thread_start(&shared->threads[i], shared, i, sockets, n);
	}
	free(sockets);
	return err;
}

static int init_shared(struct worker *worker)
{
	const struct worker_setup *setup = worker->setup;
	struct thread_shared *shared = &worker->shared;

	*shared = (struct thread_shared){
		.conf = setup->conf,
		.stats = setup->stats,
		.bpf = setup->bpf,
		.max_sessions = setup->max_sessions,
	};
	pthread_mutex_init(&shared->events_mutex, NULL);
	shared->left_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (shared->left_fd < 0)
		return -errno;
	if (!shared->bpf)
		return 0;
	return bpf_events_open(shared->bpf, thread_flow_event, shared, &shared->events);
}

static int metrics_cb(void *arg, bool openmetrics, char **ret_body, size_t *ret_len)
{
	struct worker *worker = arg;

	return view_render(&worker->view, openmetrics, ret_body, ret_len);
}

static bool ready_cb(void *arg, char *why, size_t size)
{
	struct worker *worker = arg;

	if (!worker->draining)
		return true;
	snprintf(why, size, "draining");
	return false;
}

static int start_http(struct worker *worker)
{
	const struct worker_setup *setup = worker->setup;
	struct http_handlers handlers = {
		.arg = worker,
		.metrics = metrics_cb,
		.ready = ready_cb,
	};

	if (!setup->nstats_fds)
		return 0;
	return http_start(setup->stats_fds, setup->nstats_fds, &handlers, &worker->http);
}

static void drain(struct worker *worker, uint64_t timeout_ms)
{
	worker->draining = true;
	for (unsigned int i = 0; i < worker->shared.nthreads; i++)
		thread_drain(&worker->shared.threads[i], timeout_ms);
}

static void stop(struct worker *worker)
{
	for (unsigned int i = 0; i < worker->shared.nthreads; i++)
		thread_stop(&worker->shared.threads[i]);
}

/* False: no more orders will come. */
static bool take_order(struct worker *worker)
{
	struct channel_message message;
	int err = channel_receive(worker->setup->channel_fd, &message);

	if (err == -EAGAIN)
		return true;
	if (err) {
		log_error("the supervisor is gone: resetting all sessions");
		stop(worker);
		return false;
	}
	if (message.kind == CHANNEL_DRAIN)
		drain(worker, message.value);
	else if (message.kind == CHANNEL_STOP)
		stop(worker);
	else
		log_error("message of unknown kind %u from the supervisor: ignoring", message.kind);
	return true;
}

static void serve(struct worker *worker)
{
	struct pollfd fds[] = {
		{.fd = worker->setup->channel_fd, .events = POLLIN},
		{.fd = worker->shared.left_fd, .events = POLLIN},
	};

	while (worker->left < worker->shared.nthreads) {
		uint64_t left = 0;

		if (poll(fds, ARRAY_LEN(fds), -1) < 0 && errno != EINTR)
			return;
		if (fds[0].revents && !take_order(worker))
			fds[0].fd = -1;
		if (fds[1].revents & POLLIN && read(worker->shared.left_fd, &left, sizeof(left)) > 0)
			worker->left += (unsigned int)left;
	}
}

static void finish(struct worker *worker)
{
	http_stop(worker->http);
	for (unsigned int i = 0; i < worker->shared.nthreads; i++)
		thread_join(&worker->shared.threads[i]);
	bpf_events_close(worker->shared.events);
	free(worker->shared.threads);
	close(worker->shared.left_fd);
}

int worker_main(const struct worker_setup *setup)
{
	struct worker worker = {.setup = setup};
	int err;

	ignore_signals();
	(void)prctl(PR_SET_NAME, "shunt-worker");
	err = priv_drop(&setup->user);
	err = err ?: init_shared(&worker);
	err = err ?: start_threads(&worker);
	worker.view = (struct view){
		.conf = setup->conf,
		.stats = setup->stats,
		.bpf = setup->bpf,
		.shared = &worker.shared,
	};
	err = err ?: start_http(&worker);
	err = err ?: channel_send(setup->channel_fd, CHANNEL_READY, 0);
	if (err) {
		log_error("worker: %s", strerror(-err));
		return 1;
	}
	serve(&worker);
	finish(&worker);
	return 0;
}
