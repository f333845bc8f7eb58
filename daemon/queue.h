/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sessions that wait for a server of their backend: first in, first out, over all threads. A place
 * is granted by waking the first ticket's thread, which chooses a server again.
 */
#ifndef SHUNT_QUEUE_H
#define SHUNT_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "util.h"

struct queue_ticket {
	struct queue_ticket *next, *prev;
	unsigned int thread; /* who is woken */
	void *owner; /* the session; NULL: it has left */
	struct queue *queue;
	bool waiting; /* in the queue: under its mutex */
	bool granted; /* a wake-up is on its way: the ticket must live until it arrives */
};

struct queue {
	char *backend; /* its name: a reload that keeps the name keeps the queue */
	struct queue *next;
	pthread_mutex_t mutex;
	struct queue_ticket *first, *last;
	_Atomic unsigned int waiting;
	void (*wake)(void *arg, struct queue_ticket *ticket);
	void *arg;
};

/* All queues of a worker. */
struct queues {
	struct queue *first;
	void (*wake)(
		void *arg, struct queue_ticket *ticket); /* called with the queue's mutex held */
	void *arg;
};

/* The queue of this name, made if need be. NULL: out of memory. One thread at a time. */
struct queue *queues_get(struct queues *queues, const char *backend);
void queues_done(struct queues *queues);

/* At the end; at the front only for a ticket that was granted and found no server after all. */
void queue_join(struct queue *queue, struct queue_ticket *ticket, bool front);

/* Its owner leaves. True: free it now. False: the wake-up under way will find owner NULL and free
 * it. */
MUST_CHECK bool queue_leave(struct queue *queue, struct queue_ticket *ticket);

/* A place may be free: wakes the first one, which wakes the next one when it has found a place. */
void queue_grant(struct queue *queue);

static inline bool queue_is_empty(const struct queue *queue)
{
	return atomic_load_explicit(&queue->waiting, memory_order_relaxed) == 0;
}

#endif
