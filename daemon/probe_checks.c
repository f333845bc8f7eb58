/* SPDX-License-Identifier: BSD-2-Clause */
/* The checks of the ordinary life of a session: redirect, kick, end, IPv6; and of the socket
 * storage. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe_checks.h"
#include "probe_worker.h"

/* Time for the kernel's worker to fail at something it should not have been given. */
#define GRACE_NS 2000000

static const struct probe_shape ipv4 = {.client_family = AF_INET, .server_family = AF_INET};

static bool settled(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	int account;

	while ((account = probe_drained(env, pair, dir)) == ACCOUNT_PENDING)
		if (!probe_nap(env))
			return probe_fail(env, "every byte came out, but the sums do not meet");
	if (account < 0)
		return probe_fail_errno(env, account, "a socket of the pair died");
	return account == ACCOUNT_SETTLED ||
	       probe_fail(env, "more bytes were counted than came in");
}

static bool exchange(struct probe_env *env, struct probe_pair *pair)
{
	static const unsigned int sizes[] = {1, 100, 4000};

	for (unsigned int i = 0; i < ARRAY_LEN(sizes); i++)
		for (unsigned int dir = 0; dir < END_COUNT; dir++)
			if (!probe_transfer(env, pair, dir, pair->dirs[dir].sent + sizes[i]))
				return false;
	for (unsigned int dir = 0; dir < END_COUNT; dir++)
		if (!probe_all_redirected(env, pair, dir) || !settled(env, pair, dir))
			return false;
	return true;
}

bool probe_redirect(struct probe_env *env)
{
	return probe_with_pair(env, &ipv4, true, exchange);
}

#define EARLY_BYTES 10
#define HALF_READ 4

static bool queue_early(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	int queued = 0;

	if (!probe_offer(env, pair, dir, EARLY_BYTES))
		return false;
	while (ioctl(pair->near.fds[dir], FIONREAD, &queued) == 0 && queued < EARLY_BYTES)
		if (!probe_nap(env))
			return probe_fail(env, "waited in vain for bytes on a plain connection");
	return true;
}

/* The worker reads a part of what is queued and sends it on before it inserts. */
static bool read_half(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	struct relay *relay = &pair->dirs[dir].relay;
	char buf[HALF_READ];

	if (recv(pair->near.fds[dir], buf, sizeof(buf), MSG_DONTWAIT) != sizeof(buf) ||
		send(pair->near.fds[!dir], buf, sizeof(buf), MSG_NOSIGNAL) != sizeof(buf))
		return probe_fail_errno(env, errno, "relaying on a plain connection");
	relay->read = relay->written = pair->near.taken[dir] = sizeof(buf);
	return true;
}

static bool kick(struct probe_env *env, struct probe_pair *pair)
{
	for (unsigned int dir = 0; dir < END_COUNT; dir++)
		if (!queue_early(env, pair, dir))
			return false;
	/* A stream parser starts from the half-read message's middle and lags behind for ever
	 * (kernel-notes 0.5); sessions that will have one read nothing before the insertion. */
	if (!env->obj->stream_parser && !read_half(env, pair, END_CLIENT))
		return false;
	if (!probe_pair_insert(env, pair))
		return false;
	for (unsigned int dir = 0; dir < END_COUNT; dir++)
		if (!probe_transfer(env, pair, dir, EARLY_BYTES))
			return false;
	return exchange(env, pair);
}

bool probe_kick(struct probe_env *env)
{
	return probe_with_pair(env, &ipv4, false, kick);
}

static bool no_error(struct probe_env *env, struct probe_pair *pair, unsigned int end)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (!(probe_poll(pair->near.fds[end], 0) & POLLERR))
		return true;
	(void)getsockopt(pair->near.fds[end], SOL_SOCKET, SO_ERROR, &err, &len);
	return probe_fail_errno(env, err, "the FIN left an error on the other socket");
}

