/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sessions and connection rate per client address, for all threads of a worker.
 *
 * IPv6 clients are told apart by their /64: a single subscriber has at least 2^64 addresses, so
 * that a limit per address would limit nobody, and one client alone could fill the table. IPv4
 * clients are told apart by their address, also behind a translator's 64:ff9b::/96.
 *
 * The table never grows beyond its size. A client is forgotten only when it has no session and has
 * earned back its whole rate, that is, when remembering it would change no answer. When none can be
 * forgotten, a new client is let in untracked (CLIENTS_UNTRACKED): a flood from many addresses must
 * not lock out the others, and other limits still hold. Clients in the table stay limited.
 */
#ifndef SHUNT_CLIENTS_H
#define SHUNT_CLIENTS_H

#include <stdint.h>

#include "addr.h"

struct clients_limits {
	uint32_t max_sessions; /* 0: off */
	uint32_t rate_count; /* per period, and at once after a pause; 0: off */
	uint64_t rate_period_ns;
};

enum clients_verdict {
	CLIENTS_OK,
	CLIENTS_UNTRACKED, /* it may come in: no limits, no IP address, or no room in the table */
	CLIENTS_TOO_MANY, /* max_sessions is reached */
	CLIENTS_TOO_FAST /* the rate is reached */
};

struct clients;
struct client;

/* max: clients, at most; some thousands at least, for each has its place in one of 64 parts. As
 * many as there can be sessions, and some for rates, is never too few. The memory (about 128 bytes
 * each) is taken as it is needed. NULL: out of memory. */
struct clients *clients_new(unsigned int max);
void clients_free(struct clients *clients); /* NULL is fine */

/* A client wants a session. scope: whose limits they are, such as a number of the listener; it must
 * not be used for another one while clients of the former are left. A client that is refused uses
 * up neither limit. *ret_client is for clients_leave(); NULL unless the verdict is CLIENTS_OK.
 * Limits may change at any time; sessions that came in while both were off are not counted. */
enum clients_verdict clients_enter(struct clients *clients, uint32_t scope, const struct addr *addr,
	const struct clients_limits *limits, uint64_t now_ns, struct client **ret_client);

/* The session ends. Any thread. NULL is fine. */
void clients_leave(struct client *client, uint64_t now_ns);

/* Clients in the table now, for metrics: not exact while threads change it. */
unsigned int clients_count(const struct clients *clients);

#endif
