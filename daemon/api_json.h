/* SPDX-License-Identifier: BSD-2-Clause */
/* The objects of the JSON API. Pure over their arguments; each returns a new reference, or NULL
 * without memory. */
#ifndef SHUNT_API_JSON_H
#define SHUNT_API_JSON_H

#include <jansson.h>

#include "api.h"

struct conf_backend;
struct conf_server;

/* A string even where `text` is not UTF-8: what is not becomes U+FFFD. NULL: null. */
json_t *api_json_text(const char *text);

json_t *api_json_info(
	const struct api_source *source, const struct conf *conf, const struct api_info *info);
json_t *api_json_listeners(const struct api_source *source, const struct conf *conf);
json_t *api_json_backends(const struct api_source *source, const struct conf *conf);
json_t *api_json_server(
	struct stats *stats, const struct conf_backend *backend, const struct conf_server *server);
json_t *api_json_session(const struct api_session *session);

/* Takes the object, which may be NULL: no memory. 0 or -ENOMEM. */
MUST_CHECK int api_respond_json(
	struct http_response *response, unsigned int status, json_t *object);

#endif
