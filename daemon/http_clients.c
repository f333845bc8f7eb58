/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the steps of the HTTP server's clients. Must not know requests or answers. */
#include "http_clients.h"

#include <sys/socket.h>

/* Slow readers get no more than half of the slots. */
#define BUSY_MAX (HTTP_CLIENTS_MAX / 2)

void http_clients_init(struct http_clients *clients, uint64_t step_timeout_ns)
{
	unsigned int i;

	clients->step_timeout_ns = step_timeout_ns;
	for (i = 0; i < HTTP_STEP_COUNT; i++) {
		TAILQ_INIT(&clients->lists[i]);
		clients->counts[i] = 0;
	}
	for (i = 0; i < HTTP_CLIENTS_MAX; i++) {
		clients->slots[i] = (struct http_client){.step = HTTP_STEP_FREE, .fd = -1};
		TAILQ_INSERT_TAIL(&clients->lists[HTTP_STEP_FREE], &clients->slots[i], link);
		clients->counts[HTTP_STEP_FREE]++;
	}
}

void http_clients_enter(
	struct http_clients *clients, struct http_client *client, enum http_step step)
{
	TAILQ_REMOVE(&clients->lists[client->step], client, link);
	clients->counts[client->step]--;
	client->step = step;
	client->since_ns = now_ns();
	TAILQ_INSERT_TAIL(&clients->lists[step], client, link);
	clients->counts[step]++;
}

struct http_client *http_clients_add(struct http_clients *clients, int fd)
{
	struct http_client *client = TAILQ_FIRST(&clients->lists[HTTP_STEP_FREE]);

	if (!client)
		return NULL;
	client->fd = fd;
	http_clients_enter(clients, client, HTTP_STEP_IDLE);
	return client;
}

/* What a slow reader has not taken yet must not stay queued in the kernel after the close. */
static void drop(struct http_clients *clients, struct http_client *client)
{
	struct linger abort_on_close = {.l_onoff = 1};

	if (client->step == HTTP_STEP_BUSY)
		setsockopt(
			client->fd, SOL_SOCKET, SO_LINGER, &abort_on_close, sizeof(abort_on_close));
	shutdown(client->fd, SHUT_RDWR);
	http_clients_enter(clients, client, HTTP_STEP_DROPPED);
}

/* An idle one, so that requests on their way complete, and the oldest, so that among many new ones
 * the scraper gets its turn. */
void http_clients_drop_one(struct http_clients *clients)
{
	struct http_client *idle = TAILQ_FIRST(&clients->lists[HTTP_STEP_IDLE]);
	struct http_client *busy = TAILQ_FIRST(&clients->lists[HTTP_STEP_BUSY]);

	if (busy && (!idle || clients->counts[HTTP_STEP_BUSY] > BUSY_MAX))
		drop(clients, busy);
	else if (idle)
		drop(clients, idle);
}

void http_clients_extend(struct http_clients *clients, uint64_t ns)
{
	unsigned int i;

	for (i = 0; i < HTTP_CLIENTS_MAX; i++)
		clients->slots[i].since_ns += ns;
}

static uint64_t list_deadline_ns(const struct http_clients *clients, enum http_step step)
{
	const struct http_client *oldest = TAILQ_FIRST(&clients->lists[step]);

	return oldest ? oldest->since_ns + clients->step_timeout_ns : UINT64_MAX;
}

uint64_t http_clients_deadline_ns(const struct http_clients *clients)
{
	uint64_t idle = list_deadline_ns(clients, HTTP_STEP_IDLE);
	uint64_t busy = list_deadline_ns(clients, HTTP_STEP_BUSY);

	return MIN(idle, busy);
}

void http_clients_drop_overdue(struct http_clients *clients)
{
	static const enum http_step steps[] = {HTTP_STEP_IDLE, HTTP_STEP_BUSY};
	uint64_t now = now_ns();
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(steps); i++)
		while (list_deadline_ns(clients, steps[i]) <= now)
			drop(clients, TAILQ_FIRST(&clients->lists[steps[i]]));
}
