/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Owns how the bytes of a session move: which path each direction takes and every change between
 * paths. Reports what happened to the state machine and never changes the session's state itself.
 */
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "log.h"
#include "session.h"

/* Unsent bytes in the send buffer of a relayed direction. */
#define UNSENT_MAX (256u * 1024)
/* Bytes one direction moves before the others get their turn. */
#define SHARE (1024u * 1024)
/* An overflow ends when its sender has paused this long: shorter makes bulk flap between the paths,
 * longer delays the next small message's return to the kernel (kernel-notes 15.1.6 rule 8). */
#define QUIET_MS 3
/* What gives no event is looked at after 1, 2, 4, ... ms, at most: */
#define LOOK_MAX_MS 40
/* Bytes that were received and never came out, though nothing moved for this many looks: broken. */
#define STUCK_LOOKS 80

static bool in_kernel(const struct session *session, unsigned int dir)
{
	return session->dirs[dir].path != DIR_RELAY;
}

static bool relayed(const struct session *session, unsigned int dir)
{
	return session->dirs[dir].path == DIR_RELAY || session->dirs[dir].path == DIR_OVERFLOW;
}

static bool spliced(const struct session *session, unsigned int dir)
{
	return session->pair.flows[dir] != NULL;
}

static bool open_state(const struct session *session)
{
	return session->fsm.state == SESSION_OPEN;
}

static enum flow_state flow_of(const struct session *session, unsigned int dir)
{
	return dir == DIR_C2S ? session->fsm.c2s : session->fsm.s2c;
}

/* The one place that derives what an end is watched for. */
static int watch_ends(struct session *session)
{
	for (unsigned int end = 0; end < END_COUNT; end++) {
		uint32_t events = EPOLLRDHUP;
		int err;

		if (relayed(session, end))
			events |= EPOLLIN;
		if (relayed(session, !end))
			events |= EPOLLOUT;
		err = loop_watch_set(session->home->loop, &session->ends[end].watch, events);
		if (err)
			return err;
	}
	return 0;
}

/* What a peer that does not read makes us take is bounded by what its socket takes: with the
 * default the send buffer grows to megabytes of unsent bytes, and the sender's receive buffer to a
 * multiple of that (autotuning sees bytes read fast). On the kernel path the fits rule does it, and
 * the limit would make the kernel's worker poll. */
static void bound_unsent(struct session *session, unsigned int dir)
{
	unsigned int bytes = relayed(session, dir) ? UNSENT_MAX : UINT_MAX;

	(void)setsockopt(session->ends[!dir].watch.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes,
		sizeof(bytes));
}

static void set_path(struct session *session, unsigned int dir, enum dir_path path)
{
	struct stats_thread *counters = session->home->counters;
	struct session_dir *d = &session->dirs[dir];
	bool was_relayed = relayed(session, dir);
	bool was_over = d->path == DIR_SETTLING || d->path == DIR_OVERFLOW;
	bool is_over = path == DIR_SETTLING || path == DIR_OVERFLOW;

	if (is_over && !was_over) {
		stats_add(&counters->overflow_active, 1);
		d->overflow_ns = now_ns();
	}
	if (was_over && !is_over) {
		stats_sub(&counters->overflow_active, 1);
		stats_observe(&counters->overflow_duration, (now_ns() - d->overflow_ns) / 1000);
	}
	stats_sub(&counters->directions_active[in_kernel(session, dir) ? PATH_SOCKMAP : PATH_RELAY],
		1);
	d->path = path;
	if (relayed(session, dir) != was_relayed)
		bound_unsent(session, dir);
	stats_add(&counters->directions_active[in_kernel(session, dir) ? PATH_SOCKMAP : PATH_RELAY],
		1);
	d->relay.source_dry = false;
	d->relay.target_full = false;
	d->wait_ms = 0;
	d->looks = 0;
	if (watch_ends(session))
		session_abort(session, END_NO_MEMORY);
}

static void look_again(struct session *session, unsigned int dir)
{
	struct session_dir *d = &session->dirs[dir];

	d->wait_ms = MIN(1u << MIN(d->looks, 10u), (unsigned int)LOOK_MAX_MS);
	d->looks++;
	session_arm(session);
}

