/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns that a change is made, logged and answered. Must not know what requests look like. */
#include "control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api_json.h"
#include "api_totals.h"
#include "conf.h"
#include "http.h"

/* What was changed, for the log and for the answer. */
#define WHAT_MAX 320

struct change {
	const struct control *control;
	const struct control_request *request;
	char what[WHAT_MAX];
	char why[512]; /* filled by an op that fails */
};

static unsigned int status_of(int err)
{
	switch (-err) {
	case ENOENT:
		return 404;
	case EBUSY:
	case EALREADY:
		return 409;
	case EINVAL:
		return 422;
	case EOPNOTSUPP:
		return 501;
	case ETIMEDOUT:
		return 504;
	default:
		return 500;
	}
}

/* A name may hold what a terminal obeys, or what starts a new line of the log. */
static void hide_controls(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

static int not_supported(struct change *change)
{
	snprintf(change->why, sizeof(change->why), "not supported yet");
	return -EOPNOTSUPP;
}

/* By the joined name: a backend's name may hold a '/', and then two servers may have the same. */
static unsigned int find_server(
	const struct conf *conf, const char *wanted, const struct conf_server **ret)
{
	unsigned int found = 0;

	for (unsigned int i = 0; i < conf->nbackends; i++) {
		const struct conf_backend *backend = &conf->backends[i];
		size_t len = strlen(backend->name);

		if (strncmp(wanted, backend->name, len) || wanted[len] != '/')
			continue;
		for (unsigned int j = 0; j < backend->nservers; j++)
			if (!strcmp(wanted + len + 1, backend->servers[j].name)) {
				*ret = &backend->servers[j];
				found++;
			}
	}
	return found;
}

static unsigned int shown_weight(int32_t weight, const struct conf_server *server)
{
	return weight < 0 ? server->weight : (unsigned int)weight;
}

static void set_server(struct change *change, const struct conf_server *server)
{
	const struct control_request *request = change->request;
	struct server_state *state = &change->control->source->stats->server_state[server->slot];
	int used = snprintf(change->what, WHAT_MAX, "server %s:", request->server);

	if (request->has_state) {
		uint32_t old = atomic_exchange(&state->admin, (uint32_t)request->state);

		used += snprintf(change->what + used, WHAT_MAX - (size_t)used, " state %s -> %s%s",
			server_admin_names[MIN(old, (uint32_t)SERVER_MAINT)],
			server_admin_names[request->state], request->has_weight ? "," : "");
	}
	if (request->has_weight) {
		int32_t old = atomic_exchange(&state->weight, request->weight);

		snprintf(change->what + used, WHAT_MAX - (size_t)used, " weight %u%s -> %u%s",
			shown_weight(old, server), old < 0 ? " (configured)" : "",
			shown_weight(request->weight, server),
			request->weight < 0 ? " (configured)" : "");
	}
	if (change->control->ops.server_changed)
		change->control->ops.server_changed(change->control->ops.arg, server->slot);
}

static int change_server(struct change *change)
{
	const struct api_source *source = change->control->source;
	void *hold;
	const struct conf *conf = source->conf_get(source->arg, &hold);
	const struct conf_server *server = NULL;
	unsigned int found = find_server(conf, change->request->server, &server);

	/* Held meanwhile: a reload must not give the slot to another server. */
	if (found == 1)
		set_server(change, server);
	else
		snprintf(change->why, sizeof(change->why),
			found ? "'%s' is the name of more than one server"
			      : "there is no server '%s'",
			change->request->server);
	source->conf_put(source->arg, hold);
	if (found == 1)
		return 0;
	return found ? -EBUSY : -ENOENT;
}

static int close_session(struct change *change)
{
	const struct control_ops *ops = &change->control->ops;
	int err;

	if (!ops->close_session)
		return not_supported(change);
	err = ops->close_session(ops->arg, change->request->session);
	snprintf(change->what, WHAT_MAX, "session %" API_SESSION_ID ": closed",
		change->request->session);
	if (err == -ENOENT)
		snprintf(change->why, sizeof(change->why), "there is no session %" API_SESSION_ID,
			change->request->session);
	return err;
}

static unsigned int generation(const struct control *control)
{
	struct api_info info = {0};

	control->source->info(control->source->arg, &info);
	return info.generation;
}

static int reload(struct change *change)
{
	const struct control_ops *ops = &change->control->ops;
	unsigned int old = generation(change->control);
	int err;

	if (!ops->reload)
		return not_supported(change);
	err = ops->reload(ops->arg, change->why, sizeof(change->why));
	snprintf(change->what, WHAT_MAX, "reload: configuration %u -> %u", old,
		generation(change->control));
	return err;
}

static int upgrade(struct change *change)
{
	const struct control_ops *ops = &change->control->ops;

	if (!ops->upgrade)
		return not_supported(change);
	snprintf(change->what, WHAT_MAX, "upgrade: version %s -> new binary",
		change->control->source->version);
	return ops->upgrade(ops->arg, change->why, sizeof(change->why));
}

static int drain(struct change *change)
{
	const struct control_ops *ops = &change->control->ops;

	if (!ops->drain)
		return not_supported(change);
	snprintf(change->what, WHAT_MAX, "drain: serving -> draining");
	return ops->drain(ops->arg);
}

static int set_ready(struct change *change)
{
	const struct control_ops *ops = &change->control->ops;
	struct api_info info = {0};

	if (!ops->set_ready)
		return not_supported(change);
	change->control->source->info(change->control->source->arg, &info);
	snprintf(change->what, WHAT_MAX, "ready: %s -> %s", info.not_ready ? "not-ready" : "ready",
		change->request->ready ? "ready" : "not-ready");
	return ops->set_ready(ops->arg, change->request->ready);
}

static int set_log_level(struct change *change)
{
	const struct control_ops *ops = &change->control->ops;

	if (!ops->set_log_level)
		return not_supported(change);
	snprintf(change->what, WHAT_MAX, "log level: %s -> %s",
		control_level_names[log_get_level()], control_level_names[change->request->level]);
	return ops->set_log_level(ops->arg, change->request->level);
}

static int (*const acts[CONTROL_KIND_COUNT])(struct change *change) = {
	[CONTROL_SERVER] = change_server,
	[CONTROL_CLOSE_SESSION] = close_session,
	[CONTROL_RELOAD] = reload,
	[CONTROL_UPGRADE] = upgrade,
	[CONTROL_DRAIN] = drain,
	[CONTROL_READY] = set_ready,
	[CONTROL_LOG_LEVEL] = set_log_level,
};

static void log_change(const struct http_request *request, struct change *change)
{
	hide_controls(change->what);
	log_notice("control: uid %u, pid %d: %s", (unsigned int)request->uid, (int)request->pid,
		change->what);
}

/* Nothing has changed, but who asked is still of interest. */
static void log_refusal(const struct http_request *request, const char *why)
{
	char text[768];

	snprintf(text, sizeof(text), "%s %.128s refused: %s", request->method, request->path, why);
	hide_controls(text);
	log_info(
		"control: uid %u, pid %d: %s", (unsigned int)request->uid, (int)request->pid, text);
}

static int perform(const struct control *control, const struct control_request *parsed,
	const struct http_request *request, struct http_response *response)
{
	struct change change = {.control = control, .request = parsed};
	int err = acts[parsed->kind](&change);

	if (err < 0) {
		const char *why = change.why[0] ? change.why : strerror(-err);

		log_refusal(request, why);
		return api_respond_error(response, status_of(err), why);
	}
	log_change(request, &change);
	return api_respond_json(
		response, 200, json_pack("{s:o}", "result", api_json_text(change.what)));
}

int control_handle(void *arg, const struct http_request *request, struct http_response *response)
{
	const struct control *control = arg;
	struct control_request parsed;
	char err[256] = "";
	int status = control_parse(request->method, request->path, request->body, request->body_len,
		&parsed, err, sizeof(err));

	if (!status)
		return perform(control, &parsed, request, response);
	if (status == -ENOENT)
		return api_handle(control->source, request, response);
	if (status == 405)
		response->allow = "POST, DELETE";
	return api_respond_error(response, (unsigned int)status, err);
}
