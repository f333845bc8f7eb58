/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Owns the way from an accepted client to a connected server: choosing, waiting in the queue,
 * connecting, trying another one. Until then nothing of the client's bytes is read, so nothing can
 * be lost.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "session.h"

/* A UNIX server whose backlog is full says so at once and gives no event when there is room. */
#define UNIX_RETRY_MS 10
/* A session that lived this long proves its server well, whether that said a word or not. */
#define LIVED_NS 1000000000ull

static struct server_state *state_of(const struct session *session)
{
	return &session->home->stats->server_state[session->server->slot];
}

static unsigned int number_of(const struct session *session)
{
	return (unsigned int)(session->server - session->backend->conf->servers);
}

static void arm(struct session *session, uint64_t ms)
{
	struct ev_loop *ev = session->home->loop->ev;

	ev_timer_stop(ev, &session->timer);
	ev_timer_set(&session->timer, loop_ms(ms), 0.);
	ev_timer_start(ev, &session->timer);
}

static uint64_t elapsed_ms(uint64_t since_ns)
{
	return (now_ns() - since_ns) / 1000000;
}

/* --- the server's account
 * --------------------------------------------------------------------------- */

static void note_failure(struct session *session)
{
	const struct policy_backend *backend = session->backend;

	if (balance_note_failure(backend->servers, backend->conf->nservers, number_of(session),
		    &backend->ejection, now_ns()))
		log_warning("server %s/%s: ejected after failures in a row", backend->conf->name,
			session->server->name);
}

static bool did_well(const struct session *session)
{
	const struct session_dir *s2c = &session->dirs[DIR_S2C];

	return session->connected_ns && (s2c->reported_relay || s2c->reported_sockmap ||
						now_ns() - session->connected_ns >= LIVED_NS);
}

void session_release_server(struct session *session, bool early_abort)
{
	if (!session->server)
		return;
	if (early_abort)
		note_failure(session);
	else if (did_well(session))
		balance_note_success(state_of(session));
	if (session->connected_ns)
		stats_add(&session_server_stats(session)->ended, 1);
	balance_release(state_of(session));
	session->server = NULL;
	queue_grant(session->backend->queue);
}

/* --- the queue
 * -------------------------------------------------------------------------------------- */

void session_leave_queue(struct session *session)
{
	struct queue_ticket *ticket = session->ticket;

	session->ticket = NULL;
	if (ticket && queue_leave(session->backend->queue, ticket))
		free(ticket);
}

static void wait_for_server(struct session *session, bool front)
{
	struct queue_ticket *ticket = session->ticket;

	if (!ticket) {
		ticket = calloc(1, sizeof(*ticket));
		if (!ticket) {
			session_abort(session, END_NO_MEMORY);
			return;
		}
		ticket->thread = session->home->thread;
		ticket->owner = session;
		session->ticket = ticket;
		session->connecting_ns = now_ns();
		arm(session, session->backend->conf->queue_timeout_ms);
	}
	queue_join(session->backend->queue, ticket, front);
}

/* --- connecting
 * ------------------------------------------------------------------------------------- */

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

static void drop_server_socket(struct session *session)
{
	struct loop_watch *watch = &session->ends[END_SERVER].watch;

	loop_watch_stop(session->home->loop, watch);
	if (watch->fd >= 0)
		close(watch->fd);
	watch->fd = -1;
	session->ends[END_SERVER].finished = false;
}

/* The server's fault goes on its account and another one may serve; a shortage of ours ends the
 * session. */
static void connect_failed(struct session *session, int err)
{
	enum end_reason reason = connect_reason(err);
	bool ours = reason == END_NO_DESCRIPTOR || reason == END_NO_MEMORY;

	stats_add(&session_server_stats(session)->connect_failures[reason], 1);
	log_debug("session %llx: connecting to %s/%s: %s", (unsigned long long)session->id,
		session->backend->conf->name, session->server->name, strerror(err));
	if (ours || session->attempts > session->backend->conf->retries) {
		if (!ours)
			note_failure(session);
		session_abort(session, reason);
		return;
	}
	drop_server_socket(session);
	balance_tried_add(&session->tried, number_of(session));
	session->failed_reason = reason;
	session_release_server(session, true);
	session_choose(session);
}

