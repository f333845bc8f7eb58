/* SPDX-License-Identifier: BSD-2-Clause */
#include "acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cidr.h"
#include "log.h"

#define ACCEPT_BATCH 64
#define ACCEPT_PAUSE_S 0.1
/* More than any backlog. */
#define EMPTY_MAX 65536

static struct ev_loop *loop_of(const struct acceptor *acceptor)
{
	return acceptor->set->home->loop->ev;
}

static const struct conf_listener *listener_of(const struct acceptor *acceptor)
{
	return &acceptor->set->home->policy->conf->listeners[acceptor->socket.listener];
}

static void pause_accept(struct acceptor *acceptor, int err)
{
	static struct log_limit limit;
	unsigned int suppressed;

	stats_add(&acceptor->set->home->counters->accept_pauses, 1);
	if (log_limit_pass(&limit, &suppressed))
		log_warning("accept: %s: pausing for %d ms (%u more not shown)", strerror(err),
			(int)(ACCEPT_PAUSE_S * 1000), suppressed);
	ev_io_stop(loop_of(acceptor), &acceptor->io);
	ev_timer_set(&acceptor->pause, ACCEPT_PAUSE_S, 0.);
	ev_timer_start(loop_of(acceptor), &acceptor->pause);
}

static void pause_over_cb(struct ev_loop *ev, ev_timer *timer, int revents)
{
	struct acceptor *acceptor = timer->data;

	(void)revents;
	ev_io_start(ev, &acceptor->io);
}

/* Takes a place first and asks then: two threads that both ask first would both come in. */
static bool reserve(const struct acceptor *acceptor)
{
	const struct session_home *home = acceptor->set->home;
	const struct conf_listener *conf = listener_of(acceptor);
	uint32_t all = atomic_fetch_add(home->sessions_active, 1);
	uint32_t here = atomic_fetch_add(&home->stats->listener_active[conf->slot], 1);

	if (all < acceptor->set->max_sessions && (!conf->max_sessions || here < conf->max_sessions))
		return true;
	session_give_place(home, conf);
	return false;
}

static bool limited(const struct conf_listener *conf)
{
	return conf->max_sessions_per_ip || conf->max_rate_per_ip.count;
}

static bool client_over(const struct acceptor *acceptor, const struct addr *client,
	struct client **ret_counted, enum reject_reason *ret)
{
	const struct conf_listener *conf = listener_of(acceptor);
	struct clients_limits limits = {
		.max_sessions = (uint32_t)conf->max_sessions_per_ip,
		.rate_count = conf->max_rate_per_ip.count,
		.rate_period_ns = conf->max_rate_per_ip.period_ms * 1000000,
	};

	switch (clients_enter(
		acceptor->set->home->clients, conf->slot, client, &limits, now_ns(), ret_counted)) {
	case CLIENTS_TOO_MANY:
		*ret = REJECT_MAX_SESSIONS_PER_IP;
		return true;
	case CLIENTS_TOO_FAST:
		*ret = REJECT_MAX_RATE_PER_IP;
		return true;
	case CLIENTS_OK:
	case CLIENTS_UNTRACKED:
		break;
	}
	return false;
}

/* False: the client may not come in, for *ret. The cheapest question first. True: it has a place.
 */
static bool admit(const struct acceptor *acceptor, const struct addr *client,
	struct client **ret_counted, enum reject_reason *ret)
{
	const struct generation *generation = acceptor->set->home->policy->generation;

	*ret = REJECT_DENIED;
	if (!cidr_allows(generation->access[acceptor->socket.listener], client))
		return false;
	*ret = REJECT_NOT_A_PROXY;
	if (listener_of(acceptor)->accept_proxy &&
		!cidr_allows(generation->proxies[acceptor->socket.listener], client))
		return false;
	*ret = REJECT_MAX_SESSIONS;
	if (!reserve(acceptor))
		return false;
	if (!limited(listener_of(acceptor)) || !client_over(acceptor, client, ret_counted, ret))
		return true;
	session_give_place(acceptor->set->home, listener_of(acceptor));
	return false;
}

