/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the order of operations on the kernel path; each order here is one that was measured not to
 * lose bytes. */
#include "sockmap.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "flow_table.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

/* include/net/tcp_states.h; tcpi_state uses these numbers. */
enum {
	STATE_TIME_WAIT = 6,
	STATE_CLOSE = 7,
	STATE_CLOSE_WAIT = 8,
	STATE_LAST_ACK = 9,
	STATE_CLOSING = 11,
};

static uint8_t bit(unsigned int end)
{
	return (uint8_t)(1u << end);
}

static void key_addr(__be32 out[4], uint32_t *family, const struct sockaddr_in6 *addr)
{
	if (addr->sin6_family == AF_INET6) {
		memcpy(out, &addr->sin6_addr, 16);
		*family = IN6_IS_ADDR_V4MAPPED(&addr->sin6_addr) ? AF_INET : AF_INET6;
		return;
	}
	memset(out, 0, 16);
	out[2] = htonl(0xffff);
	out[3] = ((const struct sockaddr_in *)(const void *)addr)->sin_addr.s_addr;
	*family = AF_INET;
}

static int key_of(int fd, struct flow_key *key)
{
	struct sockaddr_in6 addr;
	socklen_t len = sizeof(addr);

	memset(key, 0, sizeof(*key));
	if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		return -errno;
	key_addr(key->local_addr, &key->family, &addr);
	key->local_port = addr.sin6_port; /* the port is at the same place in both families */
	len = sizeof(addr);
	if (getpeername(fd, (struct sockaddr *)&addr, &len) < 0)
		return -errno;
	key_addr(key->remote_addr, &key->family, &addr);
	key->remote_port = addr.sin6_port;
	return 0;
}

static int cookie_of(int fd, uint64_t *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &len) < 0 ? -errno : 0;
}

static enum fallback_reason reason_of(int err)
{
	switch (err) {
	case -EOPNOTSUPP: /* sock_map_sk_state_allowed(): not ESTABLISHED */
	case -ENOTCONN:
		return FALLBACK_HALF_CLOSED;
	case -E2BIG:
	case -ENOSPC:
		return FALLBACK_MAP_FULL;
	case -EBUSY:
		return FALLBACK_BUSY;
	case -EEXIST:
		return FALLBACK_COLLISION;
	case -ENOMEM:
		return FALLBACK_NO_MEMORY;
	default:
		return FALLBACK_REFUSED;
	}
}

/* The flow of the bytes that `end` receives: its peer is the other end. */
static int claim_flow(
	struct bpf_obj *obj, struct sockmap_pair *pair, unsigned int end, uint32_t limit)
{
	uint64_t cookie;
	struct flow *flow;
	int err = cookie_of(pair->fds[end], &cookie);

	if (err)
		return err;
	flow = flow_claim(obj->flows, obj->flow_shift, cookie);
	if (!flow)
		return -ENOSPC;
	obj->used[BPF_MAP_FLOWS]++;
	pair->flows[end] = flow;
	flow->limit = limit;
	/* Read by whichever thread empties the ring, perhaps just when the slot changes hands. */
	__atomic_store_n(&flow->owner, pair->owner, __ATOMIC_RELAXED);
	flow->owner_data = pair->owner_data;
	err = key_of(pair->fds[!end], &flow->peer);
	flow_publish(flow, cookie);
	return err;
}

static int claim_flows(struct bpf_obj *obj, struct sockmap_pair *pair, uint32_t limit)
{
	int err = claim_flow(obj, pair, END_CLIENT, limit);

	return err ?: claim_flow(obj, pair, END_SERVER, limit);
}

static int insert_one(
	struct bpf_obj *obj, enum bpf_map_id map, struct sockmap_pair *pair, unsigned int end)
{
	const struct flow_key *key = &pair->flows[!end]->peer;
	uint64_t value = (uint64_t)pair->fds[end];
	int err = bpf_obj_insert(obj->map_fds[map], key, &value);

	if (!err)
		obj->used[map]++;
	return err;
}

static void delete_one(
	struct bpf_obj *obj, enum bpf_map_id map, struct sockmap_pair *pair, unsigned int end)
{
	(void)bpf_obj_delete(obj->map_fds[map], &pair->flows[!end]->peer);
	obj->used[map]--;
}

