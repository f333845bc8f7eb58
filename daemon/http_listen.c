/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns when the HTTP server accepts. Must not know what happens to a connection. */
#include "http_listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define PAUSE_NS 100000000ull

/* Others may accept from the same socket and be faster: accept() must not wait then. */
static int watch(struct http_listen *listen, unsigned int index)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
	int flags = fcntl(listen->fds[index], F_GETFL);

	if (flags < 0 || fcntl(listen->fds[index], F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	if (epoll_ctl(listen->epoll_fd, EPOLL_CTL_ADD, listen->fds[index], &event) < 0)
		return -errno;
	return 0;
}

int http_listen_init(struct http_listen *listen, int epoll_fd, const int *fds, unsigned int n)
{
	unsigned int i;
	int r = 0;

	*listen = (struct http_listen){.epoll_fd = epoll_fd, .n = n};
	listen->fds = calloc(n, sizeof(*listen->fds));
	if (!listen->fds)
		return -ENOMEM;
	for (i = 0; i < n && !r; i++) {
		listen->fds[i] = fds[i];
		r = watch(listen, i);
	}
	return r;
}

void http_listen_done(struct http_listen *listen)
{
	free(listen->fds);
	listen->fds = NULL;
}

static void set_events(struct http_listen *listen, uint32_t events)
{
	struct epoll_event event = {.events = events};
	unsigned int i;

	for (i = 0; i < listen->n; i++) {
		event.data.u32 = i;
		epoll_ctl(listen->epoll_fd, EPOLL_CTL_MOD, listen->fds[i], &event);
	}
}

static void pause_accepting(struct http_listen *listen, int error)
{
	unsigned int suppressed;

	set_events(listen, 0);
	listen->paused_until_ns = now_ns() + PAUSE_NS;
	if (log_limit_pass(&listen->pause_log, &suppressed))
		log_warning("stats address: cannot accept: %s", strerror(error));
}

int http_listen_accept(struct http_listen *listen, unsigned int index,
	struct sockaddr_storage *ret_addr, socklen_t *ret_len)
{
	int fd;

	*ret_len = sizeof(*ret_addr);
	fd = accept4(listen->fds[index], (struct sockaddr *)ret_addr, ret_len,
		SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0)
		return fd;
	switch (errno) {
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		pause_accepting(listen, errno);
		break;
	case EBADF:
	case EINVAL:
	case ENOTSOCK:
		log_error("stats address: no longer listening: %s", strerror(errno));
		epoll_ctl(listen->epoll_fd, EPOLL_CTL_DEL, listen->fds[index], NULL);
		break;
	default: /* nobody waits, or an error of a connection that is gone: an event tells of the
		    next */
		break;
	}
	return -1;
}

uint64_t http_listen_deadline_ns(const struct http_listen *listen)
{
	return listen->paused_until_ns ? listen->paused_until_ns : UINT64_MAX;
}

void http_listen_resume_when_due(struct http_listen *listen)
{
	if (!listen->paused_until_ns || now_ns() < listen->paused_until_ns)
		return;
	listen->paused_until_ns = 0;
	set_events(listen, EPOLLIN);
}