static void reject(const struct acceptor *acceptor, int fd, enum reject_reason reason)
{
	stats_add(&stats_listener_of(acceptor->set->home->stats, acceptor->set->home->thread,
			  listener_of(acceptor)->slot)
			   ->rejected[reason],
		1);
	sockmap_abort(fd);
	close(fd);
}

static void serve(const struct acceptor *acceptor, int fd, const struct addr *client)
{
	struct session_home *home = acceptor->set->home;
	struct session_start start = {
		.listener = listener_of(acceptor),
		.client_fd = fd,
		.client = client,
		.spliceable = acceptor->socket.spliceable,
	};
	enum reject_reason reason;

	if (!admit(acceptor, client, &start.counted, &reason)) {
		reject(acceptor, fd, reason);
		return;
	}
	if (acceptor->socket.wanted && !acceptor->socket.spliceable)
		stats_add(&home->counters->fallbacks[acceptor->socket.why], 1);
	session_accept(home, &start);
}

/* True: more may be waiting. */
static bool accept_one(struct acceptor *acceptor)
{
	struct addr client = {.len = sizeof(client.un)};
	int fd =
		accept4(acceptor->socket.fd, &client.sa, &client.len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0) {
		serve(acceptor, fd, &client);
		return true;
	}
	if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
		pause_accept(acceptor, errno);
		return false;
	}
	return errno == ECONNABORTED || errno == EINTR;
}

static void accept_cb(struct ev_loop *ev, ev_io *io, int revents)
{
	(void)ev;
	(void)revents;
	for (int i = 0; i < ACCEPT_BATCH && accept_one(io->data); i++)
		;
}

static struct acceptor *find(struct acceptors *set, uint64_t id)
{
	struct acceptor *acceptor = set->first;

	while (acceptor && acceptor->socket.id != id)
		acceptor = acceptor->next;
	return acceptor;
}

static int add(struct acceptors *set, const struct listen_socket *socket)
{
	struct acceptor *acceptor = calloc(1, sizeof(*acceptor));

	if (!acceptor)
		return -ENOMEM;
	acceptor->set = set;
	acceptor->socket = *socket;
	/* One descriptor each: a socket that threads share is closed by each of them. */
	acceptor->socket.fd = fcntl(socket->fd, F_DUPFD_CLOEXEC, 0);
	if (acceptor->socket.fd < 0) {
		int err = -errno;

		free(acceptor);
		return err;
	}
	ev_io_init(&acceptor->io, accept_cb, acceptor->socket.fd, EV_READ);
	acceptor->io.data = acceptor;
	ev_init(&acceptor->pause, pause_over_cb);
	acceptor->pause.data = acceptor;
	acceptor->next = set->first;
	set->first = acceptor;
	ev_io_start(loop_of(acceptor), &acceptor->io);
	return 0;
}

static void change(struct acceptor *acceptor, const struct listen_socket *socket)
{
	int fd = acceptor->socket.fd;

	acceptor->socket = *socket;
	acceptor->socket.fd = fd;
}

static void remove_acceptor(struct acceptor *acceptor)
{
	for (int i = 0; i < EMPTY_MAX && accept_one(acceptor); i++)
		;
	ev_io_stop(loop_of(acceptor), &acceptor->io);
	ev_timer_stop(loop_of(acceptor), &acceptor->pause);
	close(acceptor->socket.fd);
	free(acceptor);
}

static bool among(uint64_t id, const struct listen_socket *sockets, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (sockets[i].id == id)
			return true;
	return false;
}

void acceptors_keep(struct acceptors *set, const struct listen_socket *sockets, unsigned int n)
{
	struct acceptor **at = &set->first;

	while (*at) {
		struct acceptor *acceptor = *at;

		if (among(acceptor->socket.id, sockets, n)) {
			at = &acceptor->next;
			continue;
		}
		*at = acceptor->next;
		remove_acceptor(acceptor);
	}
}

int acceptors_set(struct acceptors *set, const struct listen_socket *sockets, unsigned int n)
{
	int err = 0;

	for (unsigned int i = 0; i < n; i++) {
		struct acceptor *known = find(set, sockets[i].id);
		int this_err = 0;

		if (known)
			change(known, &sockets[i]);
		else
			this_err = add(set, &sockets[i]);
		err = err ?: this_err;
	}
	return err;
}
