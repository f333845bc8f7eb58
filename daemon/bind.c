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

/* Accepted sockets inherit these, so that accept needs no further call. SO_LINGER {1, 0} makes a
 * crash of the worker reset its connections: a clean FIN after a truncated stream would be a lie.
 */
static void tune_tcp(int fd, const struct conf_listener *listener)
{
	struct linger on = {.l_onoff = 1};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &on, sizeof(on));
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, listener->keepalive_ms != 0);
	if (listener->keepalive_ms)
		set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE,
			(int)((listener->keepalive_ms + 999) / 1000));
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)listener->user_timeout_ms);
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

static int apply_options(int fd, const struct addr *addr, const struct conf_bind_options *options)
{
	if (addr_family(addr) == AF_INET6)
		set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, !addr->dual_stack || options->v6only);
	if (options->freebind)
		set_int(fd, IPPROTO_IP, IP_FREEBIND, 1);
	if (options->interface[0] && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, options->interface,
					     (socklen_t)strlen(options->interface)) < 0)
		return -errno;
	return 0;
}

static int open_tcp(
	const struct addr *addr, const struct conf_bind_options *options, bool reuseport)
{
	int fd = socket(addr_family(addr), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	int err;

	if (fd < 0)
		return -errno;
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (reuseport)
		set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	err = apply_options(fd, addr, options);
	if (err) {
		close(fd);
		return err;
	}
	if (bind(fd, &addr->sa, addr->len) < 0 ||
		listen(fd, options->backlog ? (int)options->backlog : BACKLOG) < 0)
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
static int check_free(const struct addr *addr, const struct conf_bind_options *options)
{
	int fd = open_tcp(addr, options, false);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int open_one(struct addr *addr, const struct conf_listener *listener, bool first)
{
	const struct conf_bind_options *options = &listener->bind_options;
	int fd;

	if (addr_is_unix(addr))
		return open_unix(addr, 0666);
	fd = first ? check_free(addr, options) : 0;
	if (!fd)
		fd = open_tcp(addr, options, true);
	if (fd == -EAFNOSUPPORT && addr->dual_stack) {
		to_ipv4_any(addr);
		fd = open_tcp(addr, options, true);
	}
	if (fd >= 0)
		tune_tcp(fd, listener);
	return fd;
}

static int add(struct bounds *bounds, const struct bound *bound)
{
	struct bound *grown = realloc(bounds->v, (bounds->n + 1) * sizeof(*grown));

	if (!grown) {
		if (!bound->kept)
			close(bound->fd);
		return -ENOMEM;
	}
	bounds->v = grown;
	bounds->v[bounds->n++] = *bound;
	return 0;
}

/* The first thread's socket tells the port when the kernel chose it; the others must take the same.
 */
static void learn_port(int fd, struct addr *addr)
{
	socklen_t len = sizeof(addr->in6);

	if (!addr_is_unix(addr))
		(void)getsockname(fd, &addr->sa, &len);
}

static bool same_options(const struct conf_bind_options *a, const struct conf_bind_options *b)
{
	return a->v6only == b->v6only && a->freebind == b->freebind && a->backlog == b->backlog &&
	       !strcmp(a->interface, b->interface);
}

static struct bound *find_old(struct bounds *old, const struct addr *addr,
	const struct conf_bind_options *options, unsigned int thread)
{
	for (unsigned int i = 0; old && i < old->n; i++) {
		struct bound *bound = &old->v[i];

		if (!bound->kept && bound->thread == thread && addr_equal(&bound->addr, addr) &&
			bound->addr.dual_stack == addr->dual_stack &&
			same_options(&bound->options, options))
			return bound;
	}
	return NULL;
}

/* From 127.0.0.1:80 to *:80: our own old socket, which goes when the new one serves, is in the way
 * of a bind without SO_REUSEPORT. */
static bool port_is_ours(const struct bounds *old, const struct addr *addr)
{
	for (unsigned int i = 0; old && i < old->n; i++)
		if (old->v[i].tcp && old->v[i].addr.in.sin_port == addr->in.sin_port)
			return true;
	return false;
}

struct binding {
	const struct conf_listener *conf;
	unsigned int listener;
	const struct addr *wanted;
	struct addr addr; /* with the port that the kernel chose */
	bool opened;
};

static int bind_thread(
	struct binding *b, unsigned int thread, struct bounds *old, struct bounds *ret)
{
	static uint64_t last_id;
	struct bound *kept = find_old(old, b->wanted, &b->conf->bind_options, thread);
	struct bound bound = {
		.addr = *b->wanted,
		.options = b->conf->bind_options,
		.listener = b->listener,
		.thread = thread,
		.shared = addr_is_unix(b->wanted),
		.tcp = !addr_is_unix(b->wanted),
		.why = FALLBACK_UNIX,
		.kept = kept != NULL,
	};

	if (kept) {
		kept->kept = true;
		bound.fd = kept->fd;
		bound.id = kept->id;
		return add(ret, &bound);
	}
	bound.fd = open_one(&b->addr, b->conf, thread == 0 && !port_is_ours(old, b->wanted));
	if (bound.fd < 0)
		return bound.fd;
	bound.id = ++last_id;
	b->opened = true;
	learn_port(bound.fd, &b->addr);
	return add(ret, &bound);
}

static int bind_addr(
	struct binding *b, unsigned int threads, struct bounds *old, struct bounds *ret)
{
	char text[ADDR_TEXT_MAX];
	int err = 0;

	if (addr_is_unix(b->wanted))
		threads = 1;
	for (unsigned int t = 0; t < threads && !err; t++)
		err = bind_thread(b, t, old, ret);
	addr_format(&b->addr, text, sizeof(text));
	if (err)
		log_error("listener %s: %s: %s", b->conf->name, text, strerror(-err));
	else if (b->opened)
		log_notice("listener %s: listening on %s", b->conf->name, text);
	return err;
}

int bind_listeners(
	const struct conf *conf, unsigned int threads, struct bounds *old, struct bounds *ret)
{
	int err = 0;

	*ret = (struct bounds){0};
	for (unsigned int i = 0; old && i < old->n; i++)
		old->v[i].kept = false;
	for (unsigned int i = 0; i < conf->nlisteners && !err; i++)
		for (unsigned int j = 0; j < conf->listeners[i].binds.n && !err; j++) {
			const struct addr *addr = &conf->listeners[i].binds.v[j];
			struct binding binding = {&conf->listeners[i], i, addr, *addr, false};

			err = bind_addr(&binding, threads, old, ret);
		}
	if (!err)
		return 0;
	for (unsigned int i = 0; i < ret->n; i++)
		if (!ret->v[i].kept)
			close(ret->v[i].fd);
	free(ret->v);
	*ret = (struct bounds){0};
	return err;
}

static void close_some(struct bounds *bounds, bool all)
{
	for (unsigned int i = 0; i < bounds->n; i++) {
		const struct bound *bound = &bounds->v[i];

		if (bound->kept && !all)
			continue;
		close(bound->fd);
		if (addr_is_unix(&bound->addr) && bound->addr.un.sun_path[0])
			(void)unlink(bound->addr.un.sun_path);
	}
	free(bounds->v);
	*bounds = (struct bounds){0};
}

void bind_close(struct bounds *bounds)
{
	close_some(bounds, true);
}

void bind_close_replaced(struct bounds *old)
{
	close_some(old, false);
}

void bind_tune_kept(const struct conf *conf, const struct bounds *bounds)
{
	for (unsigned int i = 0; i < bounds->n; i++)
		if (bounds->v[i].kept && bounds->v[i].tcp)
			tune_tcp(bounds->v[i].fd, &conf->listeners[bounds->v[i].listener]);
}

int bind_service(const struct addr *addr, unsigned int mode)
{
	if (addr_is_unix(addr))
		return open_unix(addr, mode);
	return open_tcp(addr, &(struct conf_bind_options){0}, false);
}
