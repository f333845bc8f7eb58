/* SPDX-License-Identifier: BSD-2-Clause */
#include "operator.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "log.h"
#include "snapshot.h"

#define CALL_TIMEOUT_MS 2000
#define RELOAD_TIMEOUT_S 20

/* --- views -------------------------------------------------------------------------------------
 */

static const struct conf *conf_get(void *arg, void **ret_hold)
{
	struct operator* op = arg;
	struct generation *generation = op->setup.view.current(op->setup.view.arg);

	*ret_hold = generation;
	return generation->conf;
}

static void conf_put(void *arg, void *hold)
{
	(void)arg;
	generation_unref(hold);
}

static void info(void *arg, struct api_info *ret)
{
	struct operator* op = arg;
	struct thread_shared *shared = op->setup.shared;
	struct generation *generation = op->setup.view.current(op->setup.view.arg);

	*ret = (struct api_info){
		.pid = op->setup.supervisor,
		.worker_pid = getpid(),
		.threads = shared->nthreads,
		.generation = generation->number,
		.kernel_path = shared->bpf != NULL,
		.kernel_path_why =
			shared->bpf ? NULL : "switched off at start; see the log or --probe",
		.draining = op->draining,
		.not_ready = op->not_ready,
		.max_sessions = shared->max_sessions,
		.sessions = shared->sessions,
	};
	generation_unref(generation);
}

static void refresh(void *arg)
{
	struct operator* op = arg;

	view_refresh(&op->setup.view);
}

static int metrics(void *arg, bool openmetrics, char **ret_body, size_t *ret_len)
{
	struct operator* op = arg;

	return view_render(&op->setup.view, openmetrics, ret_body, ret_len);
}

static int sessions(void *arg, struct api_session **ret, size_t *ret_n)
{
	struct operator* op = arg;

	return snapshot_take(op->setup.shared, ret, ret_n);
}

static bool ready(void *arg, char *why, size_t size)
{
	struct operator* op = arg;

	if (op->draining)
		snprintf(why, size, "draining");
	else if (op->not_ready)
		snprintf(why, size, "an operator said not-ready");
	return !op->draining && !op->not_ready;
}

/* --- changes -----------------------------------------------------------------------------------
 */

struct closing {
	uint64_t id;
	bool found;
};

static void close_cb(struct thread *thread, void *arg)
{
	struct closing *closing = arg;

	if (!session_close(&thread->home, closing->id))
		closing->found = true;
}

static int close_session(void *arg, uint64_t id)
{
	struct operator* op = arg;
	struct closing *closing = calloc(1, sizeof(*closing));
	struct thread_call *call;
	int err = -ETIMEDOUT;

	if (!closing)
		return -ENOMEM;
	closing->id = id;
	call = thread_call(op->setup.shared, close_cb, closing, free);
	if (!call)
		return -ENOMEM;
	if (thread_call_wait(call, CALL_TIMEOUT_MS))
		err = closing->found ? 0 : -ENOENT;
	thread_call_done(call);
	return err;
}

static int wait_reloaded(struct operator* op, char *why, size_t size)
{
	struct timespec deadline;
	int err = 0;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += RELOAD_TIMEOUT_S;
	while (!op->reload_answered && !err)
		err = pthread_cond_timedwait(&op->cond, &op->mutex, &deadline);
	op->reload_waiting = false;
	if (err) {
		snprintf(why, size, "no answer yet; the log will say how it ended");
		return -ETIMEDOUT;
	}
	snprintf(why, size, "%s", op->reload_why);
	return op->reload_why[0] ? -EINVAL : 0;
}

static int reload(void *arg, char *why, size_t size)
{
	struct operator* op = arg;
	int err;

	pthread_mutex_lock(&op->mutex);
	op->reload_answered = false;
	op->reload_waiting = true;
	err = channel_send(op->setup.channel_fd, CHANNEL_RELOAD, 0, -1, NULL);
	err = err ?: wait_reloaded(op, why, size);
	pthread_mutex_unlock(&op->mutex);
	return err;
}

void operator_reloaded(struct operator* op, const char *why)
{
	pthread_mutex_lock(&op->mutex);
	if (op->reload_waiting) {
		snprintf(op->reload_why, sizeof(op->reload_why), "%s", why);
		op->reload_answered = true;
		pthread_cond_signal(&op->cond);
	}
	pthread_mutex_unlock(&op->mutex);
}

static int ask_drain(void *arg)
{
	struct operator* op = arg;

	return channel_send(op->setup.channel_fd, CHANNEL_DRAIN_ASKED, 0, -1, NULL);
}

static int set_ready(void *arg, bool is_ready)
{
	struct operator* op = arg;

	op->not_ready = !is_ready;
	return 0;
}

static int set_log_level(void *arg, enum log_level level)
{
	struct operator* op = arg;

	log_set_level(level);
	return channel_send(op->setup.channel_fd, CHANNEL_LOG_LEVEL, level, -1, NULL);
}

static void server_changed(void *arg, unsigned int slot)
{
	struct operator* op = arg;

	health_server_changed(op->setup.health, slot);
}

/* --- start and stop ----------------------------------------------------------------------------
 */

static void init(struct operator* op)
{
	op->source = (struct api_source){
		.arg = op,
		.stats = op->setup.shared->stats,
		.version = SHUNT_VERSION,
		.conf_get = conf_get,
		.conf_put = conf_put,
		.info = info,
		.refresh = refresh,
		.metrics = metrics,
		.sessions = sessions,
		.ready = ready,
	};
	op->control = (struct control){
		.source = &op->source,
		.ops =
			{
				.arg = op,
				.close_session = close_session,
				.reload = reload,
				.drain = ask_drain,
				.set_ready = set_ready,
				.set_log_level = set_log_level,
				.server_changed = server_changed,
			},
	};
	pthread_mutex_init(&op->mutex, NULL);
	pthread_cond_init(&op->cond, NULL);
}

int operator_start(struct operator* op, const struct operator_setup *setup)
{
	struct http_handlers reading = {.handle = api_handle, .arg = &op->source};
	struct http_handlers writing = {
		.handle = control_handle,
		.arg = &op->control,
		.writable = true,
	};
	int err = 0;

	op->setup = *setup;
	init(op);
	if (setup->nstats_fds)
		err = http_start(setup->stats_fds, setup->nstats_fds, &reading, &op->http);
	if (!err && setup->control_fd >= 0)
		err = http_start(&setup->control_fd, 1, &writing, &op->control_http);
	return err;
}

void operator_stop(struct operator* op)
{
	http_stop(op->control_http);
	http_stop(op->http);
}
