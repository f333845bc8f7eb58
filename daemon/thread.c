/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the loop's housekeeping and what other threads ask for. Sessions are session.c's. */
#include "thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flow_table.h"
#include "log.h"
#include "thread_messages.h"

#define SWEEP_MAX_MS 10000
#define SWEEP_MIN_MS 50
/* The sessions that are left after the first four fifths of drain_timeout are closed spread over
 * the last, so that their clients do not come back all at once. */
#define DRAIN_SPREAD 5
#define DRAIN_STEPS 20

static void leave_if_done(struct thread *thread)
{
	if (thread->draining && !thread->home.sessions)
		loop_stop(&thread->loop);
}

static void deadline_cb(struct ev_loop *ev, ev_timer *timer, int revents)
{
	struct thread *thread = timer->data;
	unsigned int left = thread->drain_steps ? thread->drain_steps-- : 1;

	(void)ev;
	(void)revents;
	session_abort_some(&thread->home, END_DRAIN, (thread->home.nsessions + left - 1) / left);
	leave_if_done(thread);
}

static void drain(struct thread *thread, uint64_t timeout_ms)
{
	double spread = loop_ms(timeout_ms) / DRAIN_SPREAD;

	if (thread->draining)
		return;
	thread->draining = true;
	acceptors_keep(&thread->acceptors, NULL, 0);
	thread->drain_steps = timeout_ms ? DRAIN_STEPS : 1;
	ev_timer_set(&thread->deadline, loop_ms(timeout_ms) - spread, spread / DRAIN_STEPS);
	ev_timer_start(thread->loop.ev, &thread->deadline);
}

static void on_message(struct loop *loop, const struct loop_message *message)
{
	struct thread *thread = loop->arg;

	switch ((enum thread_message)message->kind) {
	case THREAD_DRAIN:
		drain(thread, message->value);
		break;
	case THREAD_STOP:
		session_abort_all(&thread->home, END_DRAIN);
		loop_stop(loop);
		break;
	case THREAD_FLOW:
		session_flow_event(
			&thread->home, &(struct flow_event){.cookie = message->value,
					       .kind = (uint32_t)(uintptr_t)message->data});
		break;
	case THREAD_GRANT:
		session_granted(message->data);
		break;
	case THREAD_SERVER_DOWN:
		session_server_down(&thread->home, (unsigned int)message->value);
		break;
	case THREAD_CALL:
		thread_call_run(thread, message->data);
		break;
	}
	leave_if_done(thread);
}

/* Every thread watches the ring; whoever comes first empties it, and passes on what is not its own.
 */
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

	if (owner == shared->consumer->number)
		session_flow_event(&shared->consumer->home, event);
	else if (owner < shared->nthreads)
		(void)thread_post(&shared->threads[owner], THREAD_FLOW, event->cookie,
			(void *)(uintptr_t)event->kind);
}

static void sweep_cb(struct ev_loop *ev, ev_timer *timer, int revents)
{
	struct thread *thread = timer->data;

	(void)ev;
	(void)revents;
	session_sweep(&thread->home, now_ns());
	leave_if_done(thread);
}

/* An eighth of the shortest timeout: a session ends at most that much too late. Lifetimes are
 * spread over a tenth of max_lifetime, and must not meet again at one sweep. */
#define SWEEP_PART 8
#define SWEEP_PART_LIFETIME 100

static uint64_t sweep_ms(const struct conf *conf)
{
	uint64_t ms = SWEEP_MAX_MS;

	for (unsigned int i = 0; i < conf->nlisteners; i++) {
		const struct conf_listener *listener = &conf->listeners[i];

		if (listener->idle_timeout_ms)
			ms = MIN(ms, listener->idle_timeout_ms / SWEEP_PART);
		if (listener->half_close_timeout_ms)
			ms = MIN(ms, listener->half_close_timeout_ms / SWEEP_PART);
		if (listener->max_lifetime_ms)
			ms = MIN(ms, listener->max_lifetime_ms / SWEEP_PART_LIFETIME);
	}
	return MAX(ms, SWEEP_MIN_MS);
}

/* Before the loop sleeps: the last session may have ended in the events before. */
static void round_cb(struct ev_loop *ev, ev_prepare *prepare, int revents)
{
	(void)ev;
	(void)revents;
	leave_if_done(prepare->data);
}

