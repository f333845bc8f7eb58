/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One event loop. libev runs timers, listeners and messages from other threads; the sockets of
 * sessions sit in an epoll instance of their own, which libev watches as one descriptor: they need
 * EPOLLRDHUP without EPOLLIN (no wake-up per message on the kernel path) and edge triggering, which
 * libev does not have.
 */
#ifndef SHUNT_LOOP_H
#define SHUNT_LOOP_H

#include <ev.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "util.h"

/* An edge-triggered socket. Embedded in its owner, which must outlive the batch (see loop_defer).
 */
struct loop_watch {
	int fd;
	uint32_t events; /* registered; 0: not watched */
	void (*cb)(struct loop_watch *watch, uint32_t events);
};

/* Work for the end of the current batch of events: going on with a long transfer, freeing an
 * object. */
struct loop_task {
	struct loop_task *next;
	void (*cb)(struct loop_task *task);
	bool queued;
};

/* A message from another thread; copied. */
struct loop_message {
	unsigned int kind; /* the receiver's */
	uint64_t value;
	void *data; /* not owned */
};

struct loop {
	struct ev_loop *ev;
	int epoll_fd;
	ev_io epoll_io;
	ev_prepare prepare;
	ev_idle idle;
	struct loop_task *tasks, **tasks_end;
	ev_async async;
	pthread_mutex_t mutex;
	struct loop_message *messages; /* under mutex */
	unsigned int nmessages, max_messages;
	void (*on_message)(struct loop *loop, const struct loop_message *message);
	void *arg; /* the owner's */
};

MUST_CHECK int loop_init(struct loop *loop,
	void (*on_message)(struct loop *loop, const struct loop_message *message), void *arg);
void loop_done(struct loop *loop);
void loop_run(struct loop *loop); /* until loop_stop() in one of its callbacks */
void loop_stop(struct loop *loop);

/* Adds, changes or (events 0) removes; EPOLLET is implied. */
MUST_CHECK int loop_watch_set(struct loop *loop, struct loop_watch *watch, uint32_t events);
void loop_watch_stop(struct loop *loop, struct loop_watch *watch);

void loop_defer(struct loop *loop, struct loop_task *task); /* queued once at most */

/* From any thread. -ENOMEM: not delivered. */
int loop_post(struct loop *loop, const struct loop_message *message);

static inline double loop_ms(uint64_t ms)
{
	return (double)ms / 1000.0;
}

#endif
