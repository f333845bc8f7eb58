/* SPDX-License-Identifier: BSD-2-Clause */
/* What the HTTP side asks of the worker: views of it, and an operator's changes. Runs on HTTP's
 * threads. */
#ifndef SHUNT_OPERATOR_H
#define SHUNT_OPERATOR_H

#include "api.h"
#include "control.h"
#include "health.h"
#include "http.h"
#include "view.h"

struct operator_setup {
	struct thread_shared *shared;
	struct view view;
	struct health *health;
	int channel_fd;
	pid_t supervisor;
	const int *stats_fds; /* stay the caller's */
	unsigned int nstats_fds;
	int control_fd; /* -1: none */
};

struct operator
{
	struct operator_setup setup;
	struct api_source source;
	struct control control;
	struct http *http, *control_http;
	_Atomic bool draining, not_ready;
	pthread_mutex_t mutex; /* of what follows: a reload that somebody waits for */
	pthread_cond_t cond;
	bool reload_waiting, reload_answered;
	char reload_why[256];
};

/* Starts serving HTTP. 0 or negative errno; operator_stop() in any case. */
MUST_CHECK int operator_start(struct operator* op, const struct operator_setup *setup);
void operator_stop(struct operator* op);

/* The supervisor's answer: why is empty when the reload was done. */
void operator_reloaded(struct operator* op, const char *why);

#endif