static void finish_direction(struct session *session, unsigned int dir)
{
	session->dirs[dir].wait_ms = 0;
	if (flow_of(session, dir) == FLOW_OPEN)
		session_step(session, dir == DIR_C2S ? SESSION_EV_EOF_C2S : SESSION_EV_EOF_S2C);
	session_step(session, dir == DIR_C2S ? SESSION_EV_DRAINED_C2S : SESSION_EV_DRAINED_S2C);
	if (open_state(session))
		session_arm(session);
}

static void fail_accounting(struct session *session, unsigned int dir)
{
	const struct sockmap_pair *pair = &session->pair;
	const struct relay *relay = &session->dirs[dir].relay;
	static struct log_limit limit;
	struct sockmap_tcp source = {0}, target = {0};
	unsigned int suppressed;

	(void)!sockmap_tcp_read(pair, dir, &source);
	(void)!sockmap_tcp_read(pair, !dir, &target);
	if (log_limit_pass(&limit, &suppressed))
		log_warning("session %llu: %s: accounting mismatch, resetting both ends: received "
			    "%llu, "
			    "redirected %llu, passed %llu, read %llu, written %llu, accepted %llu, "
			    "mode %d, "
			    "path %d (%u more not shown)",
			(unsigned long long)session->id, direction_names[dir],
			(unsigned long long)source.received,
			(unsigned long long)sockmap_redirected(pair, dir),
			(unsigned long long)sockmap_passed(pair, dir),
			(unsigned long long)relay->read, (unsigned long long)relay->written,
			(unsigned long long)target.accepted, (int)sockmap_mode(pair, dir),
			(int)session->dirs[dir].path, suppressed);
	session_abort(session, END_ACCOUNTING);
}

/* Nothing moves and the sums do not meet: after STUCK_LOOKS of that the bytes are gone. A peer that
 * has not yet written what waits for it is no such case: its bytes are safe in its queue. */
static bool stuck(struct session *session, unsigned int dir)
{
	struct session_dir *d = &session->dirs[dir];
	struct sockmap_tcp source;
	uint64_t taken = d->relay.read + sockmap_redirected(&session->pair, dir);

	if (sockmap_tcp_read(&session->pair, dir, &source) || source.received == taken)
		return false;
	if (taken != d->last_sum) {
		d->last_sum = taken;
		d->looks = MIN(d->looks, 1u);
	}
	return d->looks > STUCK_LOOKS;
}

static void start_overflow(struct session *session, unsigned int dir);

/* The sender has finished: pass its FIN on once every byte before it is in the peer's hands. */
static void try_finish(struct session *session, unsigned int dir)
{
	struct session_dir *d = &session->dirs[dir];
	int account;

	if (flow_of(session, dir) == FLOW_SHUT)
		return;
	if (flow_of(session, dir) == FLOW_OPEN)
		session_step(session, dir == DIR_C2S ? SESSION_EV_EOF_C2S : SESSION_EV_EOF_S2C);
	if (!spliced(session, dir)) {
		finish_direction(session, dir);
		return;
	}
	account = sockmap_drained(&session->pair, dir, d->relay.read, d->relay.written);
	if (session->home->bpf->sabotage & SABOTAGE_DRAIN && account == ACCOUNT_PENDING)
		account = ACCOUNT_SETTLED;
	if (account < 0) {
		/* Epoll has, or will have, the error of the dead socket. */
		session_end_error(session, account == -EPIPE ? !dir : dir);
	} else if (account == ACCOUNT_SETTLED) {
		finish_direction(session, dir);
	} else if (account == ACCOUNT_BROKEN || stuck(session, dir)) {
		fail_accounting(session, dir);
	} else if (d->path == DIR_SOCKMAP && sockmap_mode(&session->pair, dir) == FLOW_PASS &&
		   sockmap_passed(&session->pair, dir) > d->relay.read - session->pair.taken[dir]) {
		start_overflow(session, dir); /* passed bytes wait; the event is on its way */
	} else {
		if (d->path == DIR_SOCKMAP)
			sockmap_kick(session->pair.fds[dir]);
		look_again(session, dir);
	}
}

/* recv() says 0 at a FIN also while passed bytes are still behind the socket's own queue. */
static bool eof_is_real(struct session *session, unsigned int dir)
{
	const struct session_dir *d = &session->dirs[dir];

	return d->path != DIR_OVERFLOW ||
	       d->relay.read - session->pair.taken[dir] >= sockmap_passed(&session->pair, dir);
}

