/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages between supervisor and worker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../daemon/channel.h"

static int fds[2];

static int setup(void **state)
{
	(void)state;
	return channel_open(fds);
}

static int teardown(void **state)
{
	(void)state;
	close(fds[0]);
	close(fds[1]);
	return 0;
}

static void a_message_arrives_whole(void **state)
{
	struct channel_message message;
	int fd = 0;

	(void)state;
	assert_int_equal(channel_send(fds[0], CHANNEL_RELOADED, 1ull << 40, -1, "because"), 0);
	assert_int_equal(channel_receive(fds[1], &message, &fd), 0);
	assert_int_equal(message.kind, CHANNEL_RELOADED);
	assert_true(message.value == 1ull << 40);
	assert_string_equal(message.text, "because");
	assert_int_equal(fd, -1);
	assert_int_equal(channel_receive(fds[1], &message, &fd), -EAGAIN);
}

static void a_descriptor_comes_along_and_is_close_on_exec(void **state)
{
	struct channel_message message;
	char byte = 0;
	int pipe_fds[2], fd = -1;

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(channel_send(fds[0], CHANNEL_SOCKET, 1, pipe_fds[1], NULL), 0);
	close(pipe_fds[1]);
	assert_int_equal(channel_receive(fds[1], &message, &fd), 0);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	close(pipe_fds[0]);
}

static void a_text_that_is_too_long_is_cut_and_terminated(void **state)
{
	struct channel_message message;
	char text[CHANNEL_TEXT_MAX * 2];
	int fd;

	(void)state;
	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(channel_send(fds[0], CHANNEL_RELOADED, 0, -1, text), 0);
	assert_int_equal(channel_receive(fds[1], &message, &fd), 0);
	assert_int_equal(strlen(message.text), CHANNEL_TEXT_MAX - 1);
}

static void the_end_of_the_other_side_is_seen(void **state)
{
	struct channel_message message;
	int fd;

	(void)state;
	close(fds[0]);
	assert_int_equal(channel_receive(fds[1], &message, &fd), -EPIPE);
	fds[0] = -1;
}

static void malformed_messages_are_refused_one_by_one(void **state)
{
	struct channel_message message = {.kind = CHANNEL_READY};
	int fd;

	(void)state;
	assert_int_equal(send(fds[0], &message, sizeof(message) - 1, 0), sizeof(message) - 1);
	assert_int_equal(channel_receive(fds[1], &message, &fd), -EPROTO);
	message.kind = 0;
	(void)!send(fds[0], &message, sizeof(message), 0);
	assert_int_equal(channel_receive(fds[1], &message, &fd), -EPROTO);
	message.kind = CHANNEL_KIND_END;
	(void)!send(fds[0], &message, sizeof(message), 0);
	assert_int_equal(channel_receive(fds[1], &message, &fd), -EPROTO);
	message.kind = CHANNEL_READY;
	memset(message.text, 'x', sizeof(message.text)); /* not terminated */
	(void)!send(fds[0], &message, sizeof(message), 0);
	assert_int_equal(channel_receive(fds[1], &message, &fd), -EPROTO);
	assert_int_equal(channel_send(fds[0], CHANNEL_READY, 5, -1, NULL), 0);
	assert_int_equal(channel_receive(fds[1], &message, &fd), 0);
	assert_int_equal(message.value, 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_message_arrives_whole),
		TEST(a_descriptor_comes_along_and_is_close_on_exec),
		TEST(a_text_that_is_too_long_is_cut_and_terminated),
		TEST(the_end_of_the_other_side_is_seen),
		TEST(malformed_messages_are_refused_one_by_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
