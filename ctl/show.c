/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns which members of the API's objects become which columns. */
#include "show.h"

#include <stdint.h>
#include <string.h>

#include "client.h"
#include "format.h"
#include "table.h"

static const char *text_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static uint64_t number_of(const json_t *object, const char *name)
{
	json_int_t value = json_integer_value(json_object_get(object, name));

	return value > 0 ? (uint64_t)value : 0;
}

static bool is_true(const json_t *object, const char *name)
{
	return json_is_true(json_object_get(object, name));
}

static uint64_t sum_of(json_t *object)
{
	const char *name;
	json_t *value;
	uint64_t sum = 0;

	json_object_foreach(object, name, value) sum +=
		json_is_integer(value) ? (uint64_t)json_integer_value(value) : 0;
	return sum;
}

static void add_bytes(struct table *table, uint64_t bytes)
{
	table_add(table, format_bytes(bytes).text);
}

static void add_count(struct table *table, uint64_t number)
{
	table_add(table, format_count(number).text);
}

static void put_line(const struct ctl *ctl, const char *name, const char *text)
{
	char line[512];

	snprintf(line, sizeof(line), "%s", text ? text : "-");
	format_safe(line);
	fprintf(ctl->out, "%-16s %s\n", name, line);
}

static void put_count(
	const struct ctl *ctl, const char *name, const json_t *info, const char *member)
{
	put_line(ctl, name, format_count(number_of(info, member)).text);
}

static void put_why(
	const struct ctl *ctl, const char *name, bool good, const char *word, const char *why)
{
	char line[512];

	snprintf(line, sizeof(line), "%s%s%s", word, good || !why ? "" : ": ",
		good || !why ? "" : why);
	put_line(ctl, name, line);
}

enum ctl_exit show_info(const struct ctl *ctl, char **args)
{
	json_t *info;
	enum ctl_exit status = client_call(ctl, "GET", "/v1/info", NULL, &info);
	bool kernel = is_true(info, "kernel_path"), ready = is_true(info, "ready");

	(void)args;
	if (!info)
		return status;
	put_line(ctl, "version", text_of(info, "version"));
	put_line(ctl, "uptime", format_age(number_of(info, "uptime_seconds") * 1000).text);
	put_why(ctl, "ready", ready, ready ? "yes" : "no", text_of(info, "ready_why"));
	put_why(ctl, "kernel path", kernel, kernel ? "on" : "off",
		text_of(info, "kernel_path_why"));
	put_count(ctl, "sessions", info, "sessions");
	put_count(ctl, "max sessions", info, "max_sessions");
	put_count(ctl, "threads", info, "threads");
	put_count(ctl, "pid", info, "pid");
	put_count(ctl, "worker pid", info, "worker_pid");
	put_count(ctl, "worker restarts", info, "worker_restarts");
	put_line(ctl, "configuration", text_of(info, "config"));
	put_count(ctl, "generation", info, "generation");
	put_count(ctl, "reloads", info, "reloads_ok");
	put_count(ctl, "failed reloads", info, "reloads_error");
	json_decref(info);
	return status;
}

static void add_binds(struct table *table, const json_t *binds)
{
	char text[256];
	size_t n = json_array_size(binds);
	const char *first = json_string_value(json_array_get(binds, 0));

	snprintf(text, sizeof(text), "%s", first ? first : "");
	if (n > 1)
		snprintf(text, sizeof(text), "%.200s +%zu", first, n - 1);
	table_add(table, text);
}

static void add_listener(struct table *table, const json_t *listener)
{
	const json_t *bytes = json_object_get(listener, "bytes");
	json_t *c2s = json_object_get(bytes, "c2s"), *s2c = json_object_get(bytes, "s2c");
	uint64_t all = sum_of(c2s) + sum_of(s2c);

	table_add(table, text_of(listener, "name"));
	add_binds(table, json_object_get(listener, "binds"));
	table_add(table, text_of(listener, "backend"));
	add_count(table, number_of(listener, "active"));
	add_count(table, number_of(listener, "sessions"));
	add_count(table, sum_of(json_object_get(listener, "rejected")));
	add_bytes(table, sum_of(c2s));
	add_bytes(table, sum_of(s2c));
	table_add(table,
		format_percent(all - number_of(c2s, "relay") - number_of(s2c, "relay"), all).text);
	add_count(table, number_of(listener, "overflows"));
}

enum ctl_exit show_listeners(const struct ctl *ctl, char **args)
{
	json_t *answer, *listener;
	enum ctl_exit status = client_call(ctl, "GET", "/v1/listeners", NULL, &answer);
	struct table *table;
	size_t i;

	(void)args;
	if (!answer)
		return status;
	table = table_new("LISTENER|ADDRESS|BACKEND|>SESSIONS|>TOTAL|>REJECTED|>C2S|>S2C|>KERNEL|"
			  ">OVERFLOWS");
	json_array_foreach(json_object_get(answer, "listeners"), i, listener)
		add_listener(table, listener);
	table_print(table, ctl->out);
	json_decref(answer);
	return status;
}