static int insert_targets(struct bpf_obj *obj, struct sockmap_pair *pair)
{
	for (unsigned int end = 0; end < END_COUNT; end++) {
		int err = insert_one(obj, BPF_MAP_REDIR_TARGETS, pair, end);

		if (err)
			return err;
		pair->targets |= bit(end);
	}
	return 0;
}

static int set_valve(const struct bpf_obj *obj, int fd)
{
	if (obj->valve_fd < 0)
		return 0;
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &obj->valve_fd, sizeof(int)) < 0 ? -errno
											  : 0;
}

/* From here on each direction stands alone: if the second one is refused, the first one is live
 * already and must stay (deleting a socket that may receive loses bytes); the other one is relayed.
 */
static int insert_sources(struct bpf_obj *obj, struct sockmap_pair *pair)
{
	int err = 0;

	for (unsigned int end = END_COUNT; end-- > 0;) {
		int this_err = set_valve(obj, pair->fds[end]);

		this_err = this_err ?: insert_one(obj, BPF_MAP_SPLICED_SOCKS, pair, end);
		if (this_err)
			err = this_err;
		else
			pair->spliced |= bit(end);
	}
	return err;
}

int sockmap_insert(struct bpf_obj *obj, struct sockmap_pair *pair, uint32_t limit,
	enum fallback_reason *ret_reason)
{
	int err = claim_flows(obj, pair, limit);

	err = err ?: insert_targets(obj, pair);
	err = err ?: insert_sources(obj, pair);
	if (err)
		*ret_reason = reason_of(err);
	if (!pair->spliced) {
		sockmap_remove(obj, pair);
		return err;
	}
	for (unsigned int end = 0; end < END_COUNT; end++)
		if ((pair->spliced & bit(end)) && !(obj->sabotage & SABOTAGE_KICK))
			sockmap_kick(pair->fds[end]);
	return 0;
}

void sockmap_kick(int fd)
{
	int one = 1;

	/* tcp_set_rcvlowat() calls tcp_data_ready(); unlike recv() it cannot return passed bytes.
	 */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof(one));
}

static bool fin_received(unsigned int state)
{
	return state == STATE_CLOSE_WAIT || state == STATE_LAST_ACK || state == STATE_CLOSING ||
	       state == STATE_TIME_WAIT;
}

/* Asked without taking it: SO_ERROR would clear it, and a reset would later read like a FIN. */
static bool has_error(int fd)
{
	struct pollfd pfd = {.fd = fd};

	return poll(&pfd, 1, 0) > 0 && pfd.revents & POLLERR;
}