static void *thread_main(void *arg)
{
	struct thread *thread = arg;
	uint64_t one = 1;
	ev_prepare round;

	ev_prepare_init(&round, round_cb);
	round.data = thread;
	ev_prepare_start(thread->loop.ev, &round);
	loop_run(&thread->loop);
	ev_prepare_stop(thread->loop.ev, &round);
	acceptors_keep(&thread->acceptors, NULL, 0);
	session_abort_all(&thread->home, END_DRAIN);
	(void)!write(thread->shared->left_fd, &one, sizeof(one));
	return NULL;
}

static void init_home(struct thread *thread)
{
	struct thread_shared *shared = thread->shared;

	thread->home = (struct session_home){
		.loop = &thread->loop,
		.thread = thread->number,
		.bpf = shared->bpf,
		.stats = shared->stats,
		.counters = &shared->stats->thread[thread->number],
		.clients = shared->clients,
		.sessions_active = &shared->sessions,
		.next_id = ((uint64_t)(thread->number + 1) << 40) + 1,
		.random = now_ns() * 2 + 1 + thread->number,
	};
	relay_pool_init(&thread->home.pool);
	thread->acceptors = (struct acceptors){
		.home = &thread->home,
		.max_sessions = shared->max_sessions,
	};
}

int thread_reconfigure(struct thread *thread, const struct thread_setup *setup)
{
	struct policy *policy =
		policy_new(setup->generation, thread->shared->stats->server_state, thread->number);
	double period = loop_ms(sweep_ms(setup->generation->conf));

	if (!policy)
		return -ENOMEM;
	if (thread->draining) {
		policy_unref(policy);
		return 0;
	}
	acceptors_keep(&thread->acceptors, setup->sockets, setup->nsockets);
	policy_unref(thread->home.policy);
	thread->home.policy = policy;
	ev_timer_stop(thread->loop.ev, &thread->sweep);
	ev_timer_set(&thread->sweep, period, period);
	ev_timer_start(thread->loop.ev, &thread->sweep);
	return acceptors_set(&thread->acceptors, setup->sockets, setup->nsockets);
}

static int watch_events(struct thread *thread)
{
	if (!thread->shared->bpf)
		return 0;
	thread->events_watch = (struct loop_watch){
		.fd = thread->shared->bpf->map_fds[BPF_MAP_FLOW_EVENTS],
		.cb = events_cb,
	};
	return loop_watch_set(&thread->loop, &thread->events_watch, EPOLLIN);
}

int thread_start(struct thread *thread, struct thread_shared *shared, unsigned int number,
	const struct thread_setup *setup)
{
	int err;

	memset(thread, 0, sizeof(*thread));
	thread->number = number;
	thread->shared = shared;
	err = loop_init(&thread->loop, on_message, thread);
	if (err)
		return err;
	init_home(thread);
	ev_init(&thread->sweep, sweep_cb);
	thread->sweep.data = thread;
	ev_init(&thread->deadline, deadline_cb);
	thread->deadline.data = thread;
	err = thread_reconfigure(thread, setup);
	err = err ?: watch_events(thread);
	return err ?: -pthread_create(&thread->id, NULL, thread_main, thread);
}

int thread_post(struct thread *thread, enum thread_message kind, uint64_t value, void *data)
{
	struct loop_message message = {.kind = kind, .value = value, .data = data};
	int err = loop_post(&thread->loop, &message);

	if (err)
		log_error("thread %u: out of memory for a message", thread->number);
	return err;
}

void thread_drain(struct thread *thread, uint64_t timeout_ms)
{
	(void)thread_post(thread, THREAD_DRAIN, timeout_ms, NULL);
}

void thread_stop(struct thread *thread)
{
	(void)thread_post(thread, THREAD_STOP, 0, NULL);
}

void thread_grant(struct thread *thread, struct queue_ticket *ticket)
{
	(void)thread_post(thread, THREAD_GRANT, 0, ticket);
}

void thread_server_down(struct thread *thread, unsigned int slot)
{
	(void)thread_post(thread, THREAD_SERVER_DOWN, slot, NULL);
}

void thread_join(struct thread *thread)
{
	pthread_join(thread->id, NULL);
	loop_done(&thread->loop); /* runs what was deferred: sessions are freed here */
	session_home_done(&thread->home);
}
