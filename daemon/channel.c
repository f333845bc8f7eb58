/* SPDX-License-Identifier: BSD-2-Clause */
#include "channel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int channel_open(int ret_fds[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) < 0 ? -errno : 0;
}

union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(sizeof(int))];
};

int channel_send(int fd, enum channel_kind kind, uint64_t value, int pass_fd, const char *text)
{
	struct channel_message message = {.kind = kind, .value = value};
	struct iovec iov = {.iov_base = &message, .iov_len = sizeof(message)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control = {0};
	ssize_t n;

	if (text)
		snprintf(message.text, sizeof(message.text), "%s", text);
	if (pass_fd >= 0) {
		control.header = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&control.header), &pass_fd, sizeof(int));
		msg.msg_control = control.room;
		msg.msg_controllen = sizeof(control.room);
	}
	do {
		n = sendmsg(fd, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == sizeof(message) ? 0 : -EPROTO;
}

static int take_fd(struct msghdr *msg)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(msg);
	int fd = -1;

	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
		header->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(header), sizeof(int));
	return fd;
}

static int check(const struct channel_message *message, ssize_t n, int flags)
{
	if (n != sizeof(*message) || flags & (MSG_TRUNC | MSG_CTRUNC))
		return -EPROTO;
	if (message->kind < CHANNEL_READY || message->kind >= CHANNEL_KIND_END)
		return -EPROTO;
	return memchr(message->text, 0, sizeof(message->text)) ? 0 : -EPROTO;
}

int channel_receive(int fd, struct channel_message *ret, int *ret_fd)
{
	struct channel_message message;
	struct iovec iov = {.iov_base = &message, .iov_len = sizeof(message)};
	union control control;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.room,
		.msg_controllen = sizeof(control.room),
	};
	int passed, err;
	ssize_t n;

	do {
		n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n == 0)
		return -EPIPE;
	passed = take_fd(&msg);
	err = check(&message, n, msg.msg_flags);
	if (err) {
		if (passed >= 0)
			close(passed);
		return err;
	}
	*ret = message;
	*ret_fd = passed;
	return 0;
}
