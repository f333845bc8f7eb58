/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Owns what a session must know before it can choose a server: the PROXY header in front of the
 * stream, and the server name in a ClientHello. Bytes are peeked at; only the PROXY header is
 * taken, to the byte, so the rest of the stream is still in the socket when it is spliced.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client_hello.h"
#include "log.h"
#include "proxy_proto.h"
#include "routes.h"
#include "session.h"

#define PEEK_MAX MAX(CLIENT_HELLO_WIRE_MAX, PROXY_HEADER_MAX)

/* One look at a time in each thread. */
static _Thread_local uint8_t peeked[PEEK_MAX];

enum look { LOOK_MORE, LOOK_DONE, LOOK_ENDED };

/* Bytes that can be looked at: -1 none now, 0 the client has finished. */
static ssize_t peek(const struct session *session, size_t max)
{
	ssize_t n = recv(session->ends[END_CLIENT].watch.fd, peeked, max, MSG_PEEK | MSG_DONTWAIT);

	return n;
}

static struct session_proxied *proxied_new(const struct proxy_header *header)
{
	struct session_proxied *proxied = calloc(1, sizeof(*proxied) + header->tlvs_len);

	if (!proxied)
		return NULL;
	proxied->src = header->src;
	proxied->dst = header->dst;
	proxied->tlvs_len = header->tlvs_len;
	if (header->tlvs_len)
		memcpy(proxied->tlvs, header->tlvs, header->tlvs_len);
	return proxied;
}

/* From here on the client is who the header says. */
static enum look take_header(struct session *session, const struct proxy_header *header, size_t len)
{
	if (header->src.len) {
		session->proxied = proxied_new(header);
		if (!session->proxied) {
			session_abort(session, END_NO_MEMORY);
			return LOOK_ENDED;
		}
		session_set_client(session, &header->src);
	}
	/* The header is in the socket, peeked a moment ago: this cannot be short. */
	if (recv(session->ends[END_CLIENT].watch.fd, peeked, len, MSG_DONTWAIT) != (ssize_t)len) {
		session_abort(session, END_PROXY_HEADER);
		return LOOK_ENDED;
	}
	session->pair.skipped[END_CLIENT] += len;
	return LOOK_DONE;
}

static enum look look_for_header(struct session *session)
{
	ssize_t n = peek(session, PROXY_HEADER_MAX);
	struct proxy_header header;
	const char *error = "the client closed before its header was complete";
	int len = -EINVAL;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return LOOK_MORE;
	if (n > 0)
		len = proxy_parse(peeked, (size_t)n, &header, &error);
	if (len == 0 && !session->ends[END_CLIENT].finished)
		return LOOK_MORE;
	if (len > 0)
		return take_header(session, &header, (size_t)len);
	log_debug("session %llx: PROXY header: %s", (unsigned long long)session->id, error);
	session_abort(session, END_PROXY_HEADER);
	return LOOK_ENDED;
}

static void route(struct session *session, const struct routes *routes, const char *server_name)
{
	int found = server_name ? routes_find(routes, server_name) : routes_default(routes);

	if (found >= 0)
		session->backend = &session->policy->backends[found];
}

/* No name, not TLS, or finished too early: the listener's own backend, which may know better. */
static enum look look_for_name(struct session *session, const struct routes *routes)
{
	ssize_t n = peek(session, CLIENT_HELLO_WIRE_MAX);
	struct client_hello hello;
	int len = -EPROTO;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return LOOK_MORE;
	if (n > 0)
		len = client_hello_parse(peeked, (size_t)n, &hello);
	if (len == 0 && !session->ends[END_CLIENT].finished)
		return LOOK_MORE;
	route(session, routes, len > 0 ? hello.server_name : NULL);
	return LOOK_DONE;
}

static const struct routes *routes_of(const struct session *session)
{
	const struct conf *conf = session->policy->conf;

	return session->policy->generation->routes[session->conf - conf->listeners];
}

static enum look look(struct session *session)
{
	enum look result = LOOK_DONE;

	if (session->handshake == SESSION_WANTS_PROXY) {
		result = look_for_header(session);
		if (result == LOOK_DONE)
			session->handshake =
				routes_of(session) ? SESSION_WANTS_NAME : SESSION_GREETED;
	}
	if (result == LOOK_DONE && session->handshake == SESSION_WANTS_NAME) {
		result = look_for_name(session, routes_of(session));
		if (result == LOOK_DONE)
			session->handshake = SESSION_GREETED;
	}
	return result;
}

void session_handshake(struct session *session)
{
	if (look(session) != LOOK_DONE)
		return;
	ev_timer_stop(session->home->loop->ev, &session->timer);
	session_choose(session);
}

void session_handshake_start(struct session *session)
{
	struct ev_loop *ev = session->home->loop->ev;

	if (session->conf->accept_proxy)
		session->handshake = SESSION_WANTS_PROXY;
	else if (routes_of(session))
		session->handshake = SESSION_WANTS_NAME;
	else
		session->handshake = SESSION_GREETED;
	if (session->handshake == SESSION_GREETED) {
		session_choose(session);
		return;
	}
	ev_timer_set(&session->timer, loop_ms(session->conf->handshake_timeout_ms), 0.);
	ev_timer_start(ev, &session->timer);
	session_handshake(session);
}

/* What stands in front of the stream to a server that wants to know the client. */
static int build(struct session *session, uint8_t *out, size_t size)
{
	const struct session_proxied *proxied = session->proxied;
	struct addr src, dst = {.len = sizeof(dst.un)};

	if (proxied) {
		src = proxied->src;
		dst = proxied->dst;
	} else {
		session_client_addr(session, &src);
		if (getsockname(session->ends[END_CLIENT].watch.fd, &dst.sa, &dst.len) < 0)
			dst.len = 0;
		/* The path of our own listener tells a server nothing, and some refuse the family.
		 */
		if (addr_is_unix(&src) || addr_is_unix(&dst))
			src.len = dst.len = 0;
	}
	if (session->backend->conf->send_proxy == SEND_PROXY_V1)
		return proxy_build_v1(&src, &dst, out, size);
	return proxy_build_v2(&src, &dst, proxied ? proxied->tlvs : NULL,
		proxied ? proxied->tlvs_len : 0, true, false, out, size);
}

int session_greet_server(struct session *session)
{
	uint8_t header[PROXY_BUILD_MAX];
	ssize_t sent;
	int len;

	if (session->backend->conf->send_proxy == SEND_PROXY_OFF)
		return 0;
	len = build(session, header, sizeof(header));
	if (len < 0)
		return len;
	/* The first bytes on a new connection: its send buffer takes them whole. */
	sent = send(session->ends[END_SERVER].watch.fd, header, (size_t)len,
		MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return -errno;
	session->pair.added[END_SERVER] = (uint64_t)sent;
	return sent == len ? 0 : -ENOBUFS;
}
