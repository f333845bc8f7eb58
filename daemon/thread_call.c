/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns calls that run on every thread and that somebody waits for. */
#include <stdlib.h>

#include "thread.h"
#include "thread_messages.h"

/* With the mutex held; releases it. */
static void unref(struct thread_call *call)
{
	bool last = --call->refs == 0;

	pthread_mutex_unlock(&call->mutex);
	if (!last)
		return;
	pthread_mutex_destroy(&call->mutex);
	pthread_cond_destroy(&call->cond);
	if (call->free_arg)
		call->free_arg(call->arg);
	free(call);
}

void thread_call_run(struct thread *thread, struct thread_call *call)
{
	pthread_mutex_lock(&call->mutex);
	if (thread)
		call->run(thread, call->arg);
	call->pending--;
	pthread_cond_signal(&call->cond);
	unref(call);
}

static void init(struct thread_call *call, unsigned int threads)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&call->mutex, NULL);
	pthread_cond_init(&call->cond, &attr);
	pthread_condattr_destroy(&attr);
	call->pending = threads;
	call->refs = threads + 1;
}

struct thread_call *thread_call(struct thread_shared *shared,
	void (*run)(struct thread *thread, void *arg), void *arg, void (*free_arg)(void *arg))
{
	struct thread_call *call = calloc(1, sizeof(*call));

	if (!call) {
		if (free_arg)
			free_arg(arg);
		return NULL;
	}
	call->run = run;
	call->free_arg = free_arg;
	call->arg = arg;
	init(call, shared->nthreads);
	for (unsigned int i = 0; i < shared->nthreads; i++)
		if (thread_post(&shared->threads[i], THREAD_CALL, 0, call))
			thread_call_run(NULL, call);
	return call;
}

bool thread_call_wait(struct thread_call *call, unsigned int timeout_ms)
{
	struct timespec deadline;
	bool done;
	int err = 0;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += timeout_ms / 1000;
	deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (deadline.tv_nsec >= 1000000000) {
		deadline.tv_sec++;
		deadline.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&call->mutex);
	while (call->pending && !err)
		err = pthread_cond_timedwait(&call->cond, &call->mutex, &deadline);
	done = !call->pending;
	pthread_mutex_unlock(&call->mutex);
	return done;
}

void thread_call_done(struct thread_call *call)
{
	pthread_mutex_lock(&call->mutex);
	unref(call);
}
