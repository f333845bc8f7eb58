/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the life of a session: connect, end, timeouts, counting. Must not know how bytes move. */
#include "session.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flow_table.h"
#include "log.h"

#define SPARE_SESSIONS 64
/* A UNIX server whose backlog is full says so at once and gives no event when there is room. */
#define UNIX_RETRY_MS 10

static void timer_cb(struct ev_loop *ev, ev_timer *timer, int revents);
static void task_cb(struct loop_task *task);
static void client_cb(struct loop_watch *watch, uint32_t events);
static void server_cb(struct loop_watch *watch, uint32_t events);

static struct stats_listener *listener_stats(const struct session *session)
{
	return stats_listener_of(session->home->stats, session->home->thread, session->conf->slot);
}

static struct stats_server *server_stats(const struct session *session)
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
	session->next = home->sessions;
	if (session->next)
		session->next->prev = session;
	home->sessions = session;
	return session;
}

static void session_free(struct session *session)
{
	struct session_home *home = session->home;

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
}

/* SO_LINGER {1, 0} was set at the start, so that a crash resets the connections instead of ending truncated
 * streams with a clean FIN. An orderly close takes it back. */
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

static void count_end(struct session *session, enum end_reason reason)
{
	struct stats_listener *counters = listener_stats(session);
	uint64_t us = (now_ns() - session->started_ns) / 1000;

	stats_add(&counters->ended[reason], 1);
	stats_observe(&counters->session_duration, us);
	if (session->server)
		stats_add(&server_stats(session)->ended, 1);
	atomic_fetch_sub_explicit(session->home->sessions_active, 1, memory_order_relaxed);
	log_debug("session %llu ended: %s, %llu us, c2s %llu, s2c %llu bytes",
		(unsigned long long)session->id, end_reason_names[reason], (unsigned long long)us,
		(unsigned long long)(session->dirs[DIR_C2S].reported_relay +
			session->dirs[DIR_C2S].reported_sockmap),
		(unsigned long long)(session->dirs[DIR_S2C].reported_relay +
			session->dirs[DIR_S2C].reported_sockmap));
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
	count_end(session, reason);
	unlink_session(session);
	loop_defer(home->loop, &session->task); /* frees it: events of this batch may still name it */
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

static enum end_reason connect_reason(int err)
{
	switch (err) {
	case ECONNREFUSED:
	case ENOENT: /* UNIX: nobody has bound it */
		return END_CONNECT_REFUSED;
	case ETIMEDOUT:
		return END_CONNECT_TIMEOUT;
	case EMFILE:
	case ENFILE:
		return END_NO_DESCRIPTOR;
	case ENOMEM:
	case ENOBUFS:
		return END_NO_MEMORY;
	default:
		return END_CONNECT_FAILED;
	}
}

static void connect_failed(struct session *session, int err)
{
	enum end_reason reason = connect_reason(err);

	if (session->server)
		stats_add(&server_stats(session)->connect_failures[reason], 1);
	log_debug("session %llu: connecting: %s", (unsigned long long)session->id, strerror(err));
	session_abort(session, reason);
}

static void connected(struct session *session)
{
	session->connected_ns = now_ns();
	stats_observe(&server_stats(session)->connect_duration,
		(session->connected_ns - session->started_ns) / 1000);
	ev_timer_stop(session->home->loop->ev, &session->timer);
	session_step(session, SESSION_EV_CONNECTED);
}

static void set_int(int fd, int level, int option, int value)
{
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

static void tune_server(int fd, const struct conf_backend *backend)
{
	struct linger on = {.l_onoff = 1};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &on, sizeof(on));
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (backend->keepalive_ms) {
		set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
		set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)((backend->keepalive_ms + 999) / 1000));
	}
	if (backend->user_timeout_ms)
		set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)backend->user_timeout_ms);
}

/* The next look, before connect_timeout is over. */
static void arm_connect(struct session *session, uint64_t ms)
{
	struct ev_loop *ev = session->home->loop->ev;

	ev_timer_stop(ev, &session->timer);
	ev_timer_set(&session->timer, loop_ms(ms), 0.);
	ev_timer_start(ev, &session->timer);
}

static void try_connect(struct session *session)
{
	const struct conf_server *server = session->server;
	int fd = session->ends[END_SERVER].watch.fd;

	if (connect(fd, &server->addr.sa, server->addr.len) == 0) {
		connected(session);
		return;
	}
	if (errno == EAGAIN && addr_is_unix(&server->addr))
		arm_connect(session, UNIX_RETRY_MS);
	else if (errno == EINPROGRESS)
		arm_connect(session, session->backend->connect_timeout_ms);
	else
		connect_failed(session, errno);
}

static void start_connect(struct session *session)
{
	const struct conf_server *server = session->server;
	int family = addr_family(&server->addr);
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
		family == AF_UNIX ? 0 : IPPROTO_TCP);
	int err;

	if (fd < 0) {
		connect_failed(session, errno);
		return;
	}
	session->ends[END_SERVER].watch.fd = fd;
	session->server_is_unix = family == AF_UNIX;
	if (!session->server_is_unix)
		tune_server(fd, session->backend);
	err = loop_watch_set(session->home->loop, &session->ends[END_SERVER].watch,
		EPOLLIN | EPOLLOUT | EPOLLRDHUP);
	if (err)
		connect_failed(session, -err);
	else
		try_connect(session);
}