static bool fin(struct probe_env *env, struct probe_pair *pair)
{
	uint64_t start;

	if (shutdown(pair->far[END_CLIENT], SHUT_WR) < 0)
		return probe_fail_errno(env, errno, "shutdown");
	if (!probe_finish(env, pair, END_CLIENT) || !probe_transfer(env, pair, END_SERVER, 1000) ||
		!probe_all_redirected(env, pair, END_SERVER))
		return false;
	start = now_ns();
	while (now_ns() - start < GRACE_NS && probe_nap(env))
		if (!no_error(env, pair, END_SERVER) || !no_error(env, pair, END_CLIENT))
			return false;
	return probe_transfer(env, pair, END_SERVER, 2000) && settled(env, pair, END_SERVER);
}

bool probe_fin(struct probe_env *env)
{
	return probe_with_pair(env, &ipv4, true, fin);
}

static bool has_ipv6(void)
{
	struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

bool probe_ipv6(struct probe_env *env)
{
	static const struct probe_shape plain = {
		.client_family = AF_INET6, .server_family = AF_INET6};
	static const struct probe_shape mapped = {
		.client_family = AF_INET6,
		.mapped = true,
		.server_family = AF_INET,
	};

	if (!has_ipv6()) {
		snprintf(env->why, env->why_size, "not run: no IPv6 on the loopback");
		return true;
	}
	return probe_with_pair(env, &plain, true, exchange) &&
	       probe_with_pair(env, &mapped, true, exchange);
}

#define RECORD_LISTENER 4711

static bool expect_record(struct probe_env *env, int fd, int expected, const char *which)
{
	struct sock_stats record = {0};
	int err = bpf_obj_lookup(env->obj->map_fds[BPF_MAP_SOCK_STATS], &fd, &record);

	if (err != expected)
		return probe_fail(env, "the record of the %s socket: %s", which,
			err ? strerror(-err) : "still there after its deletion");
	if (!err && record.listener != RECORD_LISTENER)
		return probe_fail(env, "the record of the %s socket has wrong contents", which);
	return true;
}

static bool use_records(struct probe_env *env, int listening_fd, const int fds[2])
{
	static const struct sock_stats record = {.listener = RECORD_LISTENER};
	int map_fd = env->obj->map_fds[BPF_MAP_SOCK_STATS];
	int err;

	if (!expect_record(env, fds[1], 0, "accepted"))
		return false;
	err = bpf_obj_insert(map_fd, &fds[0], &record);
	if (err)
		return probe_fail_errno(env, err, "creating a record on a connected socket");
	if (!expect_record(env, fds[0], 0, "connected"))
		return false;
	for (int i = 0; i < 2; i++) {
		err = bpf_obj_delete(map_fd, &fds[i]);
		if (err)
			return probe_fail_errno(env, err, "deleting a record");
	}
	return expect_record(env, fds[0], -ENOENT, "connected") &&
	       expect_record(env, fds[1], -ENOENT, "accepted") &&
	       expect_record(env, listening_fd, 0, "listening");
}

bool probe_storage(struct probe_env *env)
{
	static const struct sock_stats record = {.listener = RECORD_LISTENER};
	int listening_fd = probe_listen(env, AF_INET, false, 0);
	int fds[2] = {-1, -1};
	bool ok = listening_fd >= 0;
	int err = 0;

	if (ok && !(env->obj->sabotage & SABOTAGE_STORAGE))
		err = bpf_obj_insert(env->obj->map_fds[BPF_MAP_SOCK_STATS], &listening_fd, &record);
	if (err)
		ok = probe_fail_errno(env, err, "creating a record on a listening socket");
	ok = ok && probe_connect(env, listening_fd, AF_INET, 0, fds) &&
	     use_records(env, listening_fd, fds);
	for (int i = 0; i < 2; i++)
		probe_close_reset(fds[i]);
	if (listening_fd >= 0)
		close(listening_fd);
	return ok;
}
