/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The connections of the HTTP server and which of them has to go, and when. Knows no HTTP library:
 * it only shuts connections down, closing is left to the owner of the descriptor.
 */
#ifndef SHUNT_HTTP_CLIENTS_H
#define SHUNT_HTTP_CLIENTS_H

#include <stdint.h>
#include <sys/queue.h>

#include "util.h"

#define HTTP_CLIENTS_MAX 64

/* What a client does now. Each step has a list, oldest first. */
enum http_step {
	HTTP_STEP_FREE, /* an unused slot */
	HTTP_STEP_IDLE, /* has not sent its request yet */
	HTTP_STEP_BUSY, /* is being answered, until the connection is closed */
	HTTP_STEP_DROPPED, /* shut down, and about to be closed */
	HTTP_STEP_COUNT
};

struct http_client {
	TAILQ_ENTRY(http_client) link;
	enum http_step step;
	uint64_t since_ns;
	int fd;
};

TAILQ_HEAD(http_client_list, http_client);

struct http_clients {
	uint64_t step_timeout_ns; /* a client that stays longer in a step is dropped */
	struct http_client slots[HTTP_CLIENTS_MAX];
	struct http_client_list lists[HTTP_STEP_COUNT];
	unsigned int counts[HTTP_STEP_COUNT];
};

void http_clients_init(struct http_clients *clients, uint64_t step_timeout_ns);

/* NULL: no slot is free. The client is idle. */
struct http_client *http_clients_add(struct http_clients *clients, int fd);
void http_clients_enter(
	struct http_clients *clients, struct http_client *client, enum http_step step);

/* Drops one client, if there is any. Its slot is free once its owner has closed it. */
void http_clients_drop_one(struct http_clients *clients);
void http_clients_drop_overdue(struct http_clients *clients);

/* Gives every client that much longer for its step. */
void http_clients_extend(struct http_clients *clients, uint64_t ns);

/* When the next one is overdue, on the clock of now_ns(); UINT64_MAX: never. */
uint64_t http_clients_deadline_ns(const struct http_clients *clients);

#endif
