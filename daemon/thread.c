/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns accepting and the loop's housekeeping. Sessions are session.c's. */
#include "thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "flow_table.h"
#include "log.h"

#define ACCEPT_BATCH 64
#define ACCEPT_PAUSE_S 0.1
#define SWEEP_MAX_MS 10000
#define SWEEP_MIN_MS 50

enum message { MESSAGE_DRAIN, MESSAGE_STOP, MESSAGE_FOLD, MESSAGE_FLOW };

static void pause_accept(struct thread_acceptor *acceptor, int err)
{
	struct thread *thread = acceptor->thread;
	static struct log_limit limit;
	unsigned int suppressed;

	stats_add(&thread->home.counters->accept_pauses, 1);
	if (log_limit_pass(&limit, &suppressed))
		log_warning("accept: %s: pausing for %d ms (%u more not shown)", strerror(err),
			(int)(ACCEPT_PAUSE_S * 1000), suppressed);
	ev_io_stop(thread->loop.ev, &acceptor->io);
	ev_timer_set(&acceptor->pause, ACCEPT_PAUSE_S, 0.);
	ev_timer_start(thread->loop.ev, &acceptor->pause);
}

static void pause_over_cb(struct ev_loop *ev, ev_timer *timer, int revents)
{
	struct thread_acceptor *acceptor = timer->data;

	(void)revents;
	if (!acceptor->thread->draining)
		ev_io_start(ev, &acceptor->io);
}

static void reject(struct thread *thread, unsigned int listener, int fd)
{
	stats_add(&stats_listener_of(thread->shared->stats, thread->number,
			   thread->shared->conf->listeners[listener].slot)
			   ->rejected[REJECT_MAX_SESSIONS],
		1);
	sockmap_abort(fd);
	close(fd);
}

static uint64_t listener_active(struct stats *stats, unsigned int slot)
{
	uint64_t active = 0;

	for (unsigned int t = 0; t < stats->threads; t++) {
		const struct stats_listener *counters = stats_listener_of(stats, t, slot);

		active += stats_get(&counters->sessions);
		for (unsigned int r = 0; r < END_REASON_COUNT; r++)
			active -= stats_get(&counters->ended[r]);
	}
	return active;
}

/* The limit of one listener counts the sessions of all threads: added up only where it is set. */
static bool listener_full(const struct thread *thread, unsigned int listener)
{
	const struct conf_listener *conf = &thread->shared->conf->listeners[listener];

	return conf->max_sessions &&
		listener_active(thread->shared->stats, conf->slot) >= conf->max_sessions;
}

/* True: more may be waiting. */
static bool accept_one(struct thread_acceptor *acceptor)
{
	struct thread *thread = acceptor->thread;
	unsigned int listener = acceptor->socket.listener;
	int fd = accept4(acceptor->socket.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			pause_accept(acceptor, errno);
		else
			return errno == ECONNABORTED || errno == EINTR;
		return false;
	}
	if (atomic_load_explicit(&thread->shared->sessions, memory_order_relaxed) >=
			thread->shared->max_sessions ||
		listener_full(thread, listener)) {
		reject(thread, listener, fd);
		return true;
	}
	if (acceptor->socket.wanted && !acceptor->socket.spliceable)
		stats_add(&thread->home.counters->fallbacks[acceptor->socket.why], 1);
	session_accept(&thread->home, listener, fd, acceptor->socket.spliceable);
	return true;
}

static void accept_cb(struct ev_loop *ev, ev_io *io, int revents)
{
	(void)ev;
	(void)revents;
	for (int i = 0; i < ACCEPT_BATCH && accept_one(io->data); i++)
		;
}

/* What the kernel has already accepted for us was promised to the client: take it before leaving. */
static void drain_backlog(struct thread_acceptor *acceptor)
{
	for (int i = 0; i < 65536 && accept_one(acceptor); i++)
		;
}

static void leave_if_done(struct thread *thread)
{
	if (thread->draining && !thread->home.sessions)
		loop_stop(&thread->loop);
}

static void deadline_cb(struct ev_loop *ev, ev_timer *timer, int revents)
{
	struct thread *thread = timer->data;

	(void)ev;
	(void)revents;
	session_abort_all(&thread->home, END_DRAIN);
	leave_if_done(thread);
}

