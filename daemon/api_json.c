/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the names and shapes of the API's objects; the only file of the daemon that makes JSON. */
#include "api_json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api_totals.h"
#include "conf.h"
#include "http.h"
#include "server_state.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* A name may be any bytes, JSON may not. */
json_t *api_json_text(const char *text)
{
	size_t len = text ? strlen(text) : 0, used = 0;
	json_t *string = text ? json_stringn(text, len) : json_null();
	char *repaired;

	if (string)
		return string;
	repaired = malloc(3 * len + 1);
	if (!repaired)
		return NULL;
	for (size_t i = 0; i < len;) {
		size_t n = MIN(len - i, (size_t)4);

		/* The longest form that is valid by itself, by the judge who has to take it. */
		for (; n; n--) {
			string = json_stringn(text + i, n);
			json_decref(string);
			if (string)
				break;
		}
		memcpy(repaired + used, n ? text + i : REPLACEMENT, n ? n : 3);
		used += n ? n : 3;
		i += n ? n : 1;
	}
	string = json_stringn(repaired, used);
	free(repaired);
	return string;
}

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)MIN(value, (uint64_t)INT64_MAX));
}

static json_t *addr_text(const struct addr *addr)
{
	char text[ADDR_TEXT_MAX];

	if (!addr->len)
		return json_null();
	addr_format(addr, text, sizeof(text));
	return api_json_text(text);
}

/* {"name": count, ...}: a closed list, so every name is there. */
static json_t *counts(const char *const *names, const uint64_t *values, unsigned int n)
{
	json_t *object = json_object();

	for (unsigned int i = 0; i < n; i++)
		if (json_object_set_new(object, names[i], number(values[i])) < 0) {
			json_decref(object);
			return NULL;
		}
	return object;
}

/* The reasons that can be: connect failures use a part of the end reasons. */
static json_t *connect_failures(const uint64_t *values)
{
	static const char prefix[] = "connect_";
	json_t *object = json_object();

	for (unsigned int i = 0; i < END_REASON_COUNT; i++)
		if (!strncmp(end_reason_names[i], prefix, strlen(prefix)) &&
			json_object_set_new(object, end_reason_names[i] + strlen(prefix),
				number(values[i])) < 0) {
			json_decref(object);
			return NULL;
		}
	return object;
}

static json_t *bytes_by_path(const uint64_t bytes[DIR_COUNT][PATH_COUNT])
{
	return json_pack("{s:o,s:o}", direction_names[DIR_C2S],
		counts(path_names, bytes[DIR_C2S], PATH_COUNT), direction_names[DIR_S2C],
		counts(path_names, bytes[DIR_S2C], PATH_COUNT));
}

json_t *api_json_info(
	const struct api_source *source, const struct conf *conf, const struct api_info *info)
{
	char why[256] = "";
	bool ready = api_is_ready(source, conf, why, sizeof(why));
	uint64_t now = (uint64_t)time(NULL), started = source->stats->start_time;

	return json_pack(
		"{s:s, s:i, s:i, s:I, s:I, s:i, s:i, s:b, s:o, s:b, s:o, s:b, s:b, s:I, s:I,"
		" s:I, s:I, s:I, s:o, s:i, s:i}",
		"version", source->version, "pid", (int)info->pid, "worker_pid",
		(int)info->worker_pid, "start_time", (json_int_t)started, "uptime_seconds",
		(json_int_t)(now > started ? now - started : 0), "threads", (int)info->threads,
		"generation", (int)info->generation, "kernel_path", info->kernel_path,
		"kernel_path_why", api_json_text(info->kernel_path ? NULL : info->kernel_path_why),
		"ready", ready, "ready_why", api_json_text(ready ? NULL : why), "draining",
		info->draining, "not_ready", info->not_ready, "sessions",
		(json_int_t)info->sessions, "max_sessions", (json_int_t)info->max_sessions,
		"worker_restarts", (json_int_t)stats_get(&source->stats->worker_restarts),
		"reloads_ok", (json_int_t)stats_get(&source->stats->config_reloads_ok),
		"reloads_error", (json_int_t)stats_get(&source->stats->config_reloads_error),
		"config", api_json_text(conf->source), "listeners", (int)conf->nlisteners,
		"backends", (int)conf->nbackends);
}