static void on_eof(struct session *session, unsigned int dir)
{
	struct session_dir *d = &session->dirs[dir];

	if (eof_is_real(session, dir)) {
		try_finish(session, dir);
		return;
	}
	if (stuck(session, dir)) {
		fail_accounting(session, dir);
		return;
	}
	d->relay.eof = false;
	d->relay.source_dry = true;
	look_again(session, dir);
}

static void run_relay(struct session *session, unsigned int dir)
{
	struct session_dir *d = &session->dirs[dir];
	bool drain = d->path == DIR_OVERFLOW || session->ends[dir].finished;
	int err = 0;

	if (flow_of(session, dir) == FLOW_SHUT)
		return;
	switch (relay_run(&session->home->pool, &d->relay, session->ends[dir].watch.fd,
		session->ends[!dir].watch.fd, SHARE, drain, &err)) {
	case RELAY_IDLE:
		/* Caught up: when the sender stays quiet the kernel path takes over again. */
		if (d->path == DIR_OVERFLOW && !relay_waiting(&d->relay) && !d->wait_ms) {
			d->wait_ms = QUIET_MS;
			d->last_sum = d->relay.read;
			session_arm(session);
		}
		return;
	case RELAY_AGAIN:
		loop_defer(session->home->loop, &session->task);
		return;
	case RELAY_EOF:
		on_eof(session, dir);
		return;
	case RELAY_SOURCE_ERROR:
		if (err == ENOMEM)
			session_abort(session, END_NO_MEMORY);
		else
			session_end_error(session, dir);
		return;
	case RELAY_TARGET_ERROR:
		session_end_error(session, !dir);
		return;
	}
}

/* Has the peer written what was redirected? Before that a byte of ours would overtake it. */
static void try_settle(struct session *session, unsigned int dir)
{
	struct session_dir *d = &session->dirs[dir];
	int account = sockmap_settled(&session->pair, dir, d->relay.written);

	if (account < 0) {
		session_end_error(session, !dir);
	} else if (account == ACCOUNT_BROKEN) {
		fail_accounting(session, dir);
	} else if (account == ACCOUNT_PENDING) {
		look_again(session, dir);
	} else {
		/* Passed bytes are not visible to splice(2). A detached direction has none. */
		d->relay.copy_only = session->pair.spliced & (1u << dir);
		set_path(session, dir, d->relay.copy_only ? DIR_OVERFLOW : DIR_RELAY);
		if (open_state(session))
			run_relay(session, dir);
	}
}

static void start_overflow(struct session *session, unsigned int dir)
{
	struct session_home *home = session->home;

	/* After its FIN was passed on an event of the past has nothing left to change. */
	if (session->dirs[dir].path != DIR_SOCKMAP || flow_of(session, dir) == FLOW_SHUT)
		return;
	if (home->bpf->stream_parser) {
		sockmap_detach(home->bpf, &session->pair, dir);
		stats_add(&home->counters->fallbacks[FALLBACK_PARSER_OVERFLOW], 1);
	}
	set_path(session, dir, DIR_SETTLING);
	if (open_state(session))
		try_settle(session, dir);
}

static void try_hand_back(struct session *session, unsigned int dir)
{
	struct session_dir *d = &session->dirs[dir];

	if (d->relay.read == d->last_sum && d->relay.source_dry && !relay_waiting(&d->relay) &&
		sockmap_hand_back(&session->pair, dir, d->relay.read)) {
		set_path(session, dir, DIR_SOCKMAP);
		if (open_state(session) && session->ends[dir].finished)
			try_finish(session, dir);
		return;
	}
	d->relay.source_dry = false;
	run_relay(session, dir);
}

static void run_dir(struct session *session, unsigned int dir)
{
	if (!open_state(session))
		return;
	if (relayed(session, dir))
		run_relay(session, dir);
	else if (session->dirs[dir].path == DIR_SOCKMAP && session->ends[dir].finished)
		try_finish(session, dir);
}

void session_path_event(struct session *session, unsigned int end)
{
	run_dir(session, end);
	run_dir(session, !end);
}

void session_path_more(struct session *session)
{
	for (unsigned int dir = 0; dir < DIR_COUNT; dir++)
		run_dir(session, dir);
}

