/* SPDX-License-Identifier: BSD-2-Clause */
/* The checks of flow control and of the end of a stream that is under way. All from client to
 * server. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "probe_checks.h"
#include "probe_worker.h"

#define DIR END_CLIENT

#define OFFERED (8u * 1024 * 1024)
/* Buffers are exceeded by the segment that fills them; a reader's worker holds a chunk. */
#define SLACK (256u * 1024 + RELAY_CHUNK)
/* Nothing moved for so long: it will not. */
#define STILL_NS 3000000
/* How late a reader comes: ample for a FIN to be passed on too early. */
#define LATE_NS 1000000

/* Fixed buffers make the amounts those of the probe, not of the host's sysctls. */
static const struct probe_shape slow = {
	.client_family = AF_INET,
	.server_family = AF_INET,
	.client_sndbuf = 256 * 1024,
	.target_sndbuf = 128 * 1024,
	.server_rcvbuf = 64 * 1024,
};

/* One message is more than the target and the server take together: the rest waits in the kernel.
 */
static const struct probe_shape tight = {
	.client_family = AF_INET,
	.server_family = AF_INET,
	.client_sndbuf = 256 * 1024,
	.target_sndbuf = 8 * 1024,
	.server_rcvbuf = 4 * 1024,
};
#define TIGHT_ONE 30000 /* one segment: all of it is redirected */
#define TIGHT_BYTES 60000 /* the rest overflows */

static uint64_t buffer_of(int fd, int option)
{
	socklen_t len = sizeof(int);
	int bytes = 0;

	(void)getsockopt(fd, SOL_SOCKET, option, &bytes, &len);
	return (uint64_t)bytes;
}

/* Behind a stream parser everything is redirected until the worker has reacted or the valve is
 * closed, also what the receiving socket had taken by then. */
static uint64_t waiting_max(const struct probe_env *env, const struct probe_pair *pair)
{
	if (!env->obj->stream_parser)
		return PROBE_LIMIT;
	return PROBE_LIMIT * FLOW_VALVE_FACTOR + buffer_of(pair->near.fds[DIR], SO_RCVBUF);
}

static bool bounded(struct probe_env *env, struct probe_pair *pair)
{
	const struct probe_dir *d = &pair->dirs[DIR];
	uint64_t given = sockmap_redirected(&pair->near, DIR) + d->relay.written;
	uint64_t buffers =
		buffer_of(pair->far[DIR], SO_SNDBUF) + buffer_of(pair->near.fds[DIR], SO_RCVBUF) +
		buffer_of(pair->near.fds[!DIR], SO_SNDBUF) + buffer_of(pair->far[!DIR], SO_RCVBUF);
	struct sockmap_tcp target;
	int err = sockmap_tcp_read(&pair->near, !DIR, &target);

	if (err)
		return probe_fail_errno(env, err, "the target socket died");
	if (given > target.accepted + waiting_max(env, pair))
		return probe_fail(env,
			"%llu bytes wait in the kernel for a reader that does not read",
			(unsigned long long)(given - target.accepted));
	if (d->sent > d->received + buffers + waiting_max(env, pair) + SLACK)
		return probe_fail(env, "%llu bytes were accepted for a reader that does not read",
			(unsigned long long)(d->sent - d->received));
	return true;
}

/* Sends in steps of `step` bytes, works in between unless the worker is `absent`, until nothing
 * moves any more. The server does not read. */
static bool fill(struct probe_env *env, struct probe_pair *pair, uint64_t step, bool absent)
{
	struct probe_dir *d = &pair->dirs[DIR];
	uint64_t moved_ns = now_ns();

	while (now_ns() - moved_ns < STILL_NS) {
		uint64_t before = d->sent + d->relay.read + d->relay.written;

		if (!probe_offer(env, pair, DIR, MIN(d->sent + step, OFFERED)) ||
			(!absent && !probe_work(env, pair, DIR)) || !bounded(env, pair))
			return false;
		if (d->sent + d->relay.read + d->relay.written != before)
			moved_ns = now_ns();
		else if (!probe_nap(env))
			return probe_fail(env, "the sender was never stopped");
	}
	return true;
}

