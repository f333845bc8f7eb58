/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns a reload on its way: prepared, sent to the worker, taken or given up. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "channel.h"
#include "handover.h"
#include "log.h"
#include "supervisor_state.h"

static void reload_failed(struct supervisor *sup, const char *why)
{
	log_error("reload failed, nothing changed: %s", why);
	stats_add(&sup->setup.stats->config_reloads_error, 1);
	(void)sd_notifyf(0, "READY=1\nSTATUS=Reload failed: %s", why);
	(void)!channel_send(sup->channel_fds[0], CHANNEL_RELOADED, 0, -1, why);
}

/* The worker serves it: the old one is history. */
static void reload_done(struct supervisor *sup)
{
	bind_tune_kept(sup->reload.conf, &sup->reload.bounds);
	bind_close_replaced(&sup->bounds);
	sup->bounds = sup->reload.bounds;
	for (unsigned int i = 0; i < sup->bounds.n; i++)
		sup->bounds.v[i].kept = false;
	conf_free(sup->conf);
	sup->conf = sup->reload.conf;
	sup->setup.conf = sup->conf;
	log_set_level(sup->conf->log_level);
	free(sup->reload.text);
	sup->reload = (struct reload){0};
	log_notice("reload done: generation %llu", (unsigned long long)sup->generation);
	sup->generation = 0;
	stats_add(&sup->setup.stats->config_reloads_ok, 1);
	(void)sd_notify(0, "READY=1\nSTATUS=Serving");
	(void)!channel_send(sup->channel_fds[0], CHANNEL_RELOADED, 0, -1, NULL);
}

void supervisor_reload_abort(struct supervisor *sup, const char *why)
{
	sup->generation = 0;
	reload_abandon(&sup->reload);
	reload_failed(sup, why);
}

static int send_conf(struct supervisor *sup)
{
	const struct bounds *bounds = &sup->reload.bounds;
	int err = 0, fd;

	for (unsigned int i = 0; i < bounds->n && !err; i++)
		if (!bounds->v[i].kept)
			err = channel_send(sup->channel_fds[0], CHANNEL_SOCKET, bounds->v[i].id,
				bounds->v[i].fd, NULL);
	if (err)
		return err;
	fd = handover_write(sup->conf->source, sup->reload.text, sup->reload.len, bounds);
	if (fd < 0)
		return fd;
	err = channel_send(sup->channel_fds[0], CHANNEL_CONF, sup->generation, fd, NULL);
	close(fd);
	return err;
}

void supervisor_reload(struct supervisor *sup)
{
	char why[CHANNEL_TEXT_MAX];
	int err;

	if (sup->stopping)
		return;
	/* Not lost: done when the worker can be told. */
	if (sup->generation || !sup->ready) {
		sup->reload_again = true;
		return;
	}
	(void)sd_notifyf(
		0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(now_ns() / 1000));
	if (reload_prepare(
		    sup->conf, sup->setup.threads, &sup->bounds, &sup->reload, why, sizeof(why))) {
		reload_failed(sup, why);
		return;
	}
	sup->generation = ++sup->last_generation;
	err = stats_assign(sup->setup.stats, sup->reload.conf);
	err = err ?: send_conf(sup);
	if (err)
		supervisor_reload_abort(
			sup, err == -ENOSPC ? "too many listeners or servers" : strerror(-err));
}

void supervisor_reload_pending(struct supervisor *sup)
{
	if (!sup->reload_again)
		return;
	sup->reload_again = false;
	supervisor_reload(sup);
}

void supervisor_reload_taken(struct supervisor *sup, bool taken)
{
	if (taken)
		reload_done(sup);
	else
		supervisor_reload_abort(sup, "the worker could not take it; the log says why");
	supervisor_reload_pending(sup);
}
