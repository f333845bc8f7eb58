/* SPDX-License-Identifier: BSD-2-Clause */
#include "policy.h"

#include <stdlib.h>

/* Passive checks: this many failures in a row take a server out for a while; never more than half
 * of them. */
#define EJECTION_THRESHOLD 3
#define EJECTION_TIMES_MAX 30
#define EJECTION_PERCENT 50

static int fill(struct policy_backend *backend, const struct conf_backend *conf,
	struct server_state *states, unsigned int thread)
{
	struct balance_conf balance = {
		.mode = conf->balance,
		.slow_start_ns = conf->slow_start_ms * 1000000ull,
		.seed = thread,
	};

	backend->conf = conf;
	backend->ejection = (struct balance_ejection){
		.time_ns = conf->ejection_ms * 1000000ull,
		.time_max_ns = conf->ejection_ms * 1000000ull * EJECTION_TIMES_MAX,
		.threshold = EJECTION_THRESHOLD,
		.max_percent = EJECTION_PERCENT,
	};
	backend->servers = calloc(conf->nservers + 1, sizeof(*backend->servers));
	if (!backend->servers)
		return -1;
	for (unsigned int i = 0; i < conf->nservers; i++)
		backend->servers[i] = (struct balance_server){
			.name = conf->servers[i].name,
			.state = &states[conf->servers[i].slot],
			.weight = conf->servers[i].weight,
			.max_sessions = conf->servers[i].max_sessions,
			.backup = conf->servers[i].backup,
		};
	backend->balance = balance_new(&balance, backend->servers, conf->nservers);
	return backend->balance ? 0 : -1;
}

struct policy *policy_new(
	struct generation *generation, struct server_state *states, unsigned int thread)
{
	const struct conf *conf = generation->conf;
	struct policy *policy = calloc(1, sizeof(*policy));

	if (!policy)
		return NULL;
	policy->refs = 1;
	policy->generation = generation_ref(generation);
	policy->conf = conf;
	policy->backends = calloc(conf->nbackends + 1, sizeof(*policy->backends));
	for (unsigned int i = 0; policy->backends && i < conf->nbackends; i++) {
		policy->backends[i].queue = generation->queues[i];
		if (fill(&policy->backends[i], &conf->backends[i], states, thread)) {
			policy_unref(policy);
			return NULL;
		}
	}
	if (policy->backends)
		return policy;
	policy_unref(policy);
	return NULL;
}

struct policy *policy_ref(struct policy *policy)
{
	policy->refs++;
	return policy;
}

void policy_unref(struct policy *policy)
{
	if (!policy || --policy->refs)
		return;
	for (unsigned int i = 0; policy->backends && i < policy->conf->nbackends; i++) {
		balance_free(policy->backends[i].balance);
		free(policy->backends[i].servers);
	}
	free(policy->backends);
	generation_unref(policy->generation);
	free(policy);
}
