/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns which requests there are and what they must look like. Pure; must not know what they do. */
#include "control.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "api_totals.h"
#include "http.h"

#define WEIGHT_MAX 256
#define SESSION_DIGITS_MAX 16

const char *const control_level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_NOTICE] = "notice",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

/* The text of a refusal goes to the client. */
struct parse {
	struct control_request request;
	char *err;
	size_t size;
};

static int PRINTF(3, 4) refuse(struct parse *parse, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(parse->err, parse->size, fmt, ap);
	va_end(ap);
	return status;
}

static int wrong_type(struct parse *parse, const char *member, const char *allowed)
{
	return refuse(parse, 400, "member '%s': the value must be %s", member, allowed);
}

static int find_word(const char *const *words, unsigned int n, const json_t *value)
{
	const char *word = json_string_value(value);

	for (unsigned int i = 0; word && i < n; i++)
		if (!strcmp(word, words[i]))
			return (int)i;
	return -1;
}

static int take_state(struct parse *parse, const json_t *value)
{
	int state = find_word(server_admin_names, ARRAY_LEN(server_admin_names), value);

	if (state < 0)
		return wrong_type(parse, "state", "\"ready\", \"drain\" or \"maint\"");
	parse->request.has_state = true;
	parse->request.state = (enum server_admin)state;
	return 0;
}

static int take_weight(struct parse *parse, const json_t *value)
{
	json_int_t weight = SERVER_WEIGHT_CONFIGURED;

	if (json_is_integer(value)) {
		weight = json_integer_value(value);
		if (weight < 0 || weight > WEIGHT_MAX)
			return wrong_type(parse, "weight", "0 to 256, or null");
	} else if (!json_is_null(value)) {
		return wrong_type(parse, "weight", "0 to 256, or null");
	}
	parse->request.has_weight = true;
	parse->request.weight = (int32_t)weight;
	return 0;
}

static int take_ready(struct parse *parse, const json_t *value)
{
	if (!json_is_boolean(value))
		return wrong_type(parse, "ready", "true or false");
	parse->request.ready = json_is_true(value);
	return 0;
}

static int take_level(struct parse *parse, const json_t *value)
{
	int level = find_word(control_level_names, ARRAY_LEN(control_level_names), value);

	if (level < 0)
		return wrong_type(parse, "level",
			"\"error\", \"warning\", \"notice\", \"info\" or \"debug\"");
	parse->request.level = (enum log_level)level;
	return 0;
}

struct member {
	const char *name;
	int (*take)(struct parse *parse, const json_t *value);
};

#define MEMBERS_MAX 3

static int parse_server_name(struct parse *parse, const char *text, size_t len)
{
	char *name = parse->request.server, *slash;

	if (len >= sizeof(parse->request.server))
		return refuse(parse, 404, "the server's name is too long");
	memcpy(name, text, len);
	name[len] = '\0';
	if (!http_decode(name))
		return refuse(parse, 400, "the path has a broken escape");
	slash = strchr(name, '/');
	if (!slash || slash == name || !slash[1])
		return refuse(parse, 404, "not a server: BACKEND/NAME is expected");
	return 0;
}

static int parse_session_id(struct parse *parse, const char *text, size_t len)
{
	uint64_t id = 0;

	for (size_t i = 0; i < len; i++) {
		static const char digits[] = "0123456789abcdefABCDEF";
		const char *digit = strchr(digits, text[i]);
		uint64_t value = digit ? (uint64_t)(digit - digits) : 0;

		if (!digit || len > SESSION_DIGITS_MAX)
			return refuse(parse, 400,
				"not a session: 1 to 16 hexadecimal digits are expected");
		id = id << 4 | (value > 15 ? value - 6 : value);
	}
	if (!len)
		return refuse(parse, 404, "not a session: an id is expected");
	parse->request.session = id;
	return 0;
}