static void drain(struct thread *thread, uint64_t timeout_ms)
{
	struct ev_loop *ev = thread->loop.ev;

	if (thread->draining)
		return;
	thread->draining = true;
	for (unsigned int i = 0; i < thread->nacceptors; i++) {
		ev_io_stop(ev, &thread->acceptors[i].io);
		ev_timer_stop(ev, &thread->acceptors[i].pause);
		drain_backlog(&thread->acceptors[i]);
		close(thread->acceptors[i].socket.fd);
	}
	ev_timer_set(&thread->deadline, loop_ms(timeout_ms), 0.);
	ev_timer_start(ev, &thread->deadline);
}

/* Shared by the asker and the threads; the last one to let go frees it, so an asker may give up waiting. */
struct thread_fold {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned int pending;
	unsigned int refs;
};

struct thread_fold *thread_fold_new(unsigned int threads)
{
	struct thread_fold *request = calloc(1, sizeof(*request));

	if (!request)
		return NULL;
	pthread_mutex_init(&request->mutex, NULL);
	pthread_cond_init(&request->cond, NULL);
	request->pending = threads;
	request->refs = threads + 1;
	return request;
}

/* With the mutex held; releases it. */
static void fold_unref(struct thread_fold *request)
{
	bool last = --request->refs == 0;

	pthread_mutex_unlock(&request->mutex);
	if (!last)
		return;
	pthread_mutex_destroy(&request->mutex);
	pthread_cond_destroy(&request->cond);
	free(request);
}

void thread_fold_wait(struct thread_fold *request, const struct timespec *deadline)
{
	int err = 0;

	pthread_mutex_lock(&request->mutex);
	while (request->pending && !err)
		err = pthread_cond_timedwait(&request->cond, &request->mutex, deadline);
	fold_unref(request);
}

static void fold(struct thread *thread, struct thread_fold *request)
{
	session_sweep(&thread->home, now_ns());
	pthread_mutex_lock(&request->mutex);
	request->pending--;
	pthread_cond_signal(&request->cond);
	fold_unref(request);
}

static void on_message(struct loop *loop, const struct loop_message *message)
{
	struct thread *thread = loop->arg;

	switch ((enum message)message->kind) {
	case MESSAGE_DRAIN:
		drain(thread, message->value);
		break;
	case MESSAGE_STOP:
		session_abort_all(&thread->home, END_DRAIN);
		loop_stop(loop);
		break;
	case MESSAGE_FOLD:
		fold(thread, message->data);
		break;
	case MESSAGE_FLOW:
		session_flow_event(&thread->home,
			&(struct flow_event){.cookie = message->value,
				.kind = (uint32_t)(uintptr_t)message->data});
		break;
	}
	leave_if_done(thread);
}

/* Every thread watches the ring; whoever comes first empties it, and passes on what is not its own. */
static void events_cb(struct loop_watch *watch, uint32_t events)
{
	struct thread *thread = container_of(watch, struct thread, events_watch);

	(void)events;
	pthread_mutex_lock(&thread->shared->events_mutex);
	thread->shared->consumer = thread;
	(void)bpf_events_consume(thread->shared->events);
	pthread_mutex_unlock(&thread->shared->events_mutex);
}

void thread_flow_event(void *arg, const struct flow_event *event)
{
	struct thread_shared *shared = arg;
	struct flow *flow = flow_find(shared->bpf->flows, shared->bpf->flow_shift, event->cookie);
	unsigned int owner = flow ? __atomic_load_n(&flow->owner, __ATOMIC_RELAXED) : UINT32_MAX;
	struct loop_message message = {
		.kind = MESSAGE_FLOW,
		.value = event->cookie,
		.data = (void *)(uintptr_t)event->kind,
	};

	if (owner == shared->consumer->number)
		session_flow_event(&shared->consumer->home, event);
	else if (owner < shared->nthreads)
		(void)loop_post(&shared->threads[owner].loop, &message);
}

static void sweep_cb(struct ev_loop *ev, ev_timer *timer, int revents)
{
	struct thread *thread = timer->data;

	(void)ev;
	(void)revents;
	session_sweep(&thread->home, now_ns());
	leave_if_done(thread);
}

/* An eighth of the shortest timeout: a session ends at most that much too late. */
static uint64_t sweep_ms(const struct conf *conf)
{
	uint64_t ms = SWEEP_MAX_MS;

	for (unsigned int i = 0; i < conf->nlisteners; i++) {
		uint64_t idle = conf->listeners[i].idle_timeout_ms;
		uint64_t half = conf->listeners[i].half_close_timeout_ms;

		if (idle)
			ms = MIN(ms, idle / 8);
		if (half)
			ms = MIN(ms, half / 8);
	}
	return MAX(ms, SWEEP_MIN_MS);
}

