/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns how a request of libmicrohttpd becomes one of ours, and back. Must not know connections'
 * lives. */
#include "http_exchange.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Pages are self-contained: nothing that a name smuggles into one may be loaded or run. */
#define CONTENT_POLICY                                                                         \
	"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; " \
	"frame-ancestors 'none'"

static const char read_methods[] = "GET, HEAD";

/*
 * Takes the malloc()ed body. One request per connection: scrapes are too far apart to gain from
 * more, and libmicrohttpd would keep a connection whose FIN came together with the request
 * (edge-triggered epoll).
 */
static enum MHD_Result reply(struct MHD_Connection *connection, const struct http_response *from)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	response = MHD_create_response_from_buffer(from->len, from->body, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(from->body);
		return MHD_NO;
	}
	if (from->content_type)
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, from->content_type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, "Content-Security-Policy", CONTENT_POLICY);
	if (from->allow)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, from->allow);
	result = MHD_queue_response(connection, from->status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result reply_text(
	struct MHD_Connection *connection, unsigned int status, const char *allow, const char *text)
{
	struct http_response response = {.allow = allow};

	if (http_respond_text(&response, status, text) < 0)
		return MHD_NO;
	return reply(connection, &response);
}

static bool is_read(const char *method)
{
	return !strcmp(method, MHD_HTTP_METHOD_GET) || !strcmp(method, MHD_HTTP_METHOD_HEAD);
}

static bool is_write(const char *method)
{
	return !strcmp(method, MHD_HTTP_METHOD_POST) || !strcmp(method, MHD_HTTP_METHOD_DELETE);
}

static bool announces_too_much(struct MHD_Connection *connection)
{
	const char *text = MHD_lookup_connection_value(
		connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return text && strtoull(text, NULL, 10) > HTTP_BODY_MAX;
}

/* An answer now means that the body, if any, is not waited for. */
enum MHD_Result http_exchange_begin(struct http_exchange *exchange,
	const struct http_handlers *handlers, struct MHD_Connection *connection, const char *method,
	bool *ret_answered)
{
	http_exchange_done(exchange);
	*ret_answered = true;
	if (!is_read(method) && !(handlers->writable && is_write(method)))
		return reply_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED,
			handlers->writable ? "GET, HEAD, POST, DELETE" : read_methods,
			handlers->writable
				? "method not allowed"
				: "read only here: changes are made over the control socket");
	if (!is_read(method) && announces_too_much(connection))
		return reply_text(connection, MHD_HTTP_CONTENT_TOO_LARGE, NULL,
			"the body is larger than 64 KiB");
	*ret_answered = false;
	return MHD_YES;
}

/* No page that is read takes a body. A chunked one is as long as it likes: closed at the limit,
 * because libmicrohttpd takes no answer in the middle of a body. */
enum MHD_Result http_exchange_add(struct http_exchange *exchange,
	const struct http_handlers *handlers, const char *part, size_t *part_len)
{
	if (!handlers->writable || *part_len > HTTP_BODY_MAX - exchange->body_len)
		return MHD_NO;
	if (!exchange->body)
		exchange->body = malloc(HTTP_BODY_MAX);
	if (!exchange->body)
		return MHD_NO;
	memcpy(exchange->body + exchange->body_len, part, *part_len);
	exchange->body_len += *part_len;
	*part_len = 0;
	return MHD_YES;
}

static void read_peer(struct MHD_Connection *connection, struct http_request *request)
{
	int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	struct ucred peer;
	socklen_t len = sizeof(peer), domain_len = sizeof(int);
	int domain;

	request->pid = -1;
	request->uid = (uid_t)-1;
	request->gid = (gid_t)-1;
	/* TCP sockets answer too, with nobody; a peer of another PID namespace has pid 0. */
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) < 0 || domain != AF_UNIX ||
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return;
	request->pid = peer.pid;
	request->uid = peer.uid;
	request->gid = peer.gid;
}

struct query_copy {
	struct http_request *request;
	char *texts[2 * HTTP_QUERY_MAX];
	const char *error;
};

static char *copy_decoded(struct query_copy *copy, unsigned int index, const char *text)
{
	copy->texts[index] = strdup(text ? text : "");
	if (!copy->texts[index] || !http_decode(copy->texts[index])) {
		copy->error = "the query has a broken escape";
		return NULL;
	}
	return copy->texts[index];
}

static enum MHD_Result query_cb(
	void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct query_copy *copy = arg;
	struct http_request *request = copy->request;
	struct http_parameter *parameter = &request->query[request->nquery];

	(void)kind;
	if (request->nquery == HTTP_QUERY_MAX) {
		copy->error = "the query has too many parameters";
		return MHD_NO;
	}
	parameter->name = copy_decoded(copy, 2 * request->nquery, name);
	parameter->value = copy_decoded(copy, 2 * request->nquery + 1, value);
	request->nquery++;
	return copy->error ? MHD_NO : MHD_YES;
}

static enum MHD_Result call_handler(const struct http_handlers *handlers,
	struct MHD_Connection *connection, const struct http_request *request)
{
	struct http_response response = {.status = MHD_HTTP_OK};
	int err = handlers->handle(handlers->arg, request, &response);

	if (!err)
		return reply(connection, &response);
	free(response.body);
	return reply_text(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, strerror(-err));
}

enum MHD_Result http_exchange_answer(struct http_exchange *exchange,
	const struct http_handlers *handlers, struct MHD_Connection *connection, const char *method,
	const char *path)
{
	struct http_request request = {
		.method = is_read(method) ? MHD_HTTP_METHOD_GET : method,
		.path = path,
		.accept = MHD_lookup_connection_value(
			connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT),
		.body = exchange->body,
		.body_len = exchange->body_len,
	};
	struct query_copy copy = {.request = &request};
	enum MHD_Result result;

	read_peer(connection, &request);
	MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, query_cb, &copy);
	if (copy.error)
		result = reply_text(connection, MHD_HTTP_BAD_REQUEST, NULL, copy.error);
	else
		result = call_handler(handlers, connection, &request);
	for (size_t i = 0; i < ARRAY_LEN(copy.texts); i++)
		free(copy.texts[i]);
	return result;
}

void http_exchange_done(struct http_exchange *exchange)
{
	free(exchange->body);
	*exchange = (struct http_exchange){0};
}

size_t http_exchange_keep_escapes(void *arg, struct MHD_Connection *connection, char *text)
{
	(void)arg;
	(void)connection;
	return strlen(text);
}
