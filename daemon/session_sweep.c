/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns what is done to many sessions of a thread at once: timeouts, drain, an operator's close. */
#include <errno.h>

#include "session.h"

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

static void end_if_over(struct session *session, uint64_t now)
{
	if (session->lifetime_ns && now - session->started_ns >= session->lifetime_ns)
		session_abort(session, END_MAX_LIFETIME);
	else if (session->fsm.state != SESSION_OPEN)
		return;
	else if (half_closed(session) &&
		 timed_out(session, now, session->conf->half_close_timeout_ms))
		session_abort(session, END_HALF_CLOSE_TIMEOUT);
	else if (timed_out(session, now, session->conf->idle_timeout_ms))
		session_abort(session, END_IDLE_TIMEOUT);
}

static void sweep_one(struct session *session, uint64_t now)
{
	uint64_t bytes;

	session_path_report(session);
	bytes = bytes_moved(session);
	if (bytes != session->activity_bytes) {
		session->activity_bytes = bytes;
		session->activity_ns = now;
	}
	end_if_over(session, now);
}

void session_sweep(struct session_home *home, uint64_t now)
{
	for (struct session *session = home->sessions, *next; session; session = next) {
		next = session->next;
		sweep_one(session, now);
	}
}

void session_abort_some(struct session_home *home, enum end_reason reason, unsigned int n)
{
	while (home->sessions && n--)
		session_abort(home->sessions, reason);
}

void session_abort_all(struct session_home *home, enum end_reason reason)
{
	while (home->sessions)
		session_abort(home->sessions, reason);
}

void session_server_down(struct session_home *home, unsigned int slot)
{
	for (struct session *session = home->sessions, *next; session; session = next) {
		next = session->next;
		if (!session->server || session->server->slot != slot)
			continue;
		if (session->fsm.state == SESSION_CONNECTING)
			session_connect_lost(session);
		else if (session->backend->conf->on_server_down == SERVER_DOWN_RESET)
			session_abort(session, END_SERVER_DOWN);
	}
}

int session_close(struct session_home *home, uint64_t id)
{
	for (struct session *session = home->sessions; session; session = session->next)
		if (session->id == id) {
			session_abort(session, END_CLOSED);
			return 0;
		}
	return -ENOENT;
}
