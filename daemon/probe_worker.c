/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the order of a worker's steps, which is that of session_path.c. Must not know the checks. */
#include "probe_worker.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define SHARE (1024u * 1024)

void probe_on_event(void *arg, const struct flow_event *event)
{
	struct probe_env *env = arg;

	if (!env->pair)
		return;
	for (unsigned int dir = 0; dir < END_COUNT; dir++) {
		const struct flow *flow = env->pair->near.flows[dir];

		if (flow && flow->cookie == event->cookie && event->kind != FLOW_EVENT_BROKEN)
			env->pair->dirs[dir].event = true;
	}
}

static const char *const fault_names[] = {
	[FLOW_FAULT_NONE] = "no redirect target",
	[FLOW_FAULT_GAP] = "a gap in the sequence numbers",
	[FLOW_FAULT_TRIM] = "an overlapping segment could not be trimmed",
};

static bool fail_account(
	struct probe_env *env, struct probe_pair *pair, unsigned int dir, int account)
{
	struct sockmap_tcp source = {0}, target = {0};

	if (account < 0)
		return probe_fail_errno(env, account, "a socket of the pair died");
	(void)!sockmap_tcp_read(&pair->near, dir, &source);
	(void)!sockmap_tcp_read(&pair->near, !dir, &target);
	return probe_fail(env,
		"the sums do not meet: received %llu, redirected %llu, relayed %llu, accepted %llu",
		(unsigned long long)source.received,
		(unsigned long long)sockmap_redirected(&pair->near, dir),
		(unsigned long long)pair->dirs[dir].relay.read,
		(unsigned long long)target.accepted);
}

int probe_drained(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	const struct relay *relay = &pair->dirs[dir].relay;
	int account = sockmap_drained(&pair->near, dir, relay->read, relay->written);

	if ((env->obj->sabotage & SABOTAGE_ERRORS) && account < 0)
		return ACCOUNT_PENDING;
	if ((env->obj->sabotage & SABOTAGE_DRAIN) && account == ACCOUNT_PENDING)
		return ACCOUNT_SETTLED;
	return account;
}

static bool finish(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	struct probe_dir *d = &pair->dirs[dir];
	int account = probe_drained(env, pair, dir);

	if (account < 0 || account == ACCOUNT_BROKEN)
		return fail_account(env, pair, dir, account);
	if (account == ACCOUNT_PENDING) {
		sockmap_kick(pair->near.fds[dir]);
		return true;
	}
	if (shutdown(pair->near.fds[!dir], SHUT_WR) < 0)
		return probe_fail(env, "the FIN could not be passed on");
	d->passed = true;
	return true;
}

static bool settle(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	struct probe_dir *d = &pair->dirs[dir];
	int account = sockmap_settled(&pair->near, dir, d->relay.written);

	if (account < 0 || account == ACCOUNT_BROKEN)
		return fail_account(env, pair, dir, account);
	if (account == ACCOUNT_PENDING)
		return true;
	d->path = PROBE_RELAYED;
	/* splice(2) does not see passed bytes; a detached direction has none. */
	d->relay.copy_only = pair->near.spliced & (1u << dir);
	d->relay.source_dry = false;
	d->relay.target_full = false;
	return true;
}

/* No time of silence before the hand-back: more of them, under more pressure, than sessions have.
 */
static void hand_back(struct probe_pair *pair, unsigned int dir)
{
	struct probe_dir *d = &pair->dirs[dir];

	if (!(pair->near.spliced & (1u << dir)) || relay_waiting(&d->relay))
		return;
	if (!sockmap_hand_back(&pair->near, dir, d->relay.read))
		return;
	d->path = PROBE_KERNEL;
	d->handbacks++;
}

/* recv() says 0 at a FIN also while passed bytes are behind the socket's own queue
 * (kernel-notes 15.1.6). */
static bool eof_is_real(const struct probe_pair *pair, unsigned int dir)
{
	return !(pair->near.spliced & (1u << dir)) ||
	       pair->dirs[dir].relay.read - pair->near.taken[dir] >=
		       sockmap_passed(&pair->near, dir);
}

