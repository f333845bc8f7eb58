/* SPDX-License-Identifier: BSD-2-Clause */
#include "generation.h"

#include <stdlib.h>

static int build(struct generation *generation, struct queues *queues)
{
	const struct conf *conf = generation->conf;

	generation->access = calloc(conf->nlisteners + 1, sizeof(struct cidr *));
	generation->queues = calloc(conf->nbackends + 1, sizeof(struct queue *));
	if (!generation->access || !generation->queues)
		return -1;
	for (unsigned int i = 0; i < conf->nlisteners; i++) {
		const struct conf_cidrs *access = &conf->listeners[i].access;

		generation->access[i] = access->n ? cidr_new(access->v, access->n) : NULL;
		if (access->n && !generation->access[i])
			return -1;
	}
	for (unsigned int i = 0; i < conf->nbackends; i++) {
		generation->queues[i] = queues_get(queues, conf->backends[i].name);
		if (!generation->queues[i])
			return -1;
	}
	return 0;
}

struct generation *generation_new(struct conf *conf, unsigned int number, struct queues *queues)
{
	struct generation *generation = calloc(1, sizeof(*generation));

	if (!generation) {
		conf_free(conf);
		return NULL;
	}
	generation->conf = conf;
	generation->number = number;
	atomic_init(&generation->refs, 1);
	if (build(generation, queues)) {
		generation_unref(generation);
		return NULL;
	}
	return generation;
}

struct generation *generation_ref(struct generation *generation)
{
	atomic_fetch_add_explicit(&generation->refs, 1, memory_order_relaxed);
	return generation;
}

void generation_unref(struct generation *generation)
{
	if (!generation ||
		atomic_fetch_sub_explicit(&generation->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (unsigned int i = 0; generation->access && i < generation->conf->nlisteners; i++)
		cidr_free(generation->access[i]);
	free(generation->access);
	free(generation->queues);
	conf_free(generation->conf);
	free(generation);
}
