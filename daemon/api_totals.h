/* SPDX-License-Identifier: BSD-2-Clause */
/* The counters of one listener or server, added up over the threads, and what a server may do now.
 */
#ifndef SHUNT_API_TOTALS_H
#define SHUNT_API_TOTALS_H

#include <stdbool.h>

#include "stats.h"

struct conf_server;

struct listener_totals {
	uint64_t sessions, active, overflows;
	uint64_t ended[END_REASON_COUNT];
	uint64_t rejected[REJECT_REASON_COUNT];
	uint64_t bytes[DIR_COUNT][PATH_COUNT];
};

struct server_totals {
	uint64_t sessions, active;
	uint64_t connect_failures[END_REASON_COUNT];
	uint64_t bytes[DIR_COUNT];
};

/* A snapshot of the server's shared state. */
struct server_view {
	unsigned int admin; /* enum server_admin */
	unsigned int weight; /* the operator's, else the configured one */
	bool weight_is_operators;
	bool up, ejected;
	bool usable; /* a new session may be sent there; ejection, which is short, does not count */
	uint32_t active;
	uint32_t failures_in_row;
	uint64_t ejected_ms; /* still */
	uint64_t check_failures, check_successes;
};

extern const char *const server_admin_names[3]; /* "ready", "drain", "maint" */

struct listener_totals api_listener_totals(struct stats *stats, unsigned int slot);
struct server_totals api_server_totals(struct stats *stats, unsigned int slot);
struct server_view api_server_view(const struct stats *stats, const struct conf_server *server);

#endif
