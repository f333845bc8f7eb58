/* SPDX-License-Identifier: BSD-2-Clause */
/* Between worker*.c only. */
#ifndef SHUNT_WORKER_STATE_H
#define SHUNT_WORKER_STATE_H

#include "handover.h"
#include "health.h"
#include "operator.h"
#include "worker.h"

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

/* The current generation, with a reference for the caller. Any thread; arg is the worker. */
struct generation *worker_current(void *arg);

/* A listening socket from the supervisor; takes the descriptor. 0 or -ENOMEM. */
MUST_CHECK int worker_remember_socket(struct worker *worker, uint64_t id, int fd);

/* What one thread is to serve. setup.sockets is the caller's to free. 0 or -ENOMEM. */
MUST_CHECK int worker_setup_thread(const struct worker *worker, struct generation *generation,
	const struct handover *handover, unsigned int thread, struct thread_setup *ret);

/* CHANNEL_CONF: takes generation `number` and tells the supervisor how it went. */
void worker_take_conf(struct worker *worker, uint64_t number, int fd);

#endif
