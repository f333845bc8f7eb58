/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the life of a session: connect, end, timeouts, counting. Must not know how bytes move. */
#include "session.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flow_table.h"
#include "log.h"
#include "maglev.h"

#define SPARE_SESSIONS 64

static void timer_cb(struct ev_loop *ev, ev_timer *timer, int revents);
static void task_cb(struct loop_task *task);
static void client_cb(struct loop_watch *watch, uint32_t events);
static void server_cb(struct loop_watch *watch, uint32_t events);

struct stats_listener *session_listener_stats(const struct session *session)
{
	return stats_listener_of(session->home->stats, session->home->thread, session->conf->slot);
}

struct stats_server *session_server_stats(const struct session *session)
{
	return stats_server_of(session->home->stats, session->home->thread, session->server->slot);
}

static struct session *session_new(struct session_home *home)
{
	struct session *session = home->spare;

	if (session) {
		home->spare = session->next;
		home->nspare--;
		memset(session, 0, sizeof(*session));
	} else {
		session = calloc(1, sizeof(*session));
	}
	if (!session)
		return NULL;
	session->home = home;
	session->ends[END_CLIENT].watch = (struct loop_watch){.fd = -1, .cb = client_cb};
	session->ends[END_SERVER].watch = (struct loop_watch){.fd = -1, .cb = server_cb};
	session->task.cb = task_cb;
	ev_init(&session->timer, timer_cb);
	session->timer.data = session;
	session->started_ns = now_ns();
	session->activity_ns = session->started_ns;
	session->id = home->next_id++;
	home->nsessions++;
	session->next = home->sessions;
	if (session->next)
		session->next->prev = session;
	home->sessions = session;
	return session;
}

static void session_free(struct session *session)
{
	struct session_home *home = session->home;

	policy_unref(session->policy);
	free(session->proxied);
	if (home->nspare >= SPARE_SESSIONS) {
		free(session);
		return;
	}
	session->next = home->spare;
	home->spare = session;
	home->nspare++;
}

static void unlink_session(struct session *session)
{
	if (session->prev)
		session->prev->next = session->next;
	else
		session->home->sessions = session->next;
	if (session->next)
		session->next->prev = session->prev;
	session->home->nsessions--;
}

/* SO_LINGER {1, 0} was set at the start, so that a crash resets the connections instead of ending
 * truncated streams with a clean FIN. An orderly close takes it back. */
static void close_end(struct session *session, unsigned int end, bool orderly)
{
	struct linger off = {0};
	int fd = session->ends[end].watch.fd;

	if (fd < 0)
		return;
	if (orderly)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
	close(fd);
	session->ends[end].watch.fd = -1;
}

void session_give_place(const struct session_home *home, const struct conf_listener *listener)
{
	atomic_fetch_sub(home->sessions_active, 1);
	atomic_fetch_sub(&home->stats->listener_active[listener->slot], 1);
}

static void count_end(struct session *session, enum end_reason reason)
{
	struct stats_listener *counters = session_listener_stats(session);
	uint64_t us = (now_ns() - session->started_ns) / 1000;

	stats_add(&counters->ended[reason], 1);
	stats_observe(&counters->session_duration, us);
	session_give_place(session->home, session->conf);
	log_debug("session %llu ended: %s, %llu us, c2s %llu, s2c %llu bytes",
		(unsigned long long)session->id, end_reason_names[reason], (unsigned long long)us,
		(unsigned long long)(session->dirs[DIR_C2S].reported_relay +
				     session->dirs[DIR_C2S].reported_sockmap),
		(unsigned long long)(session->dirs[DIR_S2C].reported_relay +
				     session->dirs[DIR_S2C].reported_sockmap));
}

/* A server that accepts and then resets before it has said a word is as broken as one that refuses.
 */
static bool early_abort(const struct session *session, enum end_reason reason)
{
	return reason == END_SERVER_ABORT && !session->dirs[DIR_S2C].reported_relay &&
	       !session->dirs[DIR_S2C].reported_sockmap;
}

static void session_finish(struct session *session, enum end_reason reason, bool orderly)
{
	struct session_home *home = session->home;

	for (unsigned int end = 0; end < END_COUNT; end++) {
		loop_watch_stop(home->loop, &session->ends[end].watch);
		if (!orderly && session->ends[end].watch.fd >= 0)
			sockmap_abort(session->ends[end].watch.fd);
	}
	session_path_report(session);
	session_path_done(session);
	for (unsigned int end = 0; end < END_COUNT; end++)
		close_end(session, end, orderly);
	ev_timer_stop(home->loop->ev, &session->timer);
	session_leave_queue(session);
	session_release_server(session, early_abort(session, reason));
	clients_leave(session->counted, now_ns());
	count_end(session, reason);
	unlink_session(session);
	loop_defer(
		home->loop, &session->task); /* frees it: events of this batch may still name it */
}