void session_accept(struct session_home *home, unsigned int listener, int client_fd, bool spliceable)
{
	struct session *session = session_new(home);
	const struct conf_listener *conf = &home->conf->listeners[listener];
	struct stats_listener *counters = stats_listener_of(home->stats, home->thread, conf->slot);
	struct backend_choice *choice;
	int picked;

	if (!session) {
		stats_add(&counters->rejected[REJECT_NO_MEMORY], 1);
		sockmap_abort(client_fd);
		close(client_fd);
		return;
	}
	session->conf = conf;
	session->ends[END_CLIENT].watch.fd = client_fd;
	session->pair.connected = 1u << END_SERVER;
	for (unsigned int dir = 0; dir < DIR_COUNT; dir++)
		session->dirs[dir].path = spliceable ? DIR_SOCKMAP : DIR_RELAY;
	stats_add(&counters->sessions, 1);
	atomic_fetch_add_explicit(home->sessions_active, 1, memory_order_relaxed);
	choice = &home->backends[session->conf->backend - home->conf->backends];
	picked = backend_pick(choice);
	if (picked < 0) {
		session_abort(session, END_NO_SERVER);
		return;
	}
	session->backend = choice->conf;
	session->server = &choice->conf->servers[picked];
	stats_add(&server_stats(session)->sessions, 1);
	if (loop_watch_set(home->loop, &session->ends[END_CLIENT].watch,
		    spliceable ? EPOLLRDHUP : EPOLLIN | EPOLLOUT | EPOLLRDHUP)) {
		session_abort(session, END_NO_MEMORY);
		return;
	}
	start_connect(session);
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
	int err;

	if (session->fsm.state != SESSION_CONNECTING) {
		on_end(session, END_SERVER, events);
		return;
	}
	/* A UNIX socket that waits for its next attempt reports a hang-up: it is not connected. */
	if (!(events & (EPOLLOUT | EPOLLERR)) || (events & EPOLLHUP && !(events & EPOLLERR)))
		return;
	err = socket_error(watch->fd);
	if (err) {
		connect_failed(session, err);
		return;
	}
	note(end, events);
	connected(session);
}

static void timer_cb(struct ev_loop *ev, ev_timer *timer, int revents)
{
	struct session *session = timer->data;
	uint64_t waited_ms = (now_ns() - session->started_ns) / 1000000;

	(void)ev;
	(void)revents;
	if (session->fsm.state == SESSION_OPEN)
		session_path_tick(session);
	else if (waited_ms >= session->backend->connect_timeout_ms)
		connect_failed(session, ETIMEDOUT);
	else if (addr_is_unix(&session->server->addr))
		try_connect(session);
	else
		arm_connect(session, session->backend->connect_timeout_ms - waited_ms);
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

static struct session *session_by_cookie(struct session_home *home, uint64_t cookie,
	unsigned int *ret_dir)
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

static bool timed_out(const struct session *session, uint64_t now, uint64_t timeout_ms)
{
	return timeout_ms && now - session->activity_ns >= timeout_ms * 1000000ull;
}

static bool half_closed(const struct session *session)
{
	return session->fsm.c2s == FLOW_SHUT || session->fsm.s2c == FLOW_SHUT;
}

static uint64_t bytes_moved(const struct session *session)
{
	uint64_t sum = 0;

	for (unsigned int dir = 0; dir < DIR_COUNT; dir++)
		sum += session->dirs[dir].reported_relay + session->dirs[dir].reported_sockmap;
	return sum;
}

static void sweep_one(struct session *session, uint64_t now)
{
	uint64_t bytes;

	session_path_report(session);
	bytes = bytes_moved(session);
	if (bytes != session->activity_bytes) {
		session->activity_bytes = bytes;
		session->activity_ns = now;
	} else if (session->fsm.state != SESSION_OPEN) {
		return;
	} else if (half_closed(session) && timed_out(session, now, session->conf->half_close_timeout_ms)) {
		session_abort(session, END_HALF_CLOSE_TIMEOUT);
	} else if (timed_out(session, now, session->conf->idle_timeout_ms)) {
		session_abort(session, END_IDLE_TIMEOUT);
	}
}

void session_sweep(struct session_home *home, uint64_t now)
{
	for (struct session *session = home->sessions, *next; session; session = next) {
		next = session->next;
		sweep_one(session, now);
	}
}

void session_abort_all(struct session_home *home, enum end_reason reason)
{
	while (home->sessions)
		session_abort(home->sessions, reason);
}

void session_home_done(struct session_home *home)
{
	while (home->spare) {
		struct session *session = home->spare;

		home->spare = session->next;
		free(session);
	}
	home->nspare = 0;
	relay_pool_done(&home->pool);
}