/* A path is a prefix, with `parse` a part in the middle, and a suffix. */
static const struct route {
	const char *method, *prefix, *suffix;
	enum control_kind kind;
	int (*parse)(struct parse *parse, const char *text, size_t len);
	struct member members[MEMBERS_MAX];
	const char *needs; /* what the body must say at least; NULL: it may be empty */
} routes[] = {
	{"POST", "/v1/servers/", "", CONTROL_SERVER, parse_server_name,
		{{"state", take_state}, {"weight", take_weight}}, "'state' or 'weight'"},
	{"POST", "/v1/sessions/", "/close", CONTROL_CLOSE_SESSION, parse_session_id, {{0}}, NULL},
	{"DELETE", "/v1/sessions/", "", CONTROL_CLOSE_SESSION, parse_session_id, {{0}}, NULL},
	{"POST", "/v1/reload", "", CONTROL_RELOAD, NULL, {{0}}, NULL},
	{"POST", "/v1/upgrade", "", CONTROL_UPGRADE, NULL, {{0}}, NULL},
	{"POST", "/v1/drain", "", CONTROL_DRAIN, NULL, {{0}}, NULL},
	{"POST", "/v1/ready", "", CONTROL_READY, NULL, {{"ready", take_ready}}, "'ready'"},
	{"POST", "/v1/log-level", "", CONTROL_LOG_LEVEL, NULL, {{"level", take_level}}, "'level'"},
};

static bool route_takes(const struct route *route, const char *path)
{
	size_t len = strlen(path), prefix = strlen(route->prefix), suffix = strlen(route->suffix);

	if (len < prefix + suffix || strncmp(path, route->prefix, prefix) ||
		strcmp(path + len - suffix, route->suffix))
		return false;
	return route->parse || len == prefix + suffix;
}

/* A path may be of two routes: what a session's says depends on the method. */
static int find_route(
	struct parse *parse, const char *method, const char *path, const struct route **ret)
{
	const struct route *other = NULL;

	for (unsigned int i = 0; i < ARRAY_LEN(routes); i++) {
		if (!route_takes(&routes[i], path))
			continue;
		if (!strcmp(method, routes[i].method)) {
			*ret = &routes[i];
			return 0;
		}
		other = other ? other : &routes[i];
	}
	if (!other)
		return -ENOENT;
	return refuse(parse, 405, "this is a change: %s is expected", other->method);
}

static int take_member(
	struct parse *parse, const struct route *route, const char *name, const json_t *value)
{
	for (unsigned int i = 0; i < MEMBERS_MAX && route->members[i].name; i++)
		if (!strcmp(name, route->members[i].name))
			return route->members[i].take(parse, value);
	return refuse(parse, 400, "unknown member '%.64s'%s%s", name,
		route->needs ? "; expected: " : ": none is expected",
		route->needs ? route->needs : "");
}

static int take_object(struct parse *parse, const struct route *route, json_t *object)
{
	const char *name;
	json_t *value;
	int status = 0;

	if (!json_is_object(object))
		return refuse(parse, 400, "the body must be a JSON object");
	json_object_foreach(object, name, value)
	{
		status = take_member(parse, route, name, value);
		if (status)
			return status;
	}
	if (route->needs && !json_object_size(object))
		return refuse(parse, 400, "the body must say %s", route->needs);
	return 0;
}

static int parse_body(struct parse *parse, const struct route *route, const char *body, size_t len)
{
	json_error_t error;
	json_t *object;
	int status;

	if (!len)
		return route->needs ? refuse(parse, 400, "the body must say %s", route->needs) : 0;
	/* It names the place, and takes nothing after the object. */
	object = json_loadb(body, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (!object)
		return refuse(parse, 400, "body, line %d, column %d: %s", error.line, error.column,
			error.text);
	status = take_object(parse, route, object);
	json_decref(object);
	return status;
}

int control_parse(const char *method, const char *path, const void *body, size_t len,
	struct control_request *ret, char *err, size_t size)
{
	struct parse parse = {.err = err, .size = size};
	const struct route *route = NULL;
	int status = find_route(&parse, method, path, &route);

	if (status)
		return status;
	parse.request.kind = route->kind;
	if (route->parse) {
		size_t prefix = strlen(route->prefix);

		status = route->parse(
			&parse, path + prefix, strlen(path) - prefix - strlen(route->suffix));
	}
	if (!status)
		status = parse_body(&parse, route, body, len);
	if (!status)
		*ret = parse.request;
	return status;
}
