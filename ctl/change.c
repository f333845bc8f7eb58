/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns which request each change is. The daemon checks the values: its refusal is the message. */
#include "change.h"

#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "format.h"

#define PATH_MAX_LEN 900

/* Takes the body. */
static enum ctl_exit post(const struct ctl *ctl, const char *path, json_t *body)
{
	json_t *answer;
	enum ctl_exit status = client_call(ctl, "POST", path, body, &answer);
	const char *result = json_string_value(json_object_get(answer, "result"));
	char line[512];

	if (result) {
		snprintf(line, sizeof(line), "%s", result);
		format_safe(line);
		fprintf(ctl->out, "%s\n", line);
	}
	json_decref(answer);
	json_decref(body);
	return status;
}

/* What is not 0 to 256 is refused by the daemon, in its words; what is no number, here. */
static json_t *weight_value(const char *text)
{
	size_t len = text ? strlen(text) : 0;

	if (text && !strcmp(text, "default"))
		return json_null();
	if (!len || len > 9 || strspn(text, "0123456789") != len)
		return NULL;
	return json_integer(strtol(text, NULL, 10));
}

static json_t *server_body(const struct ctl *ctl, char **args)
{
	const char *word = args[1], *number = args[2];
	json_t *weight = NULL;

	if (!strcmp(word, "weight"))
		weight = weight_value(number);
	if (weight)
		return json_pack("{s:o}", "weight", weight);
	if (!number && (!strcmp(word, "ready") || !strcmp(word, "drain") || !strcmp(word, "maint")))
		return json_pack("{s:s}", "state", word);
	ctl_usage(ctl, "server: ready, drain, maint, or weight and 0 to 256 or default");
	return NULL;
}

enum ctl_exit change_server(const struct ctl *ctl, char **args)
{
	char path[PATH_MAX_LEN] = "/v1/servers/";
	const char *slash = strchr(args[0], '/');
	json_t *body;

	if (!slash || slash == args[0] || !slash[1])
		return ctl_usage(ctl, "server: '%s' is not BACKEND/NAME", args[0]);
	if (!client_encode(path, sizeof(path), args[0], true))
		return ctl_usage(ctl, "server: the name is too long");
	body = server_body(ctl, args);
	return body ? post(ctl, path, body) : CTL_USAGE;
}

enum ctl_exit change_close(const struct ctl *ctl, char **args)
{
	char path[PATH_MAX_LEN] = "/v1/sessions/";

	if (!*args[0] || strspn(args[0], "0123456789abcdefABCDEF") != strlen(args[0]) ||
		strlen(args[0]) > 16)
		return ctl_usage(ctl, "close: '%s' is not a session's id", args[0]);
	strcat(path, args[0]);
	strcat(path, "/close");
	return post(ctl, path, NULL);
}

enum ctl_exit change_reload(const struct ctl *ctl, char **args)
{
	(void)args;
	return post(ctl, "/v1/reload", NULL);
}

enum ctl_exit change_upgrade(const struct ctl *ctl, char **args)
{
	(void)args;
	return post(ctl, "/v1/upgrade", NULL);
}

enum ctl_exit change_drain(const struct ctl *ctl, char **args)
{
	(void)args;
	return post(ctl, "/v1/drain", NULL);
}

enum ctl_exit change_not_ready(const struct ctl *ctl, char **args)
{
	(void)args;
	return post(ctl, "/v1/ready", json_pack("{s:b}", "ready", 0));
}

enum ctl_exit change_ready(const struct ctl *ctl, char **args)
{
	(void)args;
	return post(ctl, "/v1/ready", json_pack("{s:b}", "ready", 1));
}

enum ctl_exit change_log_level(const struct ctl *ctl, char **args)
{
	json_t *body = json_pack("{s:s}", "level", args[0]);

	if (!body)
		return ctl_usage(ctl, "log-level: not a level");
	return post(ctl, "/v1/log-level", body);
}