/* The operator's word first: it explains the rest. */
static void add_state(struct table *table, const json_t *server)
{
	const char *admin = text_of(server, "state");
	bool up = is_true(server, "up");
	char text[64] = "";

	if (admin && strcmp(admin, "ready") != 0)
		snprintf(text, sizeof(text), "%.16s%s", admin, up ? "" : ",down");
	else if (!up)
		snprintf(text, sizeof(text), "down");
	else if (is_true(server, "ejected"))
		snprintf(text, sizeof(text), "ejected,%s",
			format_age(number_of(server, "ejected_ms")).text);
	else
		snprintf(text, sizeof(text), "%s",
			json_is_null(json_object_get(server, "check")) ? "unchecked" : "up");
	if (is_true(server, "backup"))
		strcat(text, ",backup");
	table_add(table, text);
}

static void add_weight(struct table *table, const json_t *server)
{
	uint64_t now = number_of(server, "weight"),
		 configured = number_of(server, "weight_configured");
	char text[48];

	snprintf(text, sizeof(text), "%s", format_count(now).text);
	if (now != configured)
		snprintf(text, sizeof(text), "%s/%s", format_count(now).text,
			format_count(configured).text);
	table_add(table, text);
}

static void add_server(struct table *table, const char *backend, const json_t *server)
{
	const json_t *bytes = json_object_get(server, "bytes");

	table_add(table, backend);
	table_add(table, text_of(server, "name"));
	table_add(table, text_of(server, "address"));
	add_state(table, server);
	add_weight(table, server);
	add_count(table, number_of(server, "active"));
	add_count(table, number_of(server, "sessions"));
	add_bytes(table, number_of(bytes, "c2s"));
	add_bytes(table, number_of(bytes, "s2c"));
	add_count(table, sum_of(json_object_get(server, "connect_failures")));
}

enum ctl_exit show_backends(const struct ctl *ctl, char **args)
{
	json_t *answer, *backend, *server;
	enum ctl_exit status = client_call(ctl, "GET", "/v1/backends", NULL, &answer);
	struct table *table;
	size_t i, j;

	(void)args;
	if (!answer)
		return status;
	table = table_new(
		"BACKEND|SERVER|ADDRESS|STATE|>WEIGHT|>SESSIONS|>TOTAL|>C2S|>S2C|>FAILED");
	json_array_foreach(json_object_get(answer, "backends"), i, backend)
		json_array_foreach(json_object_get(backend, "servers"), j, server)
			add_server(table, text_of(backend, "name"), server);
	table_print(table, ctl->out);
	json_decref(answer);
	return status;
}

static void add_dir(struct table *table, const json_t *dir)
{
	char text[64];

	snprintf(text, sizeof(text), "%.16s%s%s", text_of(dir, "path") ? text_of(dir, "path") : "-",
		is_true(dir, "overflow") ? ",overflow" : "",
		is_true(dir, "finished") ? ",finished" : "");
	add_bytes(table, number_of(dir, "bytes"));
	table_add(table, text);
}

static void add_session(struct table *table, const json_t *session)
{
	const char *backend = text_of(session, "backend"), *server = text_of(session, "server");
	char text[256];

	snprintf(text, sizeof(text), "%s%s%s", backend ? backend : "-", server ? "/" : "",
		server ? server : "");
	table_add(table, text_of(session, "id"));
	table_add(table, text_of(session, "listener"));
	table_add(table, text_of(session, "client"));
	table_add(table, text);
	table_add(table, text_of(session, "state"));
	add_dir(table, json_object_get(session, "c2s"));
	add_dir(table, json_object_get(session, "s2c"));
	table_add(table, format_age(number_of(session, "age_ms")).text);
	table_add(table, format_age(number_of(session, "idle_ms")).text);
}

static bool add_filter(char *path, size_t size, const char *name, const char *value)
{
	size_t len = strlen(path);

	if (!value)
		return true;
	snprintf(path + len, size - len, "%c%s=", strchr(path, '?') ? '&' : '?', name);
	return client_encode(path, size, value, true);
}

enum ctl_exit show_sessions(const struct ctl *ctl, char **args)
{
	char path[1000] = "/v1/sessions";
	json_t *answer, *session;
	enum ctl_exit status;
	struct table *table;
	size_t i, shown;

	(void)args;
	if (!add_filter(path, sizeof(path), "listener", ctl->listener) ||
		!add_filter(path, sizeof(path), "backend", ctl->backend) ||
		!add_filter(path, sizeof(path), "server", ctl->server) ||
		!add_filter(path, sizeof(path), "client", ctl->client) ||
		!add_filter(path, sizeof(path), "path", ctl->path) ||
		!add_filter(path, sizeof(path), "limit", ctl->limit))
		return ctl_usage(ctl, "the filter is too long");
	status = client_call(ctl, "GET", path, NULL, &answer);
	if (!answer)
		return status;
	table = table_new("ID|LISTENER|CLIENT|SERVER|STATE|>C2S|PATH|>S2C|PATH|>AGE|>IDLE");
	json_array_foreach(json_object_get(answer, "sessions"), i, session)
		add_session(table, session);
	table_print(table, ctl->out);
	shown = json_array_size(json_object_get(answer, "sessions"));
	if (shown < number_of(answer, "matched"))
		fprintf(ctl->err, "%zu of %s sessions: --limit shows more\n", shown,
			format_count(number_of(answer, "matched")).text);
	json_decref(answer);
	return status;
}