void session_abort(struct session *session, enum end_reason reason)
{
	unsigned int actions = session_fsm_step(&session->fsm, SESSION_EV_ABORT);

	if (actions & SESSION_DO_ABORT)
		session_finish(session, reason, false);
}

void session_step(struct session *session, enum session_event event)
{
	unsigned int actions = session_fsm_step(&session->fsm, event);

	if (actions & SESSION_DO_REPORT) {
		log_error("BUG: session %llu: event %d in state %d/%d/%d",
			(unsigned long long)session->id, (int)event, (int)session->fsm.state,
			(int)session->fsm.c2s, (int)session->fsm.s2c);
		return;
	}
	if (actions & SESSION_DO_START)
		session_path_start(session);
	if (actions & SESSION_DO_SHUT_SERVER)
		(void)shutdown(session->ends[END_SERVER].watch.fd, SHUT_WR);
	if (actions & SESSION_DO_SHUT_CLIENT)
		(void)shutdown(session->ends[END_CLIENT].watch.fd, SHUT_WR);
	if (actions & SESSION_DO_CLOSE)
		session_finish(session, END_COMPLETE, true);
}

static int socket_error(int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		return errno;
	return err;
}

void session_end_error(struct session *session, unsigned int end)
{
	session_abort(session, end == END_CLIENT ? END_CLIENT_ABORT : END_SERVER_ABORT);
}

static void peer_of(struct session_client *peer, const struct addr *addr)
{
	memset(peer, 0, sizeof(*peer));
	peer->family = (sa_family_t)addr_family(addr);
	if (peer->family == AF_INET6) {
		memcpy(peer->ip, &addr->in6.sin6_addr, sizeof(peer->ip));
		peer->scope = addr->in6.sin6_scope_id;
		peer->port = addr->in6.sin6_port;
	} else if (peer->family == AF_INET) {
		memcpy(peer->ip + 12, &addr->in.sin_addr, 4);
		peer->port = addr->in.sin_port;
	}
}

void session_set_client(struct session *session, const struct addr *addr)
{
	peer_of(&session->client, addr);
	session->client_hash = maglev_client_hash(addr);
}

void session_client_addr(const struct session *session, struct addr *ret)
{
	const struct session_client *peer = &session->client;

	memset(ret, 0, sizeof(*ret));
	if (peer->family == AF_INET6) {
		ret->len = sizeof(ret->in6);
		ret->in6.sin6_port = peer->port;
		ret->in6.sin6_scope_id = peer->scope;
		memcpy(&ret->in6.sin6_addr, peer->ip, sizeof(peer->ip));
	} else if (peer->family == AF_INET) {
		ret->len = sizeof(ret->in);
		ret->in.sin_port = peer->port;
		memcpy(&ret->in.sin_addr, peer->ip + 12, 4);
	} else {
		ret->len = sizeof(sa_family_t);
	}
	ret->sa.sa_family = peer->family;
}

/* xorshift64: spreads ends in time, nothing more. */
static uint64_t next_random(struct session_home *home)
{
	uint64_t x = home->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return home->random = x;
}

/* Up to a tenth less, so that sessions which began together do not end together. */
static uint64_t lifetime(struct session_home *home, const struct conf_listener *listener)
{
	uint64_t ns = listener->max_lifetime_ms * 1000000;

	return ns ? ns - next_random(home) % (ns / 10 + 1) : 0;
}

static void refuse(struct session_home *home, const struct session_start *start)
{
	struct stats_listener *counters =
		stats_listener_of(home->stats, home->thread, start->listener->slot);

	stats_add(&counters->rejected[REJECT_NO_MEMORY], 1);
	clients_leave(start->counted, now_ns());
	session_give_place(home, start->listener);
	sockmap_abort(start->client_fd);
	close(start->client_fd);
}

/* A spliced socket is not woken for bytes, unless they have to be looked at first. */
static uint32_t client_events(const struct session_start *start)
{
	if (start->spliceable && !start->listener->accept_proxy && !start->listener->nroutes)
		return EPOLLRDHUP;
	return start->spliceable ? EPOLLIN | EPOLLRDHUP : EPOLLIN | EPOLLOUT | EPOLLRDHUP;
}

