/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the worker process: its threads, its generations of the configuration, its end. */
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
#include "handover.h"
#include "health.h"
#include "log.h"
#include "operator.h"

/* How long threads may take to serve a new configuration. */
#define RECONFIGURE_TIMEOUT_MS 10000

/* A listening socket that came from the supervisor, by its id. */
struct known_socket {
	uint64_t id;
	int fd;
};

struct worker {
	const struct worker_setup *setup;
	struct thread_shared shared;
	struct queues queues;
	pthread_mutex_t mutex; /* of `generation` */
	struct generation *generation; /* the current one */
	struct known_socket *sockets;
	unsigned int nsockets;
	struct health *health;
	struct operator operator;
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

/* --- listening sockets
 * ------------------------------------------------------------------------------ */

static int remember_socket(struct worker *worker, uint64_t id, int fd)
{
	struct known_socket *grown =
		realloc(worker->sockets, (worker->nsockets + 1) * sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	worker->sockets = grown;
	worker->sockets[worker->nsockets++] = (struct known_socket){.id = id, .fd = fd};
	return 0;
}

static int find_socket(const struct worker *worker, uint64_t id)
{
	for (unsigned int i = 0; i < worker->nsockets; i++)
		if (worker->sockets[i].id == id)
			return worker->sockets[i].fd;
	return -1;
}

/* Threads have duplicates of what they serve. */
static void forget_sockets(struct worker *worker, const struct handover *handover)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < worker->nsockets; i++) {
		bool used = false;

		for (unsigned int j = 0; j < handover->nsockets && !used; j++)
			used = handover->sockets[j].id == worker->sockets[i].id;
		if (used)
			worker->sockets[kept++] = worker->sockets[i];
		else
			close(worker->sockets[i].fd);
	}
	worker->nsockets = kept;
}

/* --- generations
 * ------------------------------------------------------------------------------------ */

static struct generation *current(void *arg)
{
	struct worker *worker = arg;
	struct generation *generation;

	pthread_mutex_lock(&worker->mutex);
	generation = generation_ref(worker->generation);
	pthread_mutex_unlock(&worker->mutex);
	return generation;
}

static void make_current(struct worker *worker, struct generation *generation)
{
	struct generation *old;

	pthread_mutex_lock(&worker->mutex);
	old = worker->generation;
	worker->generation = generation;
	pthread_mutex_unlock(&worker->mutex);
	generation_unref(old);
}

static struct listen_socket listen_socket(
	const struct worker *worker, const struct conf *conf, const struct handover_socket *from)
{
	bool wanted = conf->listeners[from->listener].path != PATH_MODE_RELAY;

	return (struct listen_socket){
		.id = from->id,
		.fd = find_socket(worker, from->id),
		.listener = from->listener,
		.wanted = wanted,
		.spliceable = wanted && from->tcp && worker->shared.bpf,
		.why = from->tcp ? FALLBACK_UNAVAILABLE : (enum fallback_reason)from->why,
	};
}

static int setup_thread(const struct worker *worker, struct generation *generation,
	const struct handover *handover, unsigned int thread, struct thread_setup *ret)
{
	struct listen_socket *sockets = calloc(handover->nsockets + 1, sizeof(*sockets));
	unsigned int n = 0;

	if (!sockets)
		return -ENOMEM;
	for (unsigned int i = 0; i < handover->nsockets; i++) {
		const struct handover_socket *socket = &handover->sockets[i];

		if (socket->shared || socket->thread == thread)
			sockets[n++] = listen_socket(worker, generation->conf, socket);
	}
	*ret = (struct thread_setup){generation, sockets, n};
	return 0;
}

static int check_sockets(
	const struct worker *worker, const struct conf *conf, const struct handover *handover)
{
	for (unsigned int i = 0; i < handover->nsockets; i++)
		if (handover->sockets[i].listener >= conf->nlisteners ||
			handover->sockets[i].why >= FALLBACK_REASON_COUNT ||
			find_socket(worker, handover->sockets[i].id) < 0)
			return -EPROTO;
	return 0;
}

