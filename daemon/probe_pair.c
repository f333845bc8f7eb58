/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the sockets of the probe and the bytes on them. Must not know the checks. */
#include "probe_pair.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK (64u * 1024)
#define NAP_NS 50000

bool probe_fail(struct probe_env *env, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(env->why, env->why_size, fmt, ap);
	va_end(ap);
	return false;
}

bool probe_fail_errno(struct probe_env *env, int err, const char *what)
{
	return probe_fail(env, "%s: %s", what, strerror(err < 0 ? -err : err));
}

bool probe_nap(struct probe_env *env)
{
	struct timespec nap = {.tv_nsec = NAP_NS};

	if (now_ns() >= env->deadline_ns)
		return false;
	nanosleep(&nap, NULL);
	return true;
}

short probe_poll(int fd, short events)
{
	struct pollfd pollfd = {.fd = fd, .events = events};

	return poll(&pollfd, 1, 0) > 0 ? pollfd.revents : 0;
}

bool probe_wait(struct probe_env *env, int fd, short events, const char *what)
{
	struct pollfd pollfd = {.fd = fd, .events = events};
	uint64_t now = now_ns();
	int n = 0;

	while (now < env->deadline_ns) {
		n = poll(&pollfd, 1, (int)((env->deadline_ns - now) / 1000000 + 1));
		if (n > 0)
			return true;
		if (n < 0 && errno != EINTR)
			return probe_fail_errno(env, errno, "poll");
		now = now_ns();
	}
	return probe_fail(env, "waited in vain for %s", what);
}

static void loopback(struct sockaddr_in6 *addr, socklen_t *len, int family, bool any)
{
	struct sockaddr_in *in = (struct sockaddr_in *)(void *)addr;

	memset(addr, 0, sizeof(*addr));
	addr->sin6_family =
		(sa_family_t)family; /* at the same place in both families, as the port is */
	*len = family == AF_INET6 ? sizeof(*addr) : sizeof(*in);
	if (family == AF_INET6)
		addr->sin6_addr = any ? in6addr_any : in6addr_loopback;
	else
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

static int open_socket(int family, int option, int bytes)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);

	/* The FORCE variants go past net.core.[rw]mem_max, so that the sizes are those that were
	 * asked for. */
	if (fd >= 0 && bytes && setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof(bytes)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int probe_listen(struct probe_env *env, int family, bool dual, int rcvbuf)
{
	int fd = open_socket(family, SO_RCVBUFFORCE, rcvbuf);
	struct sockaddr_in6 addr;
	socklen_t len;
	int v6only = !dual;

	loopback(&addr, &len, family, dual);
	if (fd >= 0 &&
		(family != AF_INET6 ||
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)) == 0) &&
		bind(fd, (struct sockaddr *)&addr, len) == 0 && listen(fd, 16) == 0)
		return fd;
	probe_fail_errno(env, errno, "listening on the loopback");
	if (fd >= 0)
		close(fd);
	return -1;
}

static bool same_port(int accepted_fd, int connected_fd)
{
	struct sockaddr_in6 peer, own;
	socklen_t peer_len = sizeof(peer), own_len = sizeof(own);

	return getpeername(accepted_fd, (struct sockaddr *)&peer, &peer_len) == 0 &&
	       getsockname(connected_fd, (struct sockaddr *)&own, &own_len) == 0 &&
	       peer.sin6_port == own.sin6_port;
}

/* Another local process may have connected to our random port: it is turned away. */
static int accept_own(struct probe_env *env, int listen_fd, int connected_fd)
{
	while (probe_wait(env, listen_fd, POLLIN, "a loopback connection")) {
		int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0 && same_port(fd, connected_fd))
			return fd;
		if (fd >= 0)
			close(fd);
		else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			return probe_fail_errno(env, errno, "accept"), -1;
	}
	return -1;
}

