/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections at a rate that a Python program cannot make.
 *
 *   flood connect HOST PORT RATE SECONDS   RATE connections a second; each sends a message, checks
 * that it comes back, and closes. The first SIGTERM ends the sending. flood serve FD echoes on
 * every connection of a listening socket. SIGUSR1: closes the emptied listening socket; SIGUSR2:
 * opens it again; each says so.
 *
 * connect prints one line: started=N ok=N refused=N reset=N eof=N wrong=N timeout=N other=N
 * max_ms=N late_ms=N Emptied: new SYNs are dropped, then what waits is accepted, then it is closed.
 * So no connection that the kernel has accepted is reset, as a server would do it that cares.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 64
#define FDS 65536
#define TIMEOUT_MS 10000
#define QUIET_MS 30

static void die(const char *what)
{
	fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void watch(int epoll_fd, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl");
}

static int signals(int a, int b)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, a);
	if (b)
		sigaddset(&set, b);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* --- serve --- */

static void take_one(int epoll_fd, int listen_fd)
{
	int on = 1, fd = accept(listen_fd, NULL, NULL);

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	watch(epoll_fd, fd, EPOLLIN);
}

/* Drops SYNs; everything else, handshakes that have begun included, passes. */
static void drop_syns(int fd)
{
	struct sock_filter code[] = {
		{BPF_LD | BPF_B | BPF_ABS, 0, 0, 13},
		{BPF_ALU | BPF_AND | BPF_K, 0, 0, 0x12},
		{BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0x02},
		{BPF_RET | BPF_K, 0, 0, 0},
		{BPF_RET | BPF_K, 0, 0, 0xffffffff},
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)))
		die("SO_ATTACH_FILTER");
}

static void shut(int epoll_fd, int *listen_fd)
{
	struct pollfd poller = {.fd = *listen_fd, .events = POLLIN};

	drop_syns(*listen_fd);
	while (poll(&poller, 1, QUIET_MS) > 0)
		take_one(epoll_fd, *listen_fd);
	close(*listen_fd);
	*listen_fd = -1;
	puts("closed");
	fflush(stdout);
}

static int reopen(const struct sockaddr_in *addr)
{
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (const void *)addr, sizeof(*addr)) || listen(fd, 4096))
		die("listen");
	puts("open");
	fflush(stdout);
	return fd;
}

static void echo(int fd)
{
	static char buf[1 << 16];
	ssize_t got = recv(fd, buf, sizeof(buf), 0);

	if (got <= 0) {
		close(fd);
		return;
	}
	for (ssize_t done = 0, put; done < got; done += put)
		if ((put = send(fd, buf + done, (size_t)(got - done), MSG_NOSIGNAL)) < 0)
			return;
}

static _Noreturn void serve(int listen_fd)
{
	int signal_fd = signals(SIGUSR1, SIGUSR2), epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);

	if (getsockname(listen_fd, (void *)&addr, &len))
		die("getsockname");
	watch(epoll_fd, listen_fd, EPOLLIN);
	watch(epoll_fd, signal_fd, EPOLLIN);
	for (;;) {
		struct epoll_event events[64];
		int n = epoll_wait(epoll_fd, events, 64, -1);

		for (int i = 0; i < n; i++) {
			struct signalfd_siginfo info;

			if (events[i].data.fd == listen_fd) {
				take_one(epoll_fd, listen_fd);
			} else if (events[i].data.fd != signal_fd) {
				echo(events[i].data.fd);
			} else if (read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
				if (info.ssi_signo == SIGUSR1 && listen_fd >= 0)
					shut(epoll_fd, &listen_fd);
				else if (info.ssi_signo == SIGUSR2 && listen_fd < 0)
					watch(epoll_fd, listen_fd = reopen(&addr), EPOLLIN);
			}
		}
	}
}

/* --- connect --- */

static struct conn {
	uint64_t started;
	uint32_t number;
	uint8_t got; /* bytes that have come back */
	bool open, sent;
} conns[FDS];

static struct {
	unsigned int started, ok, refused, reset, eof, wrong, timeout, other, open;
	uint64_t max_us, late_us;
} seen;

static uint8_t message_byte(uint32_t number, unsigned int i)
{
	return (uint8_t)((number * 2654435761u + i * 40503u) >> 8);
}

