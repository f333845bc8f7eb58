/* SPDX-License-Identifier: BSD-2-Clause */
/* One request and its answer, between libmicrohttpd and the handler. Internal to the HTTP server.
 */
#ifndef SHUNT_HTTP_EXCHANGE_H
#define SHUNT_HTTP_EXCHANGE_H

#include <microhttpd.h>

#include "http.h"

struct http_exchange {
	char *body; /* what has come of it; allocated with its first part */
	size_t body_len;
};

/* With the headers. MHD_YES without an answer: go on. Sets *ret_answered. */
enum MHD_Result http_exchange_begin(struct http_exchange *exchange,
	const struct http_handlers *handlers, struct MHD_Connection *connection, const char *method,
	bool *ret_answered);

/* With each part of the body. MHD_NO: close the connection. */
enum MHD_Result http_exchange_add(struct http_exchange *exchange,
	const struct http_handlers *handlers, const char *part, size_t *part_len);

/* Calls the handler and queues its answer. */
enum MHD_Result http_exchange_answer(struct http_exchange *exchange,
	const struct http_handlers *handlers, struct MHD_Connection *connection, const char *method,
	const char *path);

/* In any state, also an unused one. */
void http_exchange_done(struct http_exchange *exchange);

/* For MHD_OPTION_UNESCAPE_CALLBACK: leaves everything to the handler, which knows what a '/' may
 * be. */
size_t http_exchange_keep_escapes(void *arg, struct MHD_Connection *connection, char *text);

#endif
