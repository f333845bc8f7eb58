/* SPDX-License-Identifier: BSD-2-Clause */
/* Between supervisor*.c only. */
#ifndef SHUNT_SUPERVISOR_STATE_H
#define SHUNT_SUPERVISOR_STATE_H

#include <ev.h>
#include <sys/types.h>

#include "bind.h"
#include "bpf_obj.h"
#include "reload.h"
#include "worker.h"

#define SUPERVISOR_DEATHS_MAX 5

struct supervisor {
	struct conf *conf;
	struct worker_setup setup;
	struct bpf_obj bpf;
	struct bounds bounds;
	int *stats_fds;
	struct addr *stats_addrs; /* of stats_fds; a reload does not change them */
	struct addr control_addr;
	struct ev_loop *ev;
	ev_signal signals[5];
	ev_child child;
	ev_io channel;
	ev_timer restart;
	pid_t pid;
	int channel_fds[2];
	uint64_t deaths[SUPERVISOR_DEATHS_MAX]; /* when; a ring */
	unsigned int ndeaths;
	bool ready; /* the worker of now */
	bool ever_ready; /* any worker before */
	bool stopping;
	struct reload reload; /* on its way to the worker */
	uint64_t generation; /* the number it has; 0: none is on its way */
	uint64_t last_generation;
	bool reload_again; /* asked for meanwhile */
	int status;
};

/* A reload was asked for: starts it now, or when the worker can be told. */
void supervisor_reload(struct supervisor *sup);
/* The worker is ready, or has taken a configuration: goes on with what was asked for meanwhile. */
void supervisor_reload_pending(struct supervisor *sup);
/* The worker's answer to the reload under way. */
void supervisor_reload_taken(struct supervisor *sup, bool taken);
/* Nothing changes: the worker died, say. */
void supervisor_reload_abort(struct supervisor *sup, const char *why);

#endif