static bool slow_reader(struct probe_env *env, struct probe_pair *pair)
{
	/* A stream parser's worker has to be quick: the valve costs a retransmission timeout. */
	uint64_t step = env->obj->stream_parser ? PROBE_LIMIT / 4 : OFFERED;

	if (!fill(env, pair, step, false))
		return false;
	if (!sockmap_overflows(&pair->near, DIR))
		return probe_fail(env, "a reader that does not read made no overflow");
	return probe_transfer(env, pair, DIR, OFFERED) && shutdown(pair->far[DIR], SHUT_WR) == 0 &&
	       probe_finish(env, pair, DIR);
}

bool probe_slow_reader(struct probe_env *env)
{
	return probe_with_pair(env, &slow, true, slow_reader);
}

static bool valve(struct probe_env *env, struct probe_pair *pair)
{
	if (!fill(env, pair, OFFERED, true))
		return false;
	if (!__atomic_load_n(&pair->near.flows[DIR]->valve, __ATOMIC_ACQUIRE))
		return probe_fail(env, "the valve did not close");
	return true;
}

/* What is lost by it comes again after a retransmission timeout, for which there is no time here.
 */
bool probe_valve(struct probe_env *env)
{
	return probe_with_pair(env, &slow, true, valve);
}

/* In small steps, so that the receiving socket has room left when the direction overflows. */
static bool overflow(struct probe_env *env, struct probe_pair *pair)
{
	struct probe_dir *d = &pair->dirs[DIR];

	while (sockmap_mode(&pair->near, DIR) == FLOW_REDIRECT) {
		if (d->sent >= OFFERED || !probe_nap(env))
			return probe_fail(env, "a reader that does not read made no overflow");
		if (!probe_offer(env, pair, DIR, d->sent + 16 * 1024))
			return false;
	}
	return true;
}

/* The number of a worker that counted before the last bytes were passed must not switch anything:
 * those bytes would be overtaken. */
static bool outdated_offer(struct probe_env *env, struct probe_pair *pair)
{
	struct flow *flow = pair->near.flows[DIR];
	uint64_t redirected = sockmap_redirected(&pair->near, DIR);
	uint64_t passed = sockmap_passed(&pair->near, DIR);
	uint32_t overflows = sockmap_overflows(&pair->near, DIR);

	if (sockmap_hand_back(&pair->near, DIR, pair->dirs[DIR].relay.read))
		return probe_fail(env, "the kernel took over while passed bytes were unread");
	__atomic_store_n(&flow->handback, passed - 1, __ATOMIC_SEQ_CST);
	if (!probe_offer(env, pair, DIR, pair->dirs[DIR].sent + 1000))
		return false;
	while (sockmap_passed(&pair->near, DIR) == passed &&
		sockmap_redirected(&pair->near, DIR) == redirected)
		if (!probe_nap(env))
			return probe_fail(env, "an overflowing direction does not go on");
	if (sockmap_redirected(&pair->near, DIR) != redirected ||
		sockmap_overflows(&pair->near, DIR) != overflows)
		return probe_fail(env, "an outdated offer made the kernel take over too early");
	__atomic_store_n(&flow->handback, FLOW_NO_HANDBACK, __ATOMIC_SEQ_CST);
	return true;
}

static bool hand_back(struct probe_env *env, struct probe_pair *pair)
{
	struct probe_dir *d = &pair->dirs[DIR];
	uint64_t redirected;

	if (!overflow(env, pair) || !outdated_offer(env, pair) ||
		!probe_transfer(env, pair, DIR, d->sent))
		return false;
	while (d->path != PROBE_KERNEL || !d->handbacks) {
		if (!probe_work(env, pair, DIR))
			return false;
		if (!probe_nap(env))
			return probe_fail(env, "the direction was never handed back to the kernel");
	}
	redirected = sockmap_redirected(&pair->near, DIR);
	if (!probe_transfer(env, pair, DIR, d->sent + 1000))
		return false;
	if (sockmap_redirected(&pair->near, DIR) != redirected + 1000)
		return probe_fail(
			env, "after the hand-back bytes are passed instead of redirected");
	return true;
}

