/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the worker's generations of the configuration and the listening sockets they use. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "log.h"
#include "worker_state.h"

/* How long threads may take to serve a new configuration. */
#define RECONFIGURE_TIMEOUT_MS 10000

/* --- listening sockets
 * ------------------------------------------------------------------------------ */

int worker_remember_socket(struct worker *worker, uint64_t id, int fd)
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

struct generation *worker_current(void *arg)
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

int worker_setup_thread(const struct worker *worker, struct generation *generation,
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
		if (worker_setup_thread(worker, generation, handover, i, &work->setups[i])) {
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
	/* More room, or more servers, for those that wait. */
	for (unsigned int i = 0; i < generation->conf->nbackends; i++)
		queue_grant(generation->queues[i]);
	forget_sockets(worker, handover);
	return err;
}

void worker_take_conf(struct worker *worker, uint64_t number, int fd)
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