struct reconfigure {
	struct thread_setup *setups; /* [nthreads] */
	unsigned int nthreads;
	struct generation *generation;
	int err;
};

static void reconfigure_cb(struct thread *thread, void *arg)
{
	struct reconfigure *work = arg;
	int err = thread_reconfigure(thread, &work->setups[thread->number]);

	work->err = work->err ?: err;
}

static void reconfigure_free(void *arg)
{
	struct reconfigure *work = arg;

	for (unsigned int i = 0; i < work->nthreads; i++)
		free(work->setups[i].sockets);
	free(work->setups);
	generation_unref(work->generation);
	free(work);
}

static struct reconfigure *reconfigure_new(
	const struct worker *worker, struct generation *generation, const struct handover *handover)
{
	struct reconfigure *work = calloc(1, sizeof(*work));

	if (!work)
		return NULL;
	work->generation = generation_ref(generation);
	work->nthreads = worker->setup->threads;
	work->setups = calloc(work->nthreads, sizeof(*work->setups));
	for (unsigned int i = 0; work->setups && i < work->nthreads; i++)
		if (setup_thread(worker, generation, handover, i, &work->setups[i])) {
			reconfigure_free(work);
			return NULL;
		}
	if (work->setups)
		return work;
	work->nthreads = 0;
	reconfigure_free(work);
	return NULL;
}

static int spread(
	struct worker *worker, struct generation *generation, const struct handover *handover)
{
	struct reconfigure *work = reconfigure_new(worker, generation, handover);
	struct thread_call *call;
	int err = -ENOMEM;

	if (!work)
		return err;
	call = thread_call(&worker->shared, reconfigure_cb, work, reconfigure_free);
	if (!call)
		return err;
	err = thread_call_wait(call, RECONFIGURE_TIMEOUT_MS) ? work->err : -ETIMEDOUT;
	thread_call_done(call);
	return err;
}

static int take_conf(struct worker *worker, const struct handover *handover, unsigned int number)
{
	struct conf_error error;
	struct conf *conf = conf_read_text(handover->text, handover->len, handover->name, &error);
	struct generation *generation;
	int err;

	if (!conf) {
		log_error("configuration from the supervisor: %s", error.text);
		return -EPROTO;
	}
	err = stats_assign(worker->shared.stats, conf);
	err = err ?: check_sockets(worker, conf, handover);
	if (err) {
		conf_free(conf);
		return err;
	}
	log_set_level(conf->log_level);
	generation = generation_new(conf, number, &worker->queues);
	if (!generation)
		return -ENOMEM;
	err = spread(worker, generation, handover);
	health_set(worker->health, generation);
	make_current(worker, generation);
	forget_sockets(worker, handover);
	return err;
}

static void on_conf(struct worker *worker, uint64_t number, int fd)
{
	struct handover handover;
	int err = fd < 0 ? -EPROTO : handover_read(fd, &handover);

	if (!err) {
		err = take_conf(worker, &handover, (unsigned int)number);
		handover_done(&handover);
	}
	if (err)
		log_error("taking the new configuration: %s", strerror(-err));
	if (channel_send(worker->setup->channel_fd, err ? CHANNEL_CONF_FAILED : CHANNEL_READY,
		    number, -1, NULL))
		log_error("the supervisor cannot be told");
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
		err = remember_socket(worker, bound->id, bound->fd);
	}
	return ret->sockets ? err : -ENOMEM;
}

static int start_threads(struct worker *worker)
{
	struct handover handover;
	int err = inherit_sockets(worker, &handover);

	for (unsigned int i = 0; i < worker->shared.nthreads && !err; i++) {
		struct thread_setup setup = {0};

		err = setup_thread(worker, worker->generation, &handover, i, &setup);
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
				.current = current,
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
		if (fd >= 0 && !remember_socket(worker, message->value, fd))
			return; /* kept */
		break;
	case CHANNEL_CONF:
		on_conf(worker, message->value, fd);
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
