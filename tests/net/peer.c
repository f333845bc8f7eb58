/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Message traffic at a rate that a Python program cannot keep up without being the bottleneck.
 *
 *   peer echo FD                                    answers on every connection of a listening
 * socket peer rate HOST PORT SESSIONS RATE SECONDS SIZE  sends RATE messages a second on each
 * session
 *
 * rate prints one line: sent=N echoed=N wrong=N offset=N p50_us=N p99_us=N max_us=N
 * Byte i of a stream is the low byte of word i/8 mixed, so that loss, repetition and reordering
 * show.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_MAX 16384
#define IN_FLIGHT_MAX 4096

static void die(const char *what)
{
	fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint8_t stream_byte(uint64_t seed, uint64_t i)
{
	uint64_t word = (i / 8 + seed * 0x9E3779B97F4A7C15ull) * 0xBF58476D1CE4E5B9ull;

	word ^= word >> 29;
	return (uint8_t)(word >> (i % 8 * 8));
}

static void watch(int epoll_fd, int fd, uint32_t number)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl");
}

static void nodelay(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static _Noreturn void echo(int listen_fd)
{
	int epoll_fd = epoll_create1(0);
	static char buf[1 << 16];

	watch(epoll_fd, listen_fd, (uint32_t)listen_fd);
	for (;;) {
		struct epoll_event events[64];
		int n = epoll_wait(epoll_fd, events, 64, -1);

		for (int i = 0; i < n; i++) {
			int fd = (int)events[i].data.u32;

			if (fd == listen_fd) {
				fd = accept(listen_fd, NULL, NULL);
				if (fd >= 0) {
					nodelay(fd);
					watch(epoll_fd, fd, (uint32_t)fd);
				}
				continue;
			}
			ssize_t got = recv(fd, buf, sizeof(buf), 0);

			if (got <= 0)
				close(fd);
			for (ssize_t done = 0, put; done < got; done += put)
				if ((put = send(fd, buf + done, (size_t)(got - done),
					     MSG_NOSIGNAL)) < 0)
					break;
		}
	}
}

struct session {
	int fd;
	uint64_t sent, received; /* bytes */
	uint64_t sent_at[IN_FLIGHT_MAX]; /* by message number */
};

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int connect_to(const char *host, int port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (inet_pton(AF_INET, host, &addr.sin_addr) != 1 ||
		connect(fd, (void *)&addr, sizeof(addr)))
		die("connect");
	nodelay(fd);
	return fd;
}

static void send_message(struct session *session, uint64_t seed, size_t size)
{
	uint8_t buf[MESSAGE_MAX];

	for (size_t i = 0; i < size; i++)
		buf[i] = stream_byte(seed, session->sent + i);
	session->sent_at[session->sent / size % IN_FLIGHT_MAX] = now_ns();
	if (send(session->fd, buf, size, MSG_NOSIGNAL) != (ssize_t)size)
		die("send");
	session->sent += size;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "echo"))
		echo(atoi(argv[2]));
	if (argc != 8 || strcmp(argv[1], "rate")) {
		fprintf(stderr,
			"usage: peer echo FD | peer rate HOST PORT SESSIONS RATE SECONDS SIZE\n");
		return 2;
	}
	uint32_t count = (uint32_t)atoi(argv[4]);
	uint64_t rate = (uint64_t)atoi(argv[5]), total = rate * (uint64_t)atoi(argv[6]);
	size_t size = (size_t)atoi(argv[7]);
	struct session *sessions = calloc(count, sizeof(*sessions));
	uint32_t *latency = calloc(count * total, sizeof(*latency));
	uint64_t messages = 0, echoed = 0, wrong = 0, first_wrong = 0, ticks = 0;
	int epoll_fd = epoll_create1(0), timer_fd = timerfd_create(CLOCK_MONOTONIC, 0);
	struct itimerspec period = {
		.it_value.tv_nsec = 1, .it_interval.tv_nsec = (long)(1000000000 / rate)};
	static uint8_t buf[1 << 16];

	if (!sessions || !latency || !size || size > MESSAGE_MAX)
		die("arguments");
	for (uint32_t i = 0; i < count; i++) {
		sessions[i].fd = connect_to(argv[2], atoi(argv[3]));
		watch(epoll_fd, sessions[i].fd, i);
	}
	timerfd_settime(timer_fd, 0, &period, NULL);
	watch(epoll_fd, timer_fd, count);

	uint64_t deadline = now_ns() + ((uint64_t)atoi(argv[6]) + 10) * 1000000000;

	while (echoed < total * count && now_ns() < deadline) {
		struct epoll_event events[64];
		int n = epoll_wait(epoll_fd, events, 64, 100);

		for (int e = 0; e < n; e++) {
			uint32_t i = events[e].data.u32;

			if (i == count) {
				uint64_t expired = 0;

				if (read(timer_fd, &expired, sizeof(expired)) != sizeof(expired))
					die("timer");
				for (; expired && ticks < total; expired--, ticks++)
					for (uint32_t s = 0; s < count; s++, messages++)
						send_message(&sessions[s], s, size);
				continue;
			}
			struct session *session = &sessions[i];
			ssize_t got = recv(session->fd, buf, sizeof(buf), MSG_DONTWAIT);

			if (got < 0 && errno == EAGAIN)
				continue;
			if (got <= 0)
				die(got ? "recv" : "recv: unexpected end");
			uint64_t now = now_ns();

			for (ssize_t k = 0; k < got; k++) {
				uint64_t at = session->received++;

				if (buf[k] != stream_byte(i, at) && !wrong++)
					first_wrong = at;
				if (session->received % size == 0)
					latency[echoed++] =
						(uint32_t)((now - session->sent_at[at / size %
										   IN_FLIGHT_MAX]) /
							   1000);
			}
		}
	}
	qsort(latency, echoed, sizeof(*latency), compare);
	printf("sent=%llu echoed=%llu wrong=%llu offset=%llu p50_us=%u p99_us=%u max_us=%u\n",
		(unsigned long long)messages, (unsigned long long)echoed, (unsigned long long)wrong,
		(unsigned long long)first_wrong, echoed ? latency[echoed / 2] : 0,
		echoed ? latency[echoed * 99 / 100] : 0, echoed ? latency[echoed - 1] : 0);
	return wrong || echoed != messages;
}
