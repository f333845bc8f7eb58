/* SPDX-License-Identifier: BSD-2-Clause */
/* One event loop thread of the worker: its listeners, its sessions, its share of the program's
 * events. */
#ifndef SHUNT_THREAD_H
#define SHUNT_THREAD_H

#include <pthread.h>

#include "acceptor.h"

/* What all threads of a worker share. */
struct thread_shared {
	struct stats *stats;
	struct bpf_obj *bpf; /* NULL: no kernel path */
	struct clients *clients;
	struct bpf_events *events; /* under events_mutex */
	pthread_mutex_t events_mutex;
	struct thread *consumer; /* who empties the ring now; under events_mutex */
	uint32_t max_sessions;
	_Atomic uint32_t sessions;
	struct thread *threads;
	unsigned int nthreads;
	int left_fd; /* eventfd: counts threads that have left their loop */
};

struct thread {
	pthread_t id;
	unsigned int number;
	struct thread_shared *shared;
	struct loop loop;
	struct session_home home;
	struct acceptors acceptors;
	struct loop_watch events_watch;
	ev_timer sweep;
	ev_timer deadline; /* the last part of a drain */
	unsigned int drain_steps;
	bool draining;
};

/* What a thread is to serve from now on. */
struct thread_setup {
	struct generation *generation;
	struct listen_socket *sockets;
	unsigned int nsockets;
};

/* Prepares everything and starts the thread. The setup is copied. */
MUST_CHECK int thread_start(struct thread *thread, struct thread_shared *shared,
	unsigned int number, const struct thread_setup *setup);

/* The callback of shared->events. */
void thread_flow_event(void *shared, const struct flow_event *event);

/* From any thread; each returns at once. */
void thread_drain(
	struct thread *thread, uint64_t timeout_ms); /* accept no more, leave when the last ends */
void thread_stop(struct thread *thread); /* reset what is left and leave */
void thread_grant(struct thread *thread, struct queue_ticket *ticket);
void thread_server_down(struct thread *thread, unsigned int slot);

/*
 * Something that threads do between two batches of events, and that somebody waits for. The last
 * one to let go frees it, so the asker may give up waiting.
 */
struct thread_call {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned int pending;
	unsigned int refs;
	void (*run)(struct thread *thread, void *arg); /* on each thread, one at a time */
	void (*free_arg)(void *arg);
	void *arg; /* under mutex while threads are pending */
};

/* Runs on all threads. NULL: out of memory (free_arg was called). */
struct thread_call *thread_call(struct thread_shared *shared,
	void (*run)(struct thread *thread, void *arg), void *arg, void (*free_arg)(void *arg));
/* Until all have run or the timeout is over. True: all have. The argument lives until
 * thread_call_done(). */
MUST_CHECK bool thread_call_wait(struct thread_call *call, unsigned int timeout_ms);
void thread_call_done(struct thread_call *call);

/* In a call: takes over a setup of its own. */
MUST_CHECK int thread_reconfigure(struct thread *thread, const struct thread_setup *setup);

void thread_join(struct thread *thread);

#endif
