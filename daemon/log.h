/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's log: one line per event to stderr, or with <N> priorities where stderr is the
 * journal. */
#ifndef SHUNT_LOG_H
#define SHUNT_LOG_H

#include "util.h"

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_NOTICE,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG
};

void log_init(void);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
void log_write(enum log_level level, const char *fmt, ...) PRINTF(2, 3);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) log_write(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                           \
	do {                                                     \
		if (log_get_level() >= LOG_LEVEL_DEBUG)          \
			log_write(LOG_LEVEL_DEBUG, __VA_ARGS__); \
	} while (0)

/* Errors repeat under load: true at most once a second per call site, with the count of those held
 * back. */
struct log_limit {
	uint64_t last_ns;
	unsigned int suppressed;
};
int log_limit_pass(struct log_limit *limit, unsigned int *ret_suppressed);

#endif
