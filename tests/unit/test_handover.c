/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration on its way to the worker: what arrives is what was sent, or is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../daemon/handover.h"

static struct bound bound[] = {
	{.id = 7, .fd = 3, .listener = 1, .thread = 2, .tcp = true},
	{.id = 1ull << 40, .fd = 4, .shared = true, .why = FALLBACK_UNIX},
};
static const struct bounds bounds = {.v = bound, .n = 2};
static const char text[] = "[global]\nthreads = 2\n";

static int written(void)
{
	return handover_write("a.conf", text, strlen(text), &bounds);
}

static void what_arrives_is_what_was_sent(void **state)
{
	struct handover handover;
	int fd = written();

	(void)state;
	assert_int_equal(handover_read(fd, &handover), 0);
	close(fd);
	assert_string_equal(handover.name, "a.conf");
	assert_string_equal(handover.text, text);
	assert_int_equal(handover.len, strlen(text));
	assert_int_equal(handover.nsockets, 2);
	assert_int_equal(handover.sockets[0].id, 7);
	assert_int_equal(handover.sockets[0].listener, 1);
	assert_int_equal(handover.sockets[0].thread, 2);
	assert_true(handover.sockets[0].tcp);
	assert_true(handover.sockets[1].id == 1ull << 40);
	assert_true(handover.sockets[1].shared);
	assert_int_equal(handover.sockets[1].why, FALLBACK_UNIX);
	handover_done(&handover);
}

static void it_cannot_be_changed_on_the_way(void **state)
{
	int fd = written();

	(void)state;
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(ftruncate(fd, 1), -1);
	close(fd);
}

/* Writes `len` bytes of a good one, with byte `at` set to `value`. */
static int damaged(size_t len, size_t at, unsigned char value)
{
	unsigned char copy[4096];
	int good = written();
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_in_range(pread(good, copy, sizeof(copy), 0), 1, sizeof(copy));
	close(good);
	copy[at] = value;
	assert_int_equal(write(fd, copy, len), len);
	return fd;
}

static size_t whole_size(void)
{
	int fd = written();
	off_t size = lseek(fd, 0, SEEK_END);

	close(fd);
	return (size_t)size;
}

static void every_truncation_is_refused(void **state)
{
	struct handover handover;

	(void)state;
	for (size_t len = 0; len < whole_size(); len++) {
		int fd = damaged(len, 0, 0x74);

		assert_int_equal(handover_read(fd, &handover), -EPROTO);
		close(fd);
	}
}

static void another_version_is_refused_as_such(void **state)
{
	struct handover handover;
	int fd = damaged(whole_size(), 4, HANDOVER_VERSION + 1);

	(void)state;
	assert_int_equal(handover_read(fd, &handover), -EINVAL);
	close(fd);
}

static void sizes_that_do_not_add_up_are_refused(void **state)
{
	static const size_t at[] = {8, 11, 12, 15, 16, 23}; /* nsockets, name_len, text_len */
	struct handover handover;

	(void)state;
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		int fd = damaged(whole_size(), at[i], 0xfe);

		assert_int_equal(handover_read(fd, &handover), -EPROTO);
		close(fd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_arrives_is_what_was_sent),
		cmocka_unit_test(it_cannot_be_changed_on_the_way),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(another_version_is_refused_as_such),
		cmocka_unit_test(sizes_that_do_not_add_up_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