static void after_batch_cb(struct ev_loop *ev, ev_check *check, int revents)
{
	(void)ev;
	(void)revents;
	leave_if_done(check->data);
}

static void *thread_main(void *arg)
{
	struct thread *thread = arg;
	uint64_t one = 1;
	ev_check check;

	ev_check_init(&check, after_batch_cb);
	check.data = thread;
	ev_check_start(thread->loop.ev, &check);
	loop_run(&thread->loop);
	ev_check_stop(thread->loop.ev, &check);
	session_abort_all(&thread->home, END_DRAIN);
	(void)!write(thread->shared->left_fd, &one, sizeof(one));
	return NULL;
}

static int init_acceptors(struct thread *thread, const struct listen_socket *sockets, unsigned int n)
{
	thread->acceptors = calloc(n + 1, sizeof(*thread->acceptors));
	if (!thread->acceptors)
		return -ENOMEM;
	thread->nacceptors = n;
	for (unsigned int i = 0; i < n; i++) {
		struct thread_acceptor *acceptor = &thread->acceptors[i];

		acceptor->thread = thread;
		acceptor->socket = sockets[i];
		ev_io_init(&acceptor->io, accept_cb, sockets[i].fd, EV_READ);
		acceptor->io.data = acceptor;
		ev_init(&acceptor->pause, pause_over_cb);
		acceptor->pause.data = acceptor;
		ev_io_start(thread->loop.ev, &acceptor->io);
	}
	return 0;
}

static int init_home(struct thread *thread)
{
	struct thread_shared *shared = thread->shared;

	thread->home = (struct session_home){
		.loop = &thread->loop,
		.thread = thread->number,
		.conf = shared->conf,
		.bpf = shared->bpf,
		.stats = shared->stats,
		.counters = &shared->stats->thread[thread->number],
		.sessions_active = &shared->sessions,
		.backends = backend_choices_new(shared->conf),
		.next_id = ((uint64_t)thread->number << 48) + 1,
	};
	relay_pool_init(&thread->home.pool);
	return thread->home.backends ? 0 : -ENOMEM;
}

static void init_timers(struct thread *thread)
{
	double period = loop_ms(sweep_ms(thread->shared->conf));

	ev_timer_init(&thread->sweep, sweep_cb, period, period);
	thread->sweep.data = thread;
	ev_timer_start(thread->loop.ev, &thread->sweep);
	ev_init(&thread->deadline, deadline_cb);
	thread->deadline.data = thread;
}

int thread_start(struct thread *thread, struct thread_shared *shared, unsigned int number,
	const struct listen_socket *sockets, unsigned int nsockets)
{
	int err;

	memset(thread, 0, sizeof(*thread));
	thread->number = number;
	thread->shared = shared;
	err = loop_init(&thread->loop, on_message, thread);
	err = err ?: init_home(thread);
	err = err ?: init_acceptors(thread, sockets, nsockets);
	if (err)
		return err;
	init_timers(thread);
	if (shared->bpf) {
		thread->events_watch = (struct loop_watch){
			.fd = shared->bpf->map_fds[BPF_MAP_FLOW_EVENTS],
			.cb = events_cb,
		};
		err = loop_watch_set(&thread->loop, &thread->events_watch, EPOLLIN);
		if (err)
			return err;
	}
	return -pthread_create(&thread->id, NULL, thread_main, thread);
}

static int post(struct thread *thread, enum message kind, uint64_t value, void *data)
{
	struct loop_message message = {.kind = kind, .value = value, .data = data};
	int err = loop_post(&thread->loop, &message);

	if (err)
		log_error("thread %u: out of memory for a message", thread->number);
	return err;
}

void thread_drain(struct thread *thread, uint64_t timeout_ms)
{
	(void)post(thread, MESSAGE_DRAIN, timeout_ms, NULL);
}

void thread_stop(struct thread *thread)
{
	(void)post(thread, MESSAGE_STOP, 0, NULL);
}

void thread_fold(struct thread *thread, struct thread_fold *request)
{
	if (!post(thread, MESSAGE_FOLD, 0, request))
		return;
	pthread_mutex_lock(&request->mutex);
	request->pending--;
	fold_unref(request);
}

void thread_join(struct thread *thread)
{
	pthread_join(thread->id, NULL);
	session_home_done(&thread->home);
	backend_choices_free(thread->home.backends, thread->shared->conf->nbackends);
	loop_done(&thread->loop);
	free(thread->acceptors);
}
