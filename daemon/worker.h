/* SPDX-License-Identifier: BSD-2-Clause */
/* The unprivileged process that serves traffic: threads, HTTP, and the end of the supervisor's
 * orders. */
#ifndef SHUNT_WORKER_H
#define SHUNT_WORKER_H

#include "bind.h"
#include "bpf_obj.h"
#include "conf.h"
#include "priv.h"
#include "stats.h"

/* Made by the supervisor before the fork; the worker only reads it. */
struct worker_setup {
	struct conf *conf; /* the worker's from now on */
	struct stats *stats;
	struct bpf_obj *bpf; /* NULL: no kernel path */
	const struct bounds *bounds;
	const int *stats_fds;
	unsigned int nstats_fds;
	int control_fd; /* -1: none */
	struct priv_user user;
	unsigned int threads;
	uint32_t max_sessions;
	int channel_fd;
	pid_t supervisor;
};

/* The whole life of the worker process. Returns its exit status. */
int worker_main(const struct worker_setup *setup);

#endif