static void connected(struct session *session)
{
	int err = session_greet_server(session);

	if (err) {
		connect_failed(session, -err);
		return;
	}
	session->connected_ns = now_ns();
	session->activity_ns = session->connected_ns; /* waiting for a server was not idling */
	stats_add(&session_server_stats(session)->sessions, 1);
	stats_observe(&session_server_stats(session)->connect_duration,
		(session->connected_ns - session->connecting_ns) / 1000);
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

static void try_connect(struct session *session)
{
	const struct addr *addr = &session->server->addr;

	if (connect(session->ends[END_SERVER].watch.fd, &addr->sa, addr->len) == 0)
		connected(session);
	else if (errno == EAGAIN && addr_is_unix(addr))
		arm(session, UNIX_RETRY_MS);
	else if (errno == EINPROGRESS)
		arm(session, session->backend->conf->connect_timeout_ms);
	else
		connect_failed(session, errno);
}

static void start_connect(struct session *session)
{
	int family = addr_family(&session->server->addr);
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
		family == AF_UNIX ? 0 : IPPROTO_TCP);
	int err;

	session->attempts++;
	session->connecting_ns = now_ns();
	if (fd < 0) {
		connect_failed(session, errno);
		return;
	}
	session->ends[END_SERVER].watch.fd = fd;
	session->server_is_unix = family == AF_UNIX;
	if (!session->server_is_unix)
		tune_server(fd, session->backend->conf);
	err = loop_watch_set(session->home->loop, &session->ends[END_SERVER].watch,
		EPOLLIN | EPOLLOUT | EPOLLRDHUP);
	if (err)
		connect_failed(session, -err);
	else
		try_connect(session);
}

/* --- choosing
 * --------------------------------------------------------------------------------------- */

static int pick(struct session *session)
{
	return balance_pick(
		session->backend->balance, now_ns(), session->client_hash, &session->tried);
}

static void use(struct session *session, int picked)
{
	bool waited = session->ticket != NULL;

	session_leave_queue(session);
	/* There may be room for more: in order, one wakes the next. */
	if (waited)
		queue_grant(session->backend->queue);
	session->server = &session->backend->conf->servers[picked];
	start_connect(session);
}

/* Joins the queue. A server may have become free between the choice and the queue, with nobody to
 * tell. */
static void join_queue(struct session *session, bool front)
{
	int picked;

	wait_for_server(session, front);
	picked = session->ticket ? pick(session) : BALANCE_NONE;
	if (picked < 0)
		return;
	balance_release(session->backend->servers[picked].state);
	queue_grant(session->backend->queue);
}

/* `granted`: its turn has come. Others must not overtake those who wait. */
static void choose(struct session *session, bool granted)
{
	int picked;

	if (!granted && !queue_is_empty(session->backend->queue)) {
		join_queue(session, false);
		return;
	}
	picked = pick(session);
	if (picked == BALANCE_FULL && granted) {
		/* The head of the queue must not hold up the others for a server that it alone
		 * avoids. */
		session->tried = (struct balance_tried){0};
		picked = pick(session);
	}
	if (picked >= 0)
		use(session, picked);
	else if (picked == BALANCE_FULL)
		join_queue(session, granted);
	else
		session_abort(session, session->attempts ? session->failed_reason : END_NO_SERVER);
}

void session_choose(struct session *session)
{
	choose(session, false);
}

/* Who waits is served by the configuration of now, if that still has its listener and backend. The
 * queue is the same: it belongs to the backend's name. */
static void follow_reload(struct session *session)
{
	struct policy *policy = session->home->policy;
	const struct conf_listener *listener;
	const struct conf_backend *backend;

	if (session->policy == policy)
		return;
	listener = conf_find_listener(policy->conf, session->conf->name);
	backend = conf_find_backend(policy->conf, session->backend->conf->name);
	if (!listener || !backend)
		return;
	policy_ref(policy);
	session->conf = listener;
	session->backend = &policy->backends[backend - policy->conf->backends];
	session->tried = (struct balance_tried){0};
	policy_unref(session->policy);
	session->policy = policy;
}

void session_granted(struct queue_ticket *ticket)
{
	struct session *session = ticket->owner;

	if (!session) { /* it left while the wake-up was on its way: the next one's turn */
		struct queue *queue = ticket->queue;

		free(ticket);
		queue_grant(queue);
		return;
	}
	ticket->granted = false;
	follow_reload(session);
	choose(session, true);
}

void session_connect_lost(struct session *session)
{
	if (session->fsm.state == SESSION_CONNECTING && session->server)
		connect_failed(session, EHOSTDOWN);
}

static int socket_error(int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 ? errno : err;
}

void session_connect_event(struct session *session, uint32_t events)
{
	int err;

	/* A UNIX socket that waits for its next attempt reports a hang-up: it is not connected. */
	if (!(events & (EPOLLOUT | EPOLLERR)) || (events & EPOLLHUP && !(events & EPOLLERR)))
		return;
	err = socket_error(session->ends[END_SERVER].watch.fd);
	if (err)
		connect_failed(session, err);
	else
		connected(session);
}

void session_connect_tick(struct session *session)
{
	const struct conf_backend *backend = session->backend->conf;
	uint64_t waited = elapsed_ms(session->connecting_ns);
	uint64_t limit = session->ticket ? backend->queue_timeout_ms : backend->connect_timeout_ms;

	if (session->handshake != SESSION_GREETED)
		session_abort(session, END_HANDSHAKE_TIMEOUT);
	else if (session->ticket && waited >= limit)
		session_abort(session, END_QUEUE_TIMEOUT);
	else if (session->ticket)
		arm(session, limit - waited);
	else if (waited >= limit)
		connect_failed(session, ETIMEDOUT);
	else if (addr_is_unix(&session->server->addr))
		try_connect(session);
	else
		arm(session, limit - waited);
}
