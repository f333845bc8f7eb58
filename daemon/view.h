/* SPDX-License-Identifier: BSD-2-Clause */
/* Collects what the HTTP side shows: asks every thread to bring its counters up to date first. */
#ifndef SHUNT_VIEW_H
#define SHUNT_VIEW_H

#include "thread.h"

struct view {
	struct thread_shared *shared;
	/* The generation of now, with a reference for the caller. Any thread. */
	struct generation *(*current)(void *arg);
	void *arg;
};

/* Brings the counters of all threads up to date; waits at most a second. On an HTTP thread. */
void view_refresh(struct view *view);

/* On an HTTP thread. 0 with a malloc()ed text, or negative errno. Waits at most a second for a
 * thread. */
int view_render(struct view *view, bool openmetrics, char **ret_body, size_t *ret_len);

#endif
