/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One generation of the configuration as one thread uses it: with that thread's balancers. Sessions
 * keep the policy under which they began; the last one that leaves frees it.
 */
#ifndef SHUNT_POLICY_H
#define SHUNT_POLICY_H

#include "balance.h"
#include "generation.h"

struct policy_backend {
	const struct conf_backend *conf;
	struct queue *queue;
	struct balance *balance;
	struct balance_server *servers; /* in the order of conf->servers */
	struct balance_ejection ejection;
};

struct policy {
	unsigned int refs; /* of one thread: no atomics */
	struct generation *generation;
	const struct conf *conf;
	struct policy_backend *backends; /* [conf->nbackends] */
};

/* Takes a reference of the generation. NULL: out of memory. */
struct policy *policy_new(
	struct generation *generation, struct server_state *states, unsigned int thread);
struct policy *policy_ref(struct policy *policy);
void policy_unref(struct policy *policy); /* NULL is fine */

static inline struct policy_backend *policy_backend_of(
	const struct policy *policy, const struct conf_listener *listener)
{
	return &policy->backends[listener->backend - policy->conf->backends];
}

#endif
