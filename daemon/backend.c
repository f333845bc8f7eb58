/* SPDX-License-Identifier: BSD-2-Clause */
#include "backend.h"

#include <stdlib.h>

struct backend_choice *backend_choices_new(const struct conf *conf)
{
	struct backend_choice *choices = calloc(conf->nbackends + 1, sizeof(*choices));

	if (!choices)
		return NULL;
	for (unsigned int i = 0; i < conf->nbackends; i++) {
		choices[i].conf = &conf->backends[i];
		choices[i].current = calloc(conf->backends[i].nservers + 1, sizeof(int64_t));
		if (!choices[i].current) {
			backend_choices_free(choices, i);
			return NULL;
		}
	}
	return choices;
}

void backend_choices_free(struct backend_choice *choices, unsigned int n)
{
	if (!choices)
		return;
	for (unsigned int i = 0; i < n; i++)
		free(choices[i].current);
	free(choices);
}

/* Smooth weighted round robin: each server gains its weight, the richest one is chosen and pays the sum.
 * Weights 5,1,1 give a a b a c a a rather than five a in a row. */
int backend_pick(struct backend_choice *choice)
{
	const struct conf_backend *conf = choice->conf;
	int64_t total = 0;
	int best = -1;

	for (unsigned int i = 0; i < conf->nservers; i++) {
		if (!conf->servers[i].weight)
			continue;
		total += conf->servers[i].weight;
		choice->current[i] += conf->servers[i].weight;
		if (best < 0 || choice->current[i] > choice->current[best])
			best = (int)i;
	}
	if (best >= 0)
		choice->current[best] -= total;
	return best;
}