int sockmap_tcp_read(const struct sockmap_pair *pair, unsigned int end, struct sockmap_tcp *ret)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	int unacked = 0;

	memset(&info, 0, sizeof(info));
	/* TCP_INFO first: an ACK between the two calls then makes `accepted` too small for a
	 * moment, never too large. bytes_acked and SIOCOUTQ, because bytes_sent goes wrong when a
	 * retransmission fails. */
	if (getsockopt(pair->fds[end], IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return -errno;
	if (ioctl(pair->fds[end], SIOCOUTQ, &unacked) < 0)
		return -errno;
	ret->closed = info.tcpi_state == STATE_CLOSE;
	if (ret->closed && has_error(pair->fds[end]))
		return -ECONNRESET;
	ret->fin = ret->closed || fin_received(info.tcpi_state);
	ret->received = info.tcpi_bytes_received - (ret->fin ? 1 : 0) - pair->skipped[end];
	/* bytes_acked counts the SYN of an active open. */
	ret->accepted = info.tcpi_bytes_acked + (uint64_t)unacked -
			(pair->connected & bit(end) ? 1 : 0) - pair->added[end];
	return 0;
}

static struct account_state state_of(
	const struct sockmap_pair *pair, unsigned int dir, uint64_t read, uint64_t written)
{
	return (struct account_state){
		.read = read,
		.written = written,
		.redirected = sockmap_redirected(pair, dir),
	};
}

int sockmap_drained(
	const struct sockmap_pair *pair, unsigned int dir, uint64_t read, uint64_t written)
{
	struct sockmap_tcp source, target;
	struct account_state state;
	int err = sockmap_tcp_read(pair, dir, &source);

	if (err)
		return -ECONNRESET;
	if (sockmap_tcp_read(pair, !dir, &target) || target.closed)
		return -EPIPE;
	/* Read after the barrier, so that it is not older than `received`. */
	state = state_of(pair, dir, read, written);
	return (int)account_drained(&state, source.received, target.accepted);
}

int sockmap_settled(const struct sockmap_pair *pair, unsigned int dir, uint64_t written)
{
	struct sockmap_tcp target;
	struct account_state state = state_of(pair, dir, 0, written);

	if (sockmap_tcp_read(pair, !dir, &target) || target.closed)
		return -EPIPE;
	return (int)account_target(&state, target.accepted);
}

bool sockmap_hand_back(const struct sockmap_pair *pair, unsigned int dir, uint64_t read)
{
	struct flow *flow = pair->flows[dir];
	uint64_t passed = read - pair->taken[dir];
	struct sockmap_tcp barrier;

	if (sockmap_passed(pair, dir) != passed)
		return false;
	__atomic_store_n(&flow->handback, passed, __ATOMIC_SEQ_CST);
	/* A verdict that ran while we stored may have passed on by the old value. After the barrier
	 * every later one sees the offer, so an unchanged count proves that nothing was passed in
	 * between. */
	if (!sockmap_tcp_read(pair, dir, &barrier) && sockmap_passed(pair, dir) == passed)
		return true;
	__atomic_store_n(&flow->handback, FLOW_NO_HANDBACK, __ATOMIC_SEQ_CST);
	return false;
}

void sockmap_detach(struct bpf_obj *obj, struct sockmap_pair *pair, unsigned int dir)
{
	struct sockmap_tcp barrier;
	int fd = pair->fds[dir];
	int half = 0;
	socklen_t len = sizeof(half);

	if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &half, &len) == 0) {
		half /= 2; /* more would enlarge the buffer for good */
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &half, sizeof(half));
	}
	delete_one(obj, BPF_MAP_SPLICED_SOCKS, pair, dir);
	pair->spliced &= (uint8_t)~bit(dir);
	sockmap_kick(fd);
	(void)!sockmap_tcp_read(pair, dir, &barrier);
	__atomic_store_n(&pair->flows[dir]->valve, 0, __ATOMIC_SEQ_CST);
}

void sockmap_remove(struct bpf_obj *obj, struct sockmap_pair *pair)
{
	for (unsigned int end = 0; end < END_COUNT; end++) {
		if (pair->spliced & bit(end))
			delete_one(obj, BPF_MAP_SPLICED_SOCKS, pair, end);
		if (pair->targets & bit(end))
			delete_one(obj, BPF_MAP_REDIR_TARGETS, pair, end);
	}
	for (unsigned int end = 0; end < END_COUNT; end++) {
		if (!pair->flows[end])
			continue;
		flow_release(pair->flows[end]);
		pair->flows[end] = NULL;
		obj->used[BPF_MAP_FLOWS]--;
	}
	pair->targets = 0;
	pair->spliced = 0;
}

uint64_t sockmap_redirected(const struct sockmap_pair *pair, unsigned int dir)
{
	return __atomic_load_n(&pair->flows[dir]->redirected, __ATOMIC_ACQUIRE);
}

uint64_t sockmap_passed(const struct sockmap_pair *pair, unsigned int dir)
{
	return __atomic_load_n(&pair->flows[dir]->passed, __ATOMIC_ACQUIRE);
}

enum flow_mode sockmap_mode(const struct sockmap_pair *pair, unsigned int dir)
{
	return (enum flow_mode)__atomic_load_n(&pair->flows[dir]->mode, __ATOMIC_ACQUIRE);
}

uint32_t sockmap_overflows(const struct sockmap_pair *pair, unsigned int dir)
{
	return __atomic_load_n(&pair->flows[dir]->overflows, __ATOMIC_RELAXED);
}

void sockmap_abort(int fd)
{
	struct sockaddr unspec = {.sa_family = AF_UNSPEC};

	(void)connect(fd, &unspec, sizeof(unspec));
}
