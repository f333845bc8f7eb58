/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the log level and the line format. Must not know what the lines are about. */
#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_NOTICE] = "notice",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

/* syslog(3) priorities, as systemd reads them from the start of a line. */
static const int level_priority[] = {
	[LOG_LEVEL_ERROR] = 3,
	[LOG_LEVEL_WARNING] = 4,
	[LOG_LEVEL_NOTICE] = 5,
	[LOG_LEVEL_INFO] = 6,
	[LOG_LEVEL_DEBUG] = 7,
};

static _Atomic int current_level = LOG_LEVEL_INFO;
static int to_journal;

/* systemd sets JOURNAL_STREAM to "device:inode" of the stream it gave us; stderr may have been
 * redirected since. */
static int stderr_is_journal(void)
{
	const char *env = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (!env || sscanf(env, "%llu:%llu", &dev, &ino) != 2 || fstat(STDERR_FILENO, &st) < 0)
		return 0;
	return st.st_dev == dev && st.st_ino == ino;
}

void log_init(void)
{
	to_journal = stderr_is_journal();
}

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
	return (enum log_level)atomic_load_explicit(&current_level, memory_order_relaxed);
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int len, used;

	if (level > log_get_level())
		return;
	if (to_journal)
		used = snprintf(line, sizeof(line), "<%d>", level_priority[level]);
	else
		used = snprintf(
			line, sizeof(line), "shuntd[%d]: %s: ", (int)getpid(), level_names[level]);
	va_start(ap, fmt);
	len = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, fmt, ap);
	va_end(ap);
	if (len < 0)
		return;
	used += MIN(len, (int)sizeof(line) - used - 2);
	line[used++] = '\n';
	/* One write per line, so lines of the two processes and of the threads do not mix. */
	if (write(STDERR_FILENO, line, (size_t)used) < 0)
		return;
}

int log_limit_pass(struct log_limit *limit, unsigned int *ret_suppressed)
{
	uint64_t now = now_ns();

	if (limit->last_ns && now - limit->last_ns < 1000000000ull) {
		limit->suppressed++;
		return 0;
	}
	*ret_suppressed = limit->suppressed;
	limit->suppressed = 0;
	limit->last_ns = now;
	return 1;
}
