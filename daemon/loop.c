/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the wiring of libev and epoll. Must not know what is watched. */
#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH 128

static void epoll_cb(struct ev_loop *ev, ev_io *io, int revents)
{
	struct loop *loop = io->data;
	struct epoll_event events[BATCH];
	int n;

	(void)ev;
	(void)revents;
	n = epoll_wait(loop->epoll_fd, events, BATCH, 0);
	for (int i = 0; i < n; i++) {
		struct loop_watch *watch = events[i].data.ptr;

		/* Removed by an earlier event of this batch: freeing is deferred, so it can be
		 * asked. */
		if (watch->events)
			watch->cb(watch, events[i].events);
	}
}

/* Tasks run once per round of the loop, after its events; a task that queues itself again waits for
 * the next round, so a long transfer cannot starve the other sessions. */
static void run_tasks(struct loop *loop)
{
	struct loop_task *task = loop->tasks;

	loop->tasks = NULL;
	loop->tasks_end = &loop->tasks;
	while (task) {
		struct loop_task *next = task->next;

		task->queued = false;
		task->cb(task);
		task = next;
	}
}

static void prepare_cb(struct ev_loop *ev, ev_prepare *prepare, int revents)
{
	struct loop *loop = prepare->data;

	(void)revents;
	run_tasks(loop);
	/* The idle watcher keeps the loop from sleeping while there is work. */
	if (loop->tasks)
		ev_idle_start(ev, &loop->idle);
	else
		ev_idle_stop(ev, &loop->idle);
}

static void idle_cb(struct ev_loop *ev, ev_idle *idle, int revents)
{
	(void)ev;
	(void)idle;
	(void)revents;
}

static void async_cb(struct ev_loop *ev, ev_async *async, int revents)
{
	struct loop *loop = async->data;
	struct loop_message *messages;
	unsigned int n;

	(void)ev;
	(void)revents;
	pthread_mutex_lock(&loop->mutex);
	messages = loop->messages;
	n = loop->nmessages;
	loop->messages = NULL;
	loop->nmessages = 0;
	loop->max_messages = 0;
	pthread_mutex_unlock(&loop->mutex);
	for (unsigned int i = 0; i < n; i++)
		loop->on_message(loop, &messages[i]);
	free(messages);
}

int loop_init(struct loop *loop,
	void (*on_message)(struct loop *loop, const struct loop_message *message), void *arg)
{
	memset(loop, 0, sizeof(*loop));
	loop->on_message = on_message;
	loop->arg = arg;
	loop->tasks_end = &loop->tasks;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		return -errno;
	loop->ev = ev_loop_new(EVFLAG_NOENV | EVBACKEND_EPOLL);
	if (!loop->ev) {
		close(loop->epoll_fd);
		return -ENOMEM;
	}
	pthread_mutex_init(&loop->mutex, NULL);
	ev_io_init(&loop->epoll_io, epoll_cb, loop->epoll_fd, EV_READ);
	loop->epoll_io.data = loop;
	ev_io_start(loop->ev, &loop->epoll_io);
	ev_prepare_init(&loop->prepare, prepare_cb);
	loop->prepare.data = loop;
	ev_prepare_start(loop->ev, &loop->prepare);
	ev_idle_init(&loop->idle, idle_cb);
	ev_async_init(&loop->async, async_cb);
	loop->async.data = loop;
	ev_async_start(loop->ev, &loop->async);
	return 0;
}

void loop_done(struct loop *loop)
{
	if (!loop->ev)
		return;
	run_tasks(loop);
	ev_loop_destroy(loop->ev);
	close(loop->epoll_fd);
	pthread_mutex_destroy(&loop->mutex);
	free(loop->messages);
	loop->ev = NULL;
}

void loop_run(struct loop *loop)
{
	ev_run(loop->ev, 0);
}

void loop_stop(struct loop *loop)
{
	ev_break(loop->ev, EVBREAK_ALL);
}

int loop_watch_set(struct loop *loop, struct loop_watch *watch, uint32_t events)
{
	struct epoll_event event = {.events = events | EPOLLET, .data.ptr = watch};
	int op = watch->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (events == watch->events)
		return 0;
	if (!events) {
		loop_watch_stop(loop, watch);
		return 0;
	}
	if (epoll_ctl(loop->epoll_fd, op, watch->fd, &event) < 0)
		return -errno;
	watch->events = events;
	return 0;
}

void loop_watch_stop(struct loop *loop, struct loop_watch *watch)
{
	if (watch->events)
		(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->events = 0;
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
	if (task->queued)
		return;
	task->queued = true;
	task->next = NULL;
	*loop->tasks_end = task;
	loop->tasks_end = &task->next;
}

static int grow(struct loop *loop)
{
	unsigned int max = loop->max_messages ? loop->max_messages * 2 : 16;
	struct loop_message *grown = realloc(loop->messages, max * sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	loop->messages = grown;
	loop->max_messages = max;
	return 0;
}

int loop_post(struct loop *loop, const struct loop_message *message)
{
	int err = 0;

	pthread_mutex_lock(&loop->mutex);
	if (loop->nmessages == loop->max_messages)
		err = grow(loop);
	if (!err)
		loop->messages[loop->nmessages++] = *message;
	pthread_mutex_unlock(&loop->mutex);
	if (!err)
		ev_async_send(loop->ev, &loop->async);
	return err;
}