static bool relay(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	struct probe_dir *d = &pair->dirs[dir];
	int err = 0;

	if (d->passed)
		return true;
	d->relay.source_dry = !(probe_poll(pair->near.fds[dir], POLLIN) & POLLIN) && !d->finished;
	if (d->relay.target_full && (probe_poll(pair->near.fds[!dir], POLLOUT) & POLLOUT))
		d->relay.target_full = false;
	switch (relay_run(&env->pool, &d->relay, pair->near.fds[dir], pair->near.fds[!dir], SHARE,
		true, &err)) {
	case RELAY_IDLE:
		if (d->relay.source_dry)
			hand_back(pair, dir);
		return true;
	case RELAY_AGAIN:
		return true;
	case RELAY_EOF:
		if (eof_is_real(pair, dir))
			return finish(env, pair, dir);
		d->relay.eof = false;
		return true;
	case RELAY_SOURCE_ERROR:
		return probe_fail_errno(env, err, "relaying from the receiving socket");
	default:
		return probe_fail_errno(env, err, "relaying to the sending socket");
	}
}

bool probe_work(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	struct probe_dir *d = &pair->dirs[dir];

	if (sockmap_mode(&pair->near, dir) == FLOW_BROKEN)
		return probe_fail(env, "the verdict program gave the stream up: %s",
			fault_names[MIN(pair->near.flows[dir]->fault, FLOW_FAULT_TRIM)]);
	d->finished = d->finished || probe_poll(pair->near.fds[dir], POLLRDHUP) & POLLRDHUP;
	(void)bpf_events_consume(env->events);
	if (d->event && d->path == PROBE_KERNEL) {
		if (env->obj->stream_parser)
			sockmap_detach(env->obj, &pair->near, dir);
		d->path = PROBE_SETTLING;
	}
	d->event = false;
	if (d->path == PROBE_SETTLING && !settle(env, pair, dir))
		return false;
	if (d->path == PROBE_RELAYED)
		return relay(env, pair, dir);
	if (d->path == PROBE_KERNEL && d->finished && !d->passed)
		return finish(env, pair, dir);
	return true;
}

bool probe_transfer(
	struct probe_env *env, struct probe_pair *pair, unsigned int dir, uint64_t total)
{
	struct probe_dir *d = &pair->dirs[dir];

	while (d->received < total) {
		uint64_t before = d->received;

		if (!probe_offer(env, pair, dir, total) || !probe_work(env, pair, dir) ||
			!probe_collect(env, pair, dir))
			return false;
		if (d->received == before && !probe_nap(env))
			return probe_fail(env, "%llu of %llu bytes came out in time",
				(unsigned long long)d->received, (unsigned long long)total);
	}
	return true;
}

bool probe_finish(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	struct probe_dir *d = &pair->dirs[dir];

	while (!d->eof) {
		uint64_t before = d->received;

		if (!probe_work(env, pair, dir) || !probe_collect(env, pair, dir))
			return false;
		if (d->received == before && !d->eof && !probe_nap(env))
			return probe_fail(env, "no end of file in time, after %llu of %llu bytes",
				(unsigned long long)d->received, (unsigned long long)d->sent);
	}
	if (d->received != d->sent)
		return probe_fail(env, "clean end of file after %llu of %llu bytes",
			(unsigned long long)d->received, (unsigned long long)d->sent);
	return true;
}

bool probe_all_redirected(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	struct probe_dir *d = &pair->dirs[dir];
	uint64_t redirected = sockmap_redirected(&pair->near, dir);
	uint64_t expected = d->sent - pair->near.taken[dir];

	if (redirected == expected)
		return true;
	return probe_fail(env, "%llu of %llu bytes were redirected, %llu were passed to the worker",
		(unsigned long long)redirected, (unsigned long long)expected,
		(unsigned long long)sockmap_passed(&pair->near, dir));
}
