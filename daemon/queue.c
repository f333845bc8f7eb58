/* SPDX-License-Identifier: BSD-2-Clause */
#include "queue.h"

#include <stdlib.h>
#include <string.h>

struct queue *queues_get(struct queues *queues, const char *backend)
{
	struct queue *queue;

	for (queue = queues->first; queue; queue = queue->next)
		if (!strcmp(queue->backend, backend))
			return queue;
	queue = calloc(1, sizeof(*queue));
	if (!queue)
		return NULL;
	queue->backend = strdup(backend);
	if (!queue->backend) {
		free(queue);
		return NULL;
	}
	pthread_mutex_init(&queue->mutex, NULL);
	queue->wake = queues->wake;
	queue->arg = queues->arg;
	queue->next = queues->first;
	queues->first = queue;
	return queue;
}

void queues_done(struct queues *queues)
{
	while (queues->first) {
		struct queue *queue = queues->first;

		queues->first = queue->next;
		pthread_mutex_destroy(&queue->mutex);
		free(queue->backend);
		free(queue);
	}
}

static void unlink_ticket(struct queue *queue, struct queue_ticket *ticket)
{
	*(ticket->prev ? &ticket->prev->next : &queue->first) = ticket->next;
	*(ticket->next ? &ticket->next->prev : &queue->last) = ticket->prev;
	ticket->next = ticket->prev = NULL;
	ticket->waiting = false;
	atomic_fetch_sub_explicit(&queue->waiting, 1, memory_order_relaxed);
}

void queue_join(struct queue *queue, struct queue_ticket *ticket, bool front)
{
	pthread_mutex_lock(&queue->mutex);
	ticket->waiting = true;
	ticket->queue = queue;
	ticket->granted = false;
	ticket->next = front ? queue->first : NULL;
	ticket->prev = front ? NULL : queue->last;
	*(ticket->prev ? &ticket->prev->next : &queue->first) = ticket;
	*(ticket->next ? &ticket->next->prev : &queue->last) = ticket;
	atomic_fetch_add_explicit(&queue->waiting, 1, memory_order_relaxed);
	pthread_mutex_unlock(&queue->mutex);
}

bool queue_leave(struct queue *queue, struct queue_ticket *ticket)
{
	bool granted;

	pthread_mutex_lock(&queue->mutex);
	if (ticket->waiting)
		unlink_ticket(queue, ticket);
	granted = ticket->granted;
	ticket->owner = NULL;
	pthread_mutex_unlock(&queue->mutex);
	return !granted;
}

static void grant_first(struct queue *queue)
{
	struct queue_ticket *ticket = queue->first;

	if (!ticket)
		return;
	unlink_ticket(queue, ticket);
	ticket->granted = true;
	queue->wake(queue->arg, ticket);
}

void queue_grant(struct queue *queue)
{
	if (queue_is_empty(queue))
		return;
	pthread_mutex_lock(&queue->mutex);
	grant_first(queue);
	pthread_mutex_unlock(&queue->mutex);
}