bool probe_hand_back(struct probe_env *env)
{
	return probe_with_pair(env, &slow, true, hand_back);
}

static bool work_for(struct probe_env *env, struct probe_pair *pair, uint64_t ns)
{
	uint64_t start = now_ns();

	while (now_ns() - start < ns && probe_nap(env))
		if (!probe_work(env, pair, DIR))
			return false;
	return true;
}

/* All bytes and the FIN at once, a reader that comes late. */
static bool finish_late(struct probe_env *env, struct probe_pair *pair, uint64_t total)
{
	if (!probe_offer(env, pair, DIR, total))
		return false;
	if (pair->dirs[DIR].sent != total)
		return probe_fail(env, "the test connection has no room for the test");
	if (shutdown(pair->far[DIR], SHUT_WR) < 0)
		return probe_fail_errno(env, errno, "shutdown");
	return work_for(env, pair, LATE_NS) && probe_finish(env, pair, DIR);
}

/* The FIN arrives while a part of the message is still in the kernel's queue for the target.
 * shutdown() now would throw it away and let the reader see a clean end of file (kernel-notes 4.1).
 */
static bool drain_message(struct probe_env *env, struct probe_pair *pair)
{
	return finish_late(env, pair, TIGHT_ONE);
}

static bool drain_overflow(struct probe_env *env, struct probe_pair *pair)
{
	return finish_late(env, pair, TIGHT_BYTES);
}

static bool drain_stream(struct probe_env *env, struct probe_pair *pair)
{
	return finish_late(env, pair, 1024 * 1024);
}

bool probe_drain(struct probe_env *env)
{
	struct probe_shape stream = slow;

	stream.client_sndbuf = 2 * 1024 * 1024;
	/* A stream parser would redirect all of it, and polls tight buffers at 4 to 8 ms each
	 * (kernel-notes 1.1). */
	return probe_with_pair(env, &tight, true, drain_message) &&
	       (env->obj->stream_parser || probe_with_pair(env, &tight, true, drain_overflow)) &&
	       probe_with_pair(env, &stream, true, drain_stream);
}

/* The worker looks at the sums, as it does after an event: they must say that a socket died. */
static bool expect_dead(struct probe_env *env, struct probe_pair *pair, const char *who)
{
	while (probe_drained(env, pair, DIR) >= 0)
		if (!probe_nap(env))
			return probe_fail(env, "the reset by the %s was not seen", who);
	return true;
}

static bool backlog(struct probe_env *env, struct probe_pair *pair)
{
	if (!probe_offer(env, pair, DIR, TIGHT_BYTES))
		return false;
	while (sockmap_redirected(&pair->near, DIR) == 0)
		if (!probe_nap(env))
			return probe_fail(env, "nothing was redirected");
	return true;
}

static bool reset_by(struct probe_env *env, struct probe_pair *pair, unsigned int end)
{
	if (!backlog(env, pair))
		return false;
	probe_close_reset(pair->far[end]);
	pair->far[end] = -1;
	if (!probe_wait(env, pair->near.fds[end], 0, "the error on the socket that was reset"))
		return false;
	return expect_dead(env, pair, end == END_CLIENT ? "client" : "server");
}

static bool server_resets(struct probe_env *env, struct probe_pair *pair)
{
	return reset_by(env, pair, END_SERVER);
}

static bool client_resets(struct probe_env *env, struct probe_pair *pair)
{
	return reset_by(env, pair, END_CLIENT);
}

/* Closing with bytes in the queue waits for the kernel's worker: not for long. */
bool probe_reset(struct probe_env *env)
{
	return probe_with_pair(env, &tight, true, server_resets) &&
	       probe_with_pair(env, &tight, true, client_resets) &&
	       probe_with_pair(env, &tight, true, backlog) &&
	       (now_ns() < env->deadline_ns || probe_fail(env, "closing took too long"));
}
