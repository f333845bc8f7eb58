/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The checks with segments made by hand. The kernel gives the verdict program whole segments, also
 * where their front was received before, and would repeat those bytes (kernel-notes 16).
 */
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe_checks.h"
#include "probe_worker.h"
#include "rawseg.h"

/* In parser mode: how long the sums may take to meet before that counts as noticed. */
#define NOTICE_NS 5000000

/* More old bytes than the program can cut off at once (4,095), where the path takes such a segment.
 */
#define OLD_LARGE 6000
#define OLD_SMALL 500
#define NEW_BYTES 100

static const struct probe_shape ipv4 = {.client_family = AF_INET, .server_family = AF_INET};

struct forger {
	int raw_fd;
	struct rawseg seg;
	uint64_t base; /* bytes that the client itself has sent */
};

/* Sends the bytes [from, to) of the stream, whatever was sent before. */
static bool forge(struct probe_env *env, struct probe_pair *pair, const struct forger *forger,
	uint64_t from, uint64_t to)
{
	struct probe_dir *d = &pair->dirs[END_CLIENT];
	char data[RAWSEG_MAX];
	int err;

	probe_pattern(END_CLIENT, from, data, to - from);
	err = rawseg_send(forger->raw_fd, &forger->seg,
		(int)((int64_t)from - (int64_t)forger->base), data, to - from);
	if (err)
		return probe_fail_errno(env, err, "sending a segment made by hand");
	d->sent = MAX(d->sent, to);
	return true;
}

static bool prepare(
	struct probe_env *env, struct probe_pair *pair, struct forger *forger, uint64_t old)
{
	int err;

	if (!probe_transfer(env, pair, END_CLIENT, old))
		return false;
	err = rawseg_init(&forger->seg, pair->far[END_CLIENT]);
	if (err)
		return probe_fail_errno(env, err, "reading the sequence numbers of a connection");
	forger->base = old;
	forger->raw_fd = rawseg_open();
	return forger->raw_fd >= 0 ||
	       probe_fail_errno(env, forger->raw_fd, "opening a raw socket (CAP_NET_RAW)");
}

static bool run_forger(struct probe_env *env, struct probe_pair *pair, uint64_t old,
	bool (*steps)(struct probe_env *, struct probe_pair *, const struct forger *))
{
	struct forger forger = {.raw_fd = -1};
	bool ok = prepare(env, pair, &forger, old) && steps(env, pair, &forger);

	if (forger.raw_fd >= 0)
		close(forger.raw_fd);
	return ok;
}

static bool expect_trimmed(struct probe_env *env, struct probe_pair *pair, uint32_t expected)
{
	uint32_t trimmed =
		__atomic_load_n(&pair->near.flows[END_CLIENT]->trimmed, __ATOMIC_ACQUIRE);

	return trimmed == expected ||
	       probe_fail(env, "%u repeated bytes were cut off instead of %u", trimmed, expected);
}

static bool overlap_steps(
	struct probe_env *env, struct probe_pair *pair, const struct forger *forger)
{
	uint64_t old = forger->base;

	return forge(env, pair, forger, 0, old + NEW_BYTES) &&
	       probe_transfer(env, pair, END_CLIENT, old + NEW_BYTES) &&
	       forge(env, pair, forger, old + NEW_BYTES, old + 2 * NEW_BYTES) &&
	       probe_transfer(env, pair, END_CLIENT, old + 2 * NEW_BYTES) &&
	       expect_trimmed(env, pair, (uint32_t)old) &&
	       probe_all_redirected(env, pair, END_CLIENT);
}

static bool overlap(struct probe_env *env, struct probe_pair *pair)
{
	int mtu = 0;
	socklen_t len = sizeof(mtu);

	if (getsockopt(pair->far[END_CLIENT], IPPROTO_IP, IP_MTU, &mtu, &len) < 0 ||
		mtu < RAWSEG_MAX)
		return run_forger(env, pair, OLD_SMALL, overlap_steps);
	return run_forger(env, pair, OLD_LARGE, overlap_steps);
}

bool probe_overlap(struct probe_env *env)
{
	return probe_with_pair(env, &ipv4, true, overlap);
}

/* The stream is at 10. A segment behind a gap; one that fills the gap with old bytes in front and
 * overlaps the waiting one; one with old bytes only; a new one. */
static bool ooo_steps(struct probe_env *env, struct probe_pair *pair, const struct forger *forger)
{
	return forge(env, pair, forger, 25, 35) && forge(env, pair, forger, 0, 30) &&
	       probe_transfer(env, pair, END_CLIENT, 35) && expect_trimmed(env, pair, 10 + 5) &&
	       forge(env, pair, forger, 10, 35) && forge(env, pair, forger, 35, 45) &&
	       probe_transfer(env, pair, END_CLIENT, 45) &&
	       probe_all_redirected(env, pair, END_CLIENT);
}

static bool overlap_ooo(struct probe_env *env, struct probe_pair *pair)
{
	return run_forger(env, pair, 10, ooo_steps);
}

bool probe_overlap_ooo(struct probe_env *env)
{
	return probe_with_pair(env, &ipv4, true, overlap_ooo);
}

/* A stream parser cannot cut anything off. What comes out may be wrong, but never with sums that
 * meet: the session would be taken for intact. */
static bool noticed_steps(
	struct probe_env *env, struct probe_pair *pair, const struct forger *forger)
{
	uint64_t start;

	if (!forge(env, pair, forger, 0, 20) || !forge(env, pair, forger, 20, 30))
		return false;
	start = now_ns();
	while (now_ns() - start < NOTICE_NS) {
		int account = probe_drained(env, pair, END_CLIENT);

		if (account < 0)
			return probe_fail_errno(env, account, "a socket of the pair died");
		if (account == ACCOUNT_SETTLED)
			return probe_transfer(env, pair, END_CLIENT, 30);
		if (account == ACCOUNT_BROKEN || !probe_nap(env))
			break;
	}
	return true;
}

static bool overlap_noticed(struct probe_env *env, struct probe_pair *pair)
{
	return run_forger(env, pair, 10, noticed_steps);
}

bool probe_overlap_noticed(struct probe_env *env)
{
	return probe_with_pair(env, &ipv4, true, overlap_noticed);
}
