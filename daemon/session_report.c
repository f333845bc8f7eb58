/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns bringing a session's bytes into the counters: the worker's from its relay, the program's
 * from the flow that it writes. No system call. */
#include "session.h"

static bool spliced(const struct session *session, unsigned int dir)
{
	return session->pair.flows[dir] != NULL;
}

static void report_dir(struct session *session, unsigned int dir)
{
	struct session_dir *d = &session->dirs[dir];
	struct stats_listener *listener = session_listener_stats(session);
	struct stats_server *server = session_server_stats(session);
	uint64_t relay = d->relay.written;
	uint64_t sockmap = spliced(session, dir) ? sockmap_redirected(&session->pair, dir) : 0;
	uint32_t overflows = spliced(session, dir) ? sockmap_overflows(&session->pair, dir) : 0;
	uint64_t sum = relay - d->reported_relay + sockmap - d->reported_sockmap;

	if (!sum && overflows == d->reported_overflows)
		return;
	stats_add(&listener->bytes[dir][PATH_RELAY], relay - d->reported_relay);
	stats_add(&listener->bytes[dir][PATH_SOCKMAP], sockmap - d->reported_sockmap);
	stats_add(&listener->overflows, overflows - d->reported_overflows);
	stats_add(&server->bytes[dir], sum);
	d->reported_relay = relay;
	d->reported_sockmap = sockmap;
	d->reported_overflows = overflows;
}

void session_path_report(struct session *session)
{
	for (unsigned int dir = 0; session->started && dir < DIR_COUNT; dir++)
		report_dir(session, dir);
}
