/* SPDX-License-Identifier: BSD-2-Clause */
#include "bind.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#define BACKLOG 4096

static void set_int(int fd, int level, int option, int value)
{
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

/* Accepted sockets inherit these, so that accept needs no further call. SO_LINGER {1, 0} makes a crash of
 * the worker reset its connections: a clean FIN after a truncated stream would be a lie. */
static void tune_tcp(int fd, const struct conf_backend *backend)
{
	struct linger on = {.l_onoff = 1};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &on, sizeof(on));
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (backend->keepalive_ms) {
		set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
		set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)((backend->keepalive_ms + 999) / 1000));
	}
}

/* Nobody answers there: what is left of a daemon that died. */
static void remove_stale(const struct addr *addr)
{
	struct stat st;
	int fd;

	if (!addr->un.sun_path[0] || lstat(addr->un.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (connect(fd, &addr->sa, addr->len) < 0 && errno == ECONNREFUSED)
		(void)unlink(addr->un.sun_path);
	close(fd);
}

static int fail(int fd)
{
	int err = -errno;

	close(fd);
	return err;
}

static int open_unix(const struct addr *addr, unsigned int mode)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t old;
	int err;

	if (fd < 0)
		return -errno;
	remove_stale(addr);
	old = umask(0777 & ~mode);
	err = bind(fd, &addr->sa, addr->len);
	umask(old);
	if (err < 0 || listen(fd, BACKLOG) < 0)
		return fail(fd);
	return fd;
}

static int open_tcp(const struct addr *addr, const struct conf_backend *backend, bool reuseport)
{
	int fd = socket(addr_family(addr), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);

	if (fd < 0)
		return -errno;
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (reuseport)
		set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (addr_family(addr) == AF_INET6)
		set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, !addr->dual_stack);
	if (backend)
		tune_tcp(fd, backend);
	if (bind(fd, &addr->sa, addr->len) < 0 || listen(fd, BACKLOG) < 0)
		return fail(fd);
	return fd;
}

/* "*:port" where the kernel has no IPv6. */
static void to_ipv4_any(struct addr *addr)
{
	in_port_t port = addr->in6.sin6_port;

	memset(addr, 0, sizeof(*addr));
	addr->len = sizeof(addr->in);
	addr->in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port};
}

/* SO_REUSEPORT would let a second daemon of the same user share the port in silence. */
static int check_free(const struct addr *addr)
{
	int fd = open_tcp(addr, NULL, false);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int open_one(struct addr *addr, const struct conf_backend *backend, bool first)
{
	int fd;

	if (addr_is_unix(addr))
		return open_unix(addr, 0666);
	fd = first ? check_free(addr) : 0;
	if (!fd)
		fd = open_tcp(addr, backend, true);
	if (fd == -EAFNOSUPPORT && addr->dual_stack) {
		to_ipv4_any(addr);
		fd = open_tcp(addr, backend, true);
	}
	return fd;
}

static int add(struct bounds *bounds, const struct bound *bound)
{
	struct bound *grown = realloc(bounds->v, (bounds->n + 1) * sizeof(*grown));

	if (!grown) {
		close(bound->fd);
		return -ENOMEM;
	}
	bounds->v = grown;
	bounds->v[bounds->n++] = *bound;
	return 0;
}

/* The first thread's socket tells the port when the kernel chose it; the others must take the same. */
static void learn_port(int fd, struct addr *addr)
{
	socklen_t len = sizeof(addr->in6);

	if (!addr_is_unix(addr))
		(void)getsockname(fd, &addr->sa, &len);
}

static int bind_addr(const struct conf *conf, unsigned int listener, const struct addr *wanted,
	unsigned int threads, struct bounds *ret)
{
	const struct conf_listener *l = &conf->listeners[listener];
	struct addr addr = *wanted;
	bool shared = addr_is_unix(&addr);
	char text[ADDR_TEXT_MAX];

	for (unsigned int t = 0; t < (shared ? 1 : threads); t++) {
		struct bound bound = {
			.fd = open_one(&addr, l->backend, t == 0),
			.listener = listener,
			.thread = t,
			.shared = shared,
			.tcp = !shared,
			.why = FALLBACK_UNIX,
		};
		int err = bound.fd < 0 ? bound.fd : add(ret, &bound);

		if (err) {
			addr_format(&addr, text, sizeof(text));
			log_error("listener %s: %s: %s", l->name, text, strerror(-err));
			return err;
		}
		learn_port(bound.fd, &addr);
	}
	addr_format(&addr, text, sizeof(text));
	log_notice("listener %s: listening on %s", l->name, text);
	return 0;
}

int bind_listeners(const struct conf *conf, unsigned int threads, struct bounds *ret)
{
	int err = 0;

	*ret = (struct bounds){0};
	for (unsigned int i = 0; i < conf->nlisteners && !err; i++)
		for (unsigned int j = 0; j < conf->listeners[i].binds.n && !err; j++)
			err = bind_addr(conf, i, &conf->listeners[i].binds.v[j], threads, ret);
	if (err)
		bind_close(ret);
	return err;
}

void bind_close(struct bounds *bounds)
{
	for (unsigned int i = 0; i < bounds->n; i++)
		close(bounds->v[i].fd);
	free(bounds->v);
	*bounds = (struct bounds){0};
}

int bind_service(const struct addr *addr, unsigned int mode)
{
	if (addr_is_unix(addr))
		return open_unix(addr, mode);
	return open_tcp(addr, NULL, false);
}