void session_accept(struct session_home *home, const struct session_start *start)
{
	struct session *session = session_new(home);

	if (!session) {
		refuse(home, start);
		return;
	}
	session->policy = policy_ref(home->policy);
	session->conf = start->listener;
	session->backend = policy_backend_of(home->policy, start->listener);
	session->ends[END_CLIENT].watch.fd = start->client_fd;
	session->counted = start->counted;
	session->lifetime_ns = lifetime(home, start->listener);
	session->pair.connected = 1u << END_SERVER;
	session_set_client(session, start->client);
	for (unsigned int dir = 0; dir < DIR_COUNT; dir++)
		session->dirs[dir].path = start->spliceable ? DIR_SOCKMAP : DIR_RELAY;
	stats_add(&session_listener_stats(session)->sessions, 1);
	if (loop_watch_set(home->loop, &session->ends[END_CLIENT].watch, client_events(start)))
		session_abort(session, END_NO_MEMORY);
	else
		session_handshake_start(session);
}

/* A hang-up or a FIN is noted for the paths, which know when every byte before it has gone. */
static void note(struct session_end *end, uint32_t events)
{
	if (events & (EPOLLRDHUP | EPOLLHUP))
		end->finished = true;
}

static void on_end(struct session *session, unsigned int end, uint32_t events)
{
	note(&session->ends[end], events);
	if (events & EPOLLERR && socket_error(session->ends[end].watch.fd)) {
		session_end_error(session, end);
		return;
	}
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
		session->dirs[end].relay.source_dry = false;
	if (events & EPOLLOUT)
		session->dirs[!end].relay.target_full = false;
	if (session->fsm.state == SESSION_OPEN)
		session_path_event(session, end);
	else if (session->handshake != SESSION_GREETED)
		session_handshake(session);
}

static void client_cb(struct loop_watch *watch, uint32_t events)
{
	struct session_end *end = container_of(watch, struct session_end, watch);

	on_end(container_of(end, struct session, ends[END_CLIENT]), END_CLIENT, events);
}

static void server_cb(struct loop_watch *watch, uint32_t events)
{
	struct session_end *end = container_of(watch, struct session_end, watch);
	struct session *session = container_of(end, struct session, ends[END_SERVER]);

	if (session->fsm.state != SESSION_CONNECTING) {
		on_end(session, END_SERVER, events);
		return;
	}
	note(end, events);
	session_connect_event(session, events);
}

static void timer_cb(struct ev_loop *ev, ev_timer *timer, int revents)
{
	struct session *session = timer->data;

	(void)ev;
	(void)revents;
	if (session->fsm.state == SESSION_OPEN)
		session_path_tick(session);
	else
		session_connect_tick(session);
}

/* Arms the timer for the direction that has to be looked at first. */
void session_arm(struct session *session)
{
	struct ev_loop *ev = session->home->loop->ev;
	unsigned int ms = 0;

	for (unsigned int dir = 0; dir < DIR_COUNT; dir++)
		if (session->dirs[dir].wait_ms && (!ms || session->dirs[dir].wait_ms < ms))
			ms = session->dirs[dir].wait_ms;
	if (ev_is_active(&session->timer) && !ms)
		ev_timer_stop(ev, &session->timer);
	if (ev_is_active(&session->timer) || !ms)
		return;
	ev_timer_set(&session->timer, loop_ms(ms), 0.);
	ev_timer_start(ev, &session->timer);
}

static void task_cb(struct loop_task *task)
{
	struct session *session = container_of(task, struct session, task);

	if (session->fsm.state == SESSION_CLOSED)
		session_free(session);
	else
		session_path_more(session);
}

static struct session *session_by_cookie(
	struct session_home *home, uint64_t cookie, unsigned int *ret_dir)
{
	struct flow *flow = flow_find(home->bpf->flows, home->bpf->flow_shift, cookie);
	struct session *session;

	if (!flow || flow->owner != home->thread)
		return NULL;
	session = (struct session *)(uintptr_t)flow->owner_data;
	*ret_dir = session->pair.flows[DIR_C2S] == flow ? DIR_C2S : DIR_S2C;
	return session;
}

void session_flow_event(struct session_home *home, const struct flow_event *event)
{
	unsigned int dir = 0;
	struct session *session = session_by_cookie(home, event->cookie, &dir);

	/* The session may have ended since. */
	if (session && session->fsm.state == SESSION_OPEN)
		session_path_overflow(session, dir, event);
}

void session_home_done(struct session_home *home)
{
	while (home->spare) {
		struct session *session = home->spare;

		home->spare = session->next;
		free(session);
	}
	home->nspare = 0;
	policy_unref(home->policy);
	relay_pool_done(&home->pool);
}