bool probe_connect(struct probe_env *env, int listen_fd, int family, int sndbuf, int ret_fds[2])
{
	struct sockaddr_in6 bound, addr;
	socklen_t len = sizeof(bound);
	int one = 1;

	if (getsockname(listen_fd, (struct sockaddr *)&bound, &len) < 0)
		return probe_fail_errno(env, errno, "getsockname");
	ret_fds[0] = open_socket(family, SO_SNDBUFFORCE, sndbuf);
	if (ret_fds[0] < 0)
		return probe_fail_errno(env, errno, "socket");
	loopback(&addr, &len, family, false);
	addr.sin6_port = bound.sin6_port;
	if (connect(ret_fds[0], (struct sockaddr *)&addr, len) < 0 && errno != EINPROGRESS)
		return probe_fail_errno(env, errno, "connecting on the loopback");
	ret_fds[1] = accept_own(env, listen_fd, ret_fds[0]);
	if (ret_fds[1] < 0)
		return false;
	/* accept() may come before the other side has seen the SYN-ACK's effect. */
	if (!probe_wait(env, ret_fds[0], POLLOUT, "a loopback connection"))
		return false;
	for (int i = 0; i < 2; i++)
		(void)setsockopt(ret_fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return true;
}

static bool connect_ends(
	struct probe_env *env, const struct probe_shape *shape, unsigned int end, int ret_fds[2])
{
	int family = end == END_CLIENT ? shape->client_family : shape->server_family;
	bool mapped = end == END_CLIENT && shape->mapped;
	int listen_fd =
		probe_listen(env, family, mapped, end == END_CLIENT ? 0 : shape->server_rcvbuf);
	bool ok;

	if (listen_fd < 0)
		return false;
	ok = probe_connect(env, listen_fd, mapped ? AF_INET : family,
		end == END_CLIENT ? shape->client_sndbuf : shape->target_sndbuf, ret_fds);
	close(listen_fd);
	return ok;
}

bool probe_pair_open(
	struct probe_env *env, struct probe_pair *pair, const struct probe_shape *shape)
{
	int client[2] = {-1, -1}, server[2] = {-1, -1};
	bool ok;

	memset(pair, 0, sizeof(*pair));
	pair->is_v6 = shape->server_family == AF_INET6;
	ok = connect_ends(env, shape, END_CLIENT, client) &&
	     connect_ends(env, shape, END_SERVER, server);
	pair->far[END_CLIENT] = client[0];
	pair->near.fds[END_CLIENT] = client[1];
	pair->near.fds[END_SERVER] = server[0];
	pair->far[END_SERVER] = server[1];
	pair->near.connected = 1u << END_SERVER;
	env->pair = pair;
	return ok;
}

bool probe_pair_insert(struct probe_env *env, struct probe_pair *pair)
{
	enum fallback_reason reason = FALLBACK_REFUSED;
	int err = sockmap_insert(env->obj, &pair->near, PROBE_LIMIT, &reason);

	if (err)
		return probe_fail(env, "the sockets could not be inserted (%s): %s",
			fallback_reason_names[reason], strerror(-err));
	if (pair->near.spliced != (1u << END_CLIENT | 1u << END_SERVER))
		return probe_fail(env, "only one of the sockets could be inserted");
	/* Test only. The program does not find the peer then, as with a key made wrongly. */
	if ((env->obj->sabotage & SABOTAGE_V6) && pair->is_v6)
		for (unsigned int end = 0; end < END_COUNT; end++)
			pair->near.flows[end]->peer.local_addr[3] ^= htonl(2);
	return true;
}

void probe_close_reset(int fd)
{
	struct linger now = {.l_onoff = 1};

	if (fd < 0)
		return;
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

void probe_pair_close(struct probe_env *env, struct probe_pair *pair)
{
	for (unsigned int end = 0; end < END_COUNT; end++) {
		if (pair->near.fds[end] >= 0)
			sockmap_abort(pair->near.fds[end]);
		relay_done(&env->pool, &pair->dirs[end].relay);
	}
	sockmap_remove(env->obj, &pair->near);
	for (unsigned int end = 0; end < END_COUNT; end++) {
		probe_close_reset(pair->near.fds[end]);
		probe_close_reset(pair->far[end]);
	}
	env->pair = NULL;
}

bool probe_with_pair(
	struct probe_env *env, const struct probe_shape *shape, bool insert, probe_steps steps)
{
	struct probe_pair pair;
	bool ok = probe_pair_open(env, &pair, shape) &&
		  (!insert || probe_pair_insert(env, &pair)) && steps(env, &pair);

	probe_pair_close(env, &pair);
	return ok;
}

/* Every 8 bytes are different, so a block that is lost, repeated or moved cannot go unseen. */
void probe_pattern(unsigned int dir, uint64_t offset, void *buf, size_t len)
{
	unsigned char *out = buf;

	while (len) {
		uint64_t word = (offset / 8 + 1) * FLOW_HASH_MULT ^ (0xD1ull << dir);
		size_t skip = offset % 8;
		size_t n = MIN(8 - skip, len);

		memcpy(out, (const char *)&word + skip, n);
		out += n;
		offset += n;
		len -= n;
	}
}

bool probe_offer(struct probe_env *env, struct probe_pair *pair, unsigned int dir, uint64_t total)
{
	struct probe_dir *d = &pair->dirs[dir];
	char buf[CHUNK];

	while (d->sent < total) {
		size_t len = MIN(total - d->sent, sizeof(buf));
		ssize_t n;

		probe_pattern(dir, d->sent, buf, len);
		n = send(pair->far[dir], buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return probe_fail_errno(env, errno, "sending into the test connection");
		if (n < (ssize_t)len) {
			d->sent += n > 0 ? (uint64_t)n : 0;
			break;
		}
		d->sent += (uint64_t)n;
	}
	return true;
}

static bool compare(
	struct probe_env *env, unsigned int dir, uint64_t offset, const char *buf, size_t len)
{
	char expected[CHUNK];
	size_t i = 0;

	probe_pattern(dir, offset, expected, len);
	if (memcmp(buf, expected, len) == 0)
		return true;
	while (buf[i] == expected[i])
		i++;
	return probe_fail(env, "byte %llu of the stream came out wrong: lost, repeated or moved",
		(unsigned long long)(offset + i));
}

bool probe_collect(struct probe_env *env, struct probe_pair *pair, unsigned int dir)
{
	struct probe_dir *d = &pair->dirs[dir];
	char buf[CHUNK];

	for (;;) {
		ssize_t n = recv(pair->far[!dir], buf, sizeof(buf), MSG_DONTWAIT);

		if (n == 0) {
			d->eof = true;
			return true;
		}
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ||
			       probe_fail_errno(env, errno, "reading from the test connection");
		if (!compare(env, dir, d->received, buf, (size_t)n))
			return false;
		d->received += (uint64_t)n;
		if (d->received > d->sent)
			return probe_fail(env, "%llu bytes came out, but only %llu went in",
				(unsigned long long)d->received, (unsigned long long)d->sent);
	}
}
