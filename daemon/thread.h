/* SPDX-License-Identifier: BSD-2-Clause */
/* One event loop thread of the worker: its listeners, its sessions, its share of the program's events. */
#ifndef SHUNT_THREAD_H
#define SHUNT_THREAD_H

#include <pthread.h>

#include "session.h"

struct listen_socket {
	int fd;			/* not owned */
	unsigned int listener;	/* in the configuration */
	bool spliceable;	/* a TCP socket whose sessions want the kernel path, and it is there */
	enum fallback_reason why; /* counted for each session that wanted it and is not spliceable */
	bool wanted;
};

/* What all threads of a worker share. */
struct thread_shared {
	const struct conf *conf;
	struct stats *stats;
	struct bpf_obj *bpf; /* NULL: no kernel path */
	struct bpf_events *events; /* under events_mutex */
	pthread_mutex_t events_mutex;
	struct thread *consumer; /* who empties the ring now; under events_mutex */
	uint32_t max_sessions;
	_Atomic uint32_t sessions;
	struct thread *threads;
	unsigned int nthreads;
	int left_fd; /* eventfd: counts threads that have left their loop */
};

struct thread_acceptor {
	ev_io io;
	ev_timer pause;
	struct thread *thread;
	struct listen_socket socket;
};

struct thread {
	pthread_t id;
	unsigned int number;
	struct thread_shared *shared;
	struct loop loop;
	struct session_home home;
	struct thread_acceptor *acceptors;
	unsigned int nacceptors;
	struct loop_watch events_watch;
	ev_timer sweep;
	ev_timer deadline; /* end of a drain */
	bool draining;
};

/* Prepares everything and starts the thread. sockets[] is copied. */
MUST_CHECK int thread_start(struct thread *thread, struct thread_shared *shared, unsigned int number,
	const struct listen_socket *sockets, unsigned int nsockets);

/* The callback of shared->events. */
void thread_flow_event(void *shared, const struct flow_event *event);

/* From any thread; each returns at once. */
void thread_drain(struct thread *thread, uint64_t timeout_ms); /* accept no more, leave when the last ends */
void thread_stop(struct thread *thread);		       /* reset what is left and leave */

/* Asks threads for a sweep, so that the counters include live sessions. */
struct thread_fold;
struct thread_fold *thread_fold_new(unsigned int threads); /* NULL: out of memory */
void thread_fold(struct thread *thread, struct thread_fold *fold);
/* Until all are done or the deadline (CLOCK_REALTIME) has passed. Lets go of it in any case. */
void thread_fold_wait(struct thread_fold *fold, const struct timespec *deadline);

void thread_join(struct thread *thread);

#endif
