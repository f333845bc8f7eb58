/* SPDX-License-Identifier: BSD-2-Clause */
#include "generation.h"

#include <stdlib.h>

static int build_lists(struct generation *generation, unsigned int i)
{
	const struct conf_listener *listener = &generation->conf->listeners[i];
	const struct conf_cidrs *access = &listener->access;
	const struct conf_cidrs *proxies = &listener->accept_proxy_from;

	generation->access[i] = access->n ? cidr_new(access->v, access->n) : NULL;
	generation->proxies[i] = proxies->n ? cidr_new(proxies->v, proxies->n) : NULL;
	if (access->n && !generation->access[i])
		return -1;
	return proxies->n && !generation->proxies[i] ? -1 : 0;
}

static int build_routes(struct generation *generation, unsigned int i)
{
	const struct conf_listener *listener = &generation->conf->listeners[i];
	const struct conf_backend *backends = generation->conf->backends;
	struct route_row *rows;
	const char *error;
	size_t row;

	if (!listener->nroutes)
		return 0;
	rows = calloc(listener->nroutes, sizeof(*rows));
	for (unsigned int r = 0; rows && r < listener->nroutes; r++)
		rows[r] = (struct route_row){
			.pattern = listener->routes[r].pattern,
			.backend = (unsigned int)(listener->routes[r].backend - backends),
		};
	generation->routes[i] = rows ? routes_new(rows, listener->nroutes, &row, &error) : NULL;
	free(rows);
	return generation->routes[i] ? 0 : -1;
}

static int build(struct generation *generation, struct queues *queues)
{
	const struct conf *conf = generation->conf;

	generation->access = calloc(conf->nlisteners + 1, sizeof(struct cidr *));
	generation->proxies = calloc(conf->nlisteners + 1, sizeof(struct cidr *));
	generation->routes = calloc(conf->nlisteners + 1, sizeof(struct routes *));
	generation->queues = calloc(conf->nbackends + 1, sizeof(struct queue *));
	if (!generation->access || !generation->proxies || !generation->routes ||
		!generation->queues)
		return -1;
	for (unsigned int i = 0; i < conf->nlisteners; i++)
		if (build_lists(generation, i) || build_routes(generation, i))
			return -1;
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
	for (unsigned int i = 0; i < generation->conf->nlisteners; i++) {
		if (generation->access)
			cidr_free(generation->access[i]);
		if (generation->proxies)
			cidr_free(generation->proxies[i]);
		if (generation->routes)
			routes_free(generation->routes[i]);
	}
	free(generation->access);
	free(generation->proxies);
	free(generation->routes);
	free(generation->queues);
	conf_free(generation->conf);
	free(generation);
}