static void tick_dir(struct session *session, unsigned int dir)
{
	struct session_dir *d = &session->dirs[dir];

	if (!d->wait_ms || !open_state(session))
		return;
	d->wait_ms = 0;
	if (d->path == DIR_SETTLING) {
		try_settle(session, dir);
	} else if (d->path == DIR_SOCKMAP || d->relay.eof) {
		try_finish(session, dir);
	} else if (session->ends[dir].finished) {
		d->relay.source_dry = false;
		run_relay(session, dir);
	} else if (d->path == DIR_OVERFLOW) {
		try_hand_back(session, dir);
	}
}

void session_path_tick(struct session *session)
{
	for (unsigned int dir = 0; dir < DIR_COUNT; dir++)
		tick_dir(session, dir);
	if (open_state(session))
		session_arm(session);
}

void session_path_overflow(
	struct session *session, unsigned int dir, const struct flow_event *event)
{
	if (event->kind == FLOW_EVENT_BROKEN)
		session_abort(session, END_BROKEN_FLOW);
	else if (sockmap_mode(&session->pair, dir) != FLOW_REDIRECT) /* else handed back already */
		start_overflow(session, dir);
}

/* Whatever is not in the kernel afterwards is relayed. */
static void insert(struct session *session)
{
	struct session_home *home = session->home;
	struct sockmap_pair *pair = &session->pair;
	enum fallback_reason reason = FALLBACK_REFUSED;
	int err;

	for (unsigned int end = 0; end < END_COUNT; end++)
		pair->fds[end] = session->ends[end].watch.fd;
	pair->owner = home->thread;
	pair->owner_data = (uint64_t)(uintptr_t)session;
	err = sockmap_insert(
		home->bpf, pair, (uint32_t)session->policy->conf->overflow_limit, &reason);
	if (err)
		log_debug("session %llu: relayed: %s", (unsigned long long)session->id,
			fallback_reason_names[reason]);
	for (unsigned int dir = 0; dir < DIR_COUNT; dir++)
		if (!(pair->spliced & (1u << dir)))
			session->dirs[dir].path = DIR_RELAY;
	if (pair->spliced != (1u << END_CLIENT | 1u << END_SERVER))
		stats_add(&home->counters->fallbacks[reason], 1);
}

static bool wants_sockmap(struct session *session)
{
	struct session_home *home = session->home;
	enum fallback_reason reason;

	if (session->dirs[DIR_C2S].path != DIR_SOCKMAP)
		return false;
	if (session->server_is_unix)
		reason = FALLBACK_UNIX;
	else if (home->bpf->stream_parser && session->pair.skipped[END_CLIENT])
		reason = FALLBACK_HALF_READ;
	else if (session->ends[END_CLIENT].finished || session->ends[END_SERVER].finished)
		reason = FALLBACK_HALF_CLOSED;
	else
		return true;
	stats_add(&home->counters->fallbacks[reason], 1);
	return false;
}

void session_path_start(struct session *session)
{
	struct stats_thread *counters = session->home->counters;

	if (wants_sockmap(session))
		insert(session);
	else
		session->dirs[DIR_C2S].path = session->dirs[DIR_S2C].path = DIR_RELAY;
	for (unsigned int dir = 0; dir < DIR_COUNT; dir++)
		stats_add(&counters->directions_active[in_kernel(session, dir) ? PATH_SOCKMAP
									       : PATH_RELAY],
			1);
	session->started = true;
	for (unsigned int dir = 0; dir < DIR_COUNT; dir++)
		if (relayed(session, dir))
			bound_unsent(session, dir);
	if (watch_ends(session)) {
		session_abort(session, END_NO_MEMORY);
		return;
	}
	session_path_more(session);
}

void session_path_done(struct session *session)
{
	struct session_home *home = session->home;

	if (!session->started)
		return;
	for (unsigned int dir = 0; dir < DIR_COUNT; dir++) {
		enum dir_path path = session->dirs[dir].path;

		if (path == DIR_SETTLING || path == DIR_OVERFLOW)
			stats_sub(&home->counters->overflow_active, 1);
		stats_sub(&home->counters->directions_active[in_kernel(session, dir) ? PATH_SOCKMAP
										     : PATH_RELAY],
			1);
		relay_done(&home->pool, &session->dirs[dir].relay);
	}
	if (home->bpf)
		sockmap_remove(home->bpf, &session->pair);
}
