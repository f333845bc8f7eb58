/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the worker process: its start, the supervisor's orders, its end. */
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
#include "log.h"
#include "worker_state.h"

/* The supervisor handles signals, whoever sent them to the whole group. */
static void ignore_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};

	for (unsigned int i = 0; i < ARRAY_LEN(signals); i++)
		(void)signal(signals[i], SIG_IGN);
	(void)signal(SIGCHLD, SIG_DFL);
}

/* --- start
 * ------------------------------------------------------------------------------------------ */

static void wake(void *arg, struct queue_ticket *ticket)
{
	struct worker *worker = arg;

	thread_grant(&worker->shared.threads[ticket->thread], ticket);
}

static int init_shared(struct worker *worker)
{
	const struct worker_setup *setup = worker->setup;
	struct thread_shared *shared = &worker->shared;

	*shared = (struct thread_shared){
		.stats = setup->stats,
		.bpf = setup->bpf,
		.max_sessions = setup->max_sessions,
		.nthreads = setup->threads,
		.clients = clients_new(setup->max_sessions * 2),
		.threads = calloc(setup->threads, sizeof(*shared->threads)),
		.left_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};
	pthread_mutex_init(&shared->events_mutex, NULL);
	pthread_mutex_init(&worker->mutex, NULL);
	worker->queues = (struct queues){.wake = wake, .arg = worker};
	worker->generation = generation_new(setup->conf, 1, &worker->queues);
	if (!shared->clients || !shared->threads || shared->left_fd < 0 || !worker->generation)
		return -ENOMEM;
	if (!shared->bpf)
		return 0;
	return bpf_events_open(shared->bpf, thread_flow_event, shared, &shared->events);
}

/* The first sockets came with the fork: in the form that later ones have. */
static int inherit_sockets(struct worker *worker, struct handover *ret)
{
	const struct bounds *bounds = worker->setup->bounds;
	int err = 0;

	*ret = (struct handover){
		.sockets = calloc(bounds->n + 1, sizeof(*ret->sockets)),
		.nsockets = bounds->n,
	};
	for (unsigned int i = 0; ret->sockets && i < bounds->n && !err; i++) {
		const struct bound *bound = &bounds->v[i];

		ret->sockets[i] = handover_socket(bound);
		err = worker_remember_socket(worker, bound->id, bound->fd);
	}
	return ret->sockets ? err : -ENOMEM;
}

static int start_threads(struct worker *worker)
{
	struct handover handover;
	int err = inherit_sockets(worker, &handover);

	for (unsigned int i = 0; i < worker->shared.nthreads && !err; i++) {
		struct thread_setup setup = {0};

		err = worker_setup_thread(worker, worker->generation, &handover, i, &setup);
		err = err ?: thread_start(&worker->shared.threads[i], &worker->shared, i, &setup);
		free(setup.sockets);
	}
	handover_done(&handover);
	return err;
}

/* --- HTTP
 * ------------------------------------------------------------------------------------------- */

static int start_operator(struct worker *worker)
{
	const struct worker_setup *setup = worker->setup;
	struct operator_setup operator= {
		.shared = &worker->shared,
		.view =
			{
				.shared = &worker->shared,
				.current = worker_current,
				.arg = worker,
			},
		.health = worker->health,
		.channel_fd = setup->channel_fd,
		.supervisor = setup->supervisor,
		.stats_fds = setup->stats_fds,
		.nstats_fds = setup->nstats_fds,
		.control_fd = setup->control_fd,
	};

	return operator_start(&worker->operator, & operator);
}

/* --- the supervisor's orders
 * ------------------------------------------------------------------------ */

static void drain(struct worker *worker, uint64_t timeout_ms)
{
	worker->operator.draining = true;
	for (unsigned int i = 0; i < worker->nsockets; i++)
		close(worker->sockets[i].fd);
	worker->nsockets = 0;
	for (unsigned int i = 0; i < worker->shared.nthreads; i++)
		thread_drain(&worker->shared.threads[i], timeout_ms);
}

static void stop(struct worker *worker)
{
	for (unsigned int i = 0; i < worker->shared.nthreads; i++)
		thread_stop(&worker->shared.threads[i]);
}

static void obey(struct worker *worker, const struct channel_message *message, int fd)
{
	switch ((enum channel_kind)message->kind) {
	case CHANNEL_DRAIN:
		drain(worker, message->value);
		break;
	case CHANNEL_STOP:
		stop(worker);
		break;
	case CHANNEL_SOCKET:
		if (fd >= 0 && !worker_remember_socket(worker, message->value, fd))
			return; /* kept */
		break;
	case CHANNEL_CONF:
		worker_take_conf(worker, message->value, fd);
		break;
	case CHANNEL_RELOADED:
		operator_reloaded(&worker->operator, message->text);
		break;
	default:
		log_error("unexpected message %u from the supervisor: ignoring", message->kind);
	}
	if (fd >= 0)
		close(fd);
}

/* False: no more orders will come. */
static bool take_order(struct worker *worker)
{
	struct channel_message message;
	int fd = -1;
	int err = channel_receive(worker->setup->channel_fd, &message, &fd);

	if (err == -EAGAIN)
		return true;
	if (err) {
		log_error("the supervisor is gone: resetting all sessions");
		stop(worker);
		return false;
	}
	obey(worker, &message, fd);
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
		if (fds[1].revents & POLLIN &&
			read(worker->shared.left_fd, &left, sizeof(left)) > 0)
			worker->left += (unsigned int)left;
	}
}

static void finish(struct worker *worker)
{
	operator_stop(&worker->operator);
	health_stop(worker->health);
	for (unsigned int i = 0; i < worker->shared.nthreads; i++)
		thread_join(&worker->shared.threads[i]);
	bpf_events_close(worker->shared.events);
	clients_free(worker->shared.clients);
	free(worker->shared.threads);
	free(worker->sockets);
	close(worker->shared.left_fd);
	generation_unref(worker->generation);
	queues_done(&worker->queues);
}

int worker_main(const struct worker_setup *setup)
{
	struct worker worker = {.setup = setup};
	int err;

	ignore_signals();
	(void)prctl(PR_SET_NAME, "shunt-worker");
	err = priv_drop(&setup->user);
	/* After the change of user, which clears it. A supervisor that died before is nobody's
	 * parent. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != setup->supervisor)
		return 1;
	err = err ?: init_shared(&worker);
	err = err ?: start_threads(&worker);
	err = err ?: health_start(&worker.shared, worker.generation, &worker.health);
	err = err ?: start_operator(&worker);
	err = err ?: channel_send(setup->channel_fd, CHANNEL_READY, 1, -1, NULL);
	if (err) {
		log_error("worker: %s", strerror(-err));
		return 1;
	}
	serve(&worker);
	finish(&worker);
	return 0;
}
