/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns which page answers which path, and readiness. Must not know how JSON or HTML is made. */
#include "api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api_json.h"
#include "api_page.h"
#include "api_sessions.h"
#include "api_totals.h"
#include "conf.h"
#include "http.h"

const char *const api_session_state_names[API_SESSION_STATE_COUNT] = {
	[API_SESSION_QUEUED] = "queued",
	[API_SESSION_CONNECTING] = "connecting",
	[API_SESSION_OPEN] = "open",
};

/* What a page may use: the configuration is held until it has answered. */
struct context {
	const struct api_source *source;
	const struct conf *conf;
	const struct http_request *request;
	struct http_response *response;
};

static const struct conf_backend *backend_without_server(
	const struct api_source *source, const struct conf *conf)
{
	for (unsigned int i = 0; i < conf->nbackends; i++) {
		const struct conf_backend *backend = &conf->backends[i];
		unsigned int usable = 0;

		for (unsigned int j = 0; j < backend->nservers && !usable; j++)
			usable = api_server_view(source->stats, &backend->servers[j]).usable;
		if (!usable)
			return backend;
	}
	return NULL;
}

bool api_is_ready(const struct api_source *source, const struct conf *conf, char *why, size_t size)
{
	const struct conf_backend *backend;

	if (source->ready && !source->ready(source->arg, why, size))
		return false;
	backend = backend_without_server(source, conf);
	if (backend)
		snprintf(why, size, "backend %s has no server to use", backend->name);
	return !backend;
}

static int get_healthz(struct context *context)
{
	return http_respond_text(context->response, 200, "ok");
}

static int get_readyz(struct context *context)
{
	char why[256] = "not ready";

	if (api_is_ready(context->source, context->conf, why, sizeof(why)))
		return http_respond_text(context->response, 200, "ready");
	return http_respond_text(context->response, 503, why);
}

static int get_metrics(struct context *context)
{
	static const char *const types[] = {
		"text/plain; version=0.0.4; charset=utf-8",
		"application/openmetrics-text; version=1.0.0; charset=utf-8",
	};
	bool openmetrics = http_accepts_openmetrics(context->request->accept);

	context->response->content_type = types[openmetrics];
	return context->source->metrics(context->source->arg, openmetrics, &context->response->body,
		&context->response->len);
}

static struct api_info read_info(const struct context *context)
{
	struct api_info info = {0};

	context->source->info(context->source->arg, &info);
	return info;
}

static void refresh(const struct context *context)
{
	if (context->source->refresh)
		context->source->refresh(context->source->arg);
}

static int get_info(struct context *context)
{
	struct api_info info = read_info(context);

	return api_respond_json(
		context->response, 200, api_json_info(context->source, context->conf, &info));
}

static int get_listeners(struct context *context)
{
	refresh(context);
	return api_respond_json(
		context->response, 200, api_json_listeners(context->source, context->conf));
}

static int get_backends(struct context *context)
{
	refresh(context);
	return api_respond_json(
		context->response, 200, api_json_backends(context->source, context->conf));
}

static json_t *session_array(const struct api_session *sessions, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(array, api_json_session(&sessions[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static int get_sessions(struct context *context)
{
	struct api_session *sessions = NULL;
	struct api_filter filter;
	size_t n = 0, matched;
	json_t *object;
	char why[256];
	int err;

	if (api_filter_parse(context->request, &filter, why, sizeof(why)) < 0)
		return api_respond_error(context->response, 400, why);
	err = context->source->sessions(context->source->arg, &sessions, &n);
	if (err)
		return err;
	matched = api_filter_apply(&filter, sessions, n);
	object = json_pack("{s:o, s:I, s:I}", "sessions",
		session_array(sessions, MIN(matched, filter.limit)), "matched", (json_int_t)matched,
		"total", (json_int_t)n);
	free(sessions);
	return api_respond_json(context->response, 200, object);
}

static int get_index(struct context *context)
{
	const struct api_filter busiest = {.path = -1};
	struct api_info info = read_info(context);
	struct api_page page = {
		.source = context->source,
		.conf = context->conf,
		.info = &info,
		.ready_why = "not ready",
	};
	struct api_session *sessions = NULL;
	size_t n = 0;
	int err;

	refresh(context);
	/* The page without its last table is still worth showing. */
	if (context->source->sessions(context->source->arg, &sessions, &n) == 0)
		page.nsessions = api_filter_apply(&busiest, sessions, n);
	page.sessions = sessions;
	page.ready = api_is_ready(
		context->source, context->conf, page.ready_why, sizeof(page.ready_why));
	err = api_page_render(&page, &context->response->body, &context->response->len);
	free(sessions);
	context->response->content_type = "text/html; charset=utf-8";
	return err;
}

static const struct {
	const char *path;
	int (*get)(struct context *context);
} pages[] = {
	{"/", get_index},
	{"/healthz", get_healthz},
	{"/metrics", get_metrics},
	{"/readyz", get_readyz},
	{"/v1/backends", get_backends},
	{"/v1/info", get_info},
	{"/v1/listeners", get_listeners},
	{"/v1/sessions", get_sessions},
};

int api_handle(void *arg, const struct http_request *request, struct http_response *response)
{
	const struct api_source *source = arg;
	struct context context = {.source = source, .request = request, .response = response};
	void *hold;
	int err;

	for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
		if (strcmp(request->path, pages[i].path))
			continue;
		if (strcmp(request->method, "GET")) {
			response->allow = "GET, HEAD";
			return api_respond_error(response, 405, "this page can only be read: GET");
		}
		context.conf = source->conf_get(source->arg, &hold);
		err = pages[i].get(&context);
		source->conf_put(source->arg, hold);
		return err;
	}
	return api_respond_error(response, 404, "not found");
}