static void finish(int fd, unsigned int *counter)
{
	uint64_t took = now_us() - conns[fd].started;

	(*counter)++;
	if (counter == &seen.ok && took > seen.max_us)
		seen.max_us = took;
	if (counter != &seen.ok && counter != &seen.refused)
		fprintf(stderr, "connection %u: %s after %llu us, %d bytes were back\n",
			conns[fd].number,
			counter == &seen.reset	   ? "reset"
			: counter == &seen.eof	   ? "eof"
			: counter == &seen.wrong   ? "wrong bytes"
			: counter == &seen.timeout ? "timeout"
						   : strerror(errno),
			(unsigned long long)took, conns[fd].got);
	conns[fd].open = false;
	seen.open--;
	close(fd);
}

static unsigned int *failure(int err)
{
	if (err == ECONNREFUSED)
		return &seen.refused;
	return err == ECONNRESET || err == EPIPE ? &seen.reset : &seen.other;
}

static void begin(int epoll_fd, const struct sockaddr_in *addr)
{
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || fd >= FDS)
		die("socket");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	conns[fd] = (struct conn){.started = now_us(), .number = seen.started++, .open = true};
	seen.open++;
	if (connect(fd, (const void *)addr, sizeof(*addr)) && errno != EINPROGRESS)
		finish(fd, failure(errno));
	else
		watch(epoll_fd, fd, EPOLLOUT | EPOLLIN);
}

static void say(int epoll_fd, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	uint8_t buf[MESSAGE];

	for (unsigned int i = 0; i < MESSAGE; i++)
		buf[i] = message_byte(conns[fd].number, i);
	conns[fd].sent = true;
	if (send(fd, buf, sizeof(buf), MSG_NOSIGNAL) != MESSAGE)
		finish(fd, failure(errno));
	else
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event);
}

static void hear(int fd)
{
	uint8_t buf[MESSAGE + 1];
	ssize_t got = recv(fd, buf, sizeof(buf), 0);

	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		finish(fd, got ? failure(errno) : &seen.eof);
		return;
	}
	for (ssize_t i = 0; i < got; i++)
		if (conns[fd].got >= MESSAGE ||
			buf[i] != message_byte(conns[fd].number, conns[fd].got++)) {
			finish(fd, &seen.wrong);
			return;
		}
	if (conns[fd].got == MESSAGE)
		finish(fd, &seen.ok);
}

static void step(int epoll_fd, int fd, uint32_t events)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (!conns[fd].open)
		return;
	if (events & EPOLLERR && !getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) && err)
		finish(fd, failure(err));
	else if (!conns[fd].sent && events & EPOLLOUT)
		say(epoll_fd, fd);
	else
		hear(fd);
}

static void expire(void)
{
	uint64_t now = now_us();

	for (int fd = 0; fd < FDS; fd++)
		if (conns[fd].open && now - conns[fd].started > TIMEOUT_MS * 1000ull)
			finish(fd, &seen.timeout);
}

static int flood(const char *host, int port, uint64_t rate, uint64_t seconds)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int signal_fd = signals(SIGTERM, 0), epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	uint64_t start = now_us(), total = rate * seconds;
	bool ending = false;

	if (inet_pton(AF_INET, host, &addr.sin_addr) != 1)
		die("host");
	watch(epoll_fd, signal_fd, EPOLLIN);
	while ((!ending && seen.started < total) || seen.open) {
		uint64_t due = (now_us() - start) * rate / 1000000;
		struct epoll_event events[256];
		int n;

		for (unsigned int k = 0;
			!ending && seen.started < due && seen.started < total && k < 64; k++) {
			uint64_t late = now_us() - start - (uint64_t)seen.started * 1000000 / rate;

			if (late > seen.late_us)
				seen.late_us = late;
			begin(epoll_fd, &addr);
		}
		n = epoll_wait(epoll_fd, events, 256, 1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == signal_fd)
				ending = true;
			else
				step(epoll_fd, events[i].data.fd, events[i].events);
		}
		if (n == 0)
			expire();
	}
	printf("started=%u ok=%u refused=%u reset=%u eof=%u wrong=%u timeout=%u other=%u "
	       "max_ms=%llu late_ms=%llu\n",
		seen.started, seen.ok, seen.refused, seen.reset, seen.eof, seen.wrong, seen.timeout,
		seen.other, (unsigned long long)seen.max_us / 1000,
		(unsigned long long)seen.late_us / 1000);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	if (argc == 6 && !strcmp(argv[1], "connect"))
		return flood(
			argv[2], atoi(argv[3]), (uint64_t)atoi(argv[4]), (uint64_t)atoi(argv[5]));
	fprintf(stderr, "usage: flood serve FD | flood connect HOST PORT RATE SECONDS\n");
	return 2;
}