static json_t *binds(const struct conf_addrs *addrs)
{
	json_t *array = json_array();

	for (unsigned int i = 0; i < addrs->n; i++)
		if (json_array_append_new(array, addr_text(&addrs->v[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static json_t *listener_json(struct stats *stats, const struct conf_listener *listener)
{
	static const char *const modes[] = {
		[PATH_MODE_AUTO] = "auto",
		[PATH_MODE_SOCKMAP] = "sockmap",
		[PATH_MODE_RELAY] = "relay",
	};
	struct listener_totals totals = api_listener_totals(stats, listener->slot);

	return json_pack("{s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
		api_json_text(listener->name), "binds", binds(&listener->binds), "backend",
		api_json_text(listener->backend ? listener->backend->name : listener->backend_name),
		"path", modes[listener->path], "max_sessions",
		listener->max_sessions ? number(listener->max_sessions) : json_null(), "active",
		number(totals.active), "sessions", number(totals.sessions), "overflows",
		number(totals.overflows), "bytes", bytes_by_path(totals.bytes), "ended",
		counts(end_reason_names, totals.ended, END_REASON_COUNT), "rejected",
		counts(reject_reason_names, totals.rejected, REJECT_REASON_COUNT));
}

json_t *api_json_listeners(const struct api_source *source, const struct conf *conf)
{
	json_t *array = json_array();

	for (unsigned int i = 0; i < conf->nlisteners; i++)
		if (json_array_append_new(
			    array, listener_json(source->stats, &conf->listeners[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return json_pack("{s:o}", "listeners", array);
}

json_t *api_json_server(
	struct stats *stats, const struct conf_backend *backend, const struct conf_server *server)
{
	struct server_view view = api_server_view(stats, server);
	struct server_totals totals = api_server_totals(stats, server->slot);
	json_t *check = backend->check == CHECK_OFF
				? json_null()
				: json_pack("{s:o, s:o}", "successes", number(view.check_successes),
					  "failures", number(view.check_failures));

	return json_pack(
		"{s:o, s:o, s:s, s:b, s:b, s:i, s:i, s:b, s:b, s:o, s:I, s:I, s:o, s:o, s:o,"
		" s:{s:o, s:o}}",
		"name", api_json_text(server->name), "address", addr_text(&server->addr), "state",
		server_admin_names[MIN(view.admin, (unsigned int)SERVER_MAINT)], "up", view.up,
		"usable", view.usable, "weight", (int)view.weight, "weight_configured",
		(int)server->weight, "backup", server->backup, "ejected", view.ejected,
		"ejected_ms", number(view.ejected_ms), "active", (json_int_t)view.active,
		"failures_in_row", (json_int_t)view.failures_in_row, "check", check, "sessions",
		number(totals.sessions), "connect_failures",
		connect_failures(totals.connect_failures), "bytes", direction_names[DIR_C2S],
		number(totals.bytes[DIR_C2S]), direction_names[DIR_S2C],
		number(totals.bytes[DIR_S2C]));
}

static json_t *backend_json(struct stats *stats, const struct conf_backend *backend)
{
	static const char *const modes[] = {
		[BALANCE_ROUND_ROBIN] = "round_robin",
		[BALANCE_LEAST_SESSIONS] = "least_sessions",
		[BALANCE_RANDOM_TWO] = "random_two",
		[BALANCE_SOURCE_HASH] = "source_hash",
	};
	static const char *const checks[] = {
		[CHECK_OFF] = "off",
		[CHECK_TCP] = "tcp",
		[CHECK_SEND_EXPECT] = "send_expect",
	};
	json_t *servers = json_array();

	for (unsigned int i = 0; i < backend->nservers; i++)
		if (json_array_append_new(
			    servers, api_json_server(stats, backend, &backend->servers[i])) < 0) {
			json_decref(servers);
			return NULL;
		}
	return json_pack("{s:o, s:s, s:s, s:o}", "name", api_json_text(backend->name), "balance",
		modes[backend->balance], "check", checks[backend->check], "servers", servers);
}

json_t *api_json_backends(const struct api_source *source, const struct conf *conf)
{
	json_t *array = json_array();

	for (unsigned int i = 0; i < conf->nbackends; i++)
		if (json_array_append_new(array, backend_json(source->stats, &conf->backends[i])) <
			0) {
			json_decref(array);
			return NULL;
		}
	return json_pack("{s:o}", "backends", array);
}

static json_t *dir_json(const struct api_session_dir *dir)
{
	uint64_t sum = 0;

	for (unsigned int p = 0; p < PATH_COUNT; p++)
		sum += dir->bytes[p];
	return json_pack("{s:s, s:b, s:b, s:o, s:o}", "path", path_names[dir->path], "overflow",
		dir->overflow, "finished", dir->finished, "bytes", number(sum), "bytes_by_path",
		counts(path_names, dir->bytes, PATH_COUNT));
}

json_t *api_json_session(const struct api_session *session)
{
	char id[24];

	snprintf(id, sizeof(id), "%" API_SESSION_ID, session->id);
	return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o}", "id", id,
		"listener", api_json_text(session->listener), "backend",
		api_json_text(session->backend), "server", api_json_text(session->server), "client",
		addr_text(&session->client_addr), "server_address",
		addr_text(&session->server_addr), "state", api_session_state_names[session->state],
		"age_ms", number(session->age_ms), "idle_ms", number(session->idle_ms),
		direction_names[DIR_C2S], dir_json(&session->dirs[DIR_C2S]),
		direction_names[DIR_S2C], dir_json(&session->dirs[DIR_S2C]));
}

int api_respond_json(struct http_response *response, unsigned int status, json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;

	json_decref(object);
	if (!text)
		return -ENOMEM;
	response->status = status;
	response->content_type = "application/json";
	response->body = text;
	response->len = strlen(text);
	return 0;
}

int api_respond_error(struct http_response *response, unsigned int status, const char *text)
{
	return api_respond_json(response, status, json_pack("{s:o}", "error", api_json_text(text)));
}
