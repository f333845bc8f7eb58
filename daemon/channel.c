/* SPDX-License-Identifier: BSD-2-Clause */
#include "channel.h"

#include <errno.h>
#include <sys/socket.h>

int channel_open(int ret_fds[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) < 0 ? -errno : 0;
}

int channel_send(int fd, enum channel_kind kind, uint64_t value)
{
	struct channel_message message = {.kind = kind, .value = value};
	ssize_t n = send(fd, &message, sizeof(message), MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0)
		return -errno;
	return n == sizeof(message) ? 0 : -EPROTO;
}

int channel_receive(int fd, struct channel_message *ret)
{
	struct channel_message message;
	ssize_t n;

	do {
		n = recv(fd, &message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n == 0)
		return -EPIPE;
	if (n != sizeof(message))
		return -EPROTO;
	*ret = message;
	return 0;
}
