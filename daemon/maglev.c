/* SPDX-License-Identifier: BSD-2-Clause */
#include "maglev.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cidr.h"

#define EMPTY UINT32_MAX
/* Different multiples of the golden ratio: the start and the step of a name are independent. */
#define SEED_START 0x9e3779b97f4a7c15ull
#define SEED_STEP 0x3c6ef372fe94f82aull

struct candidate {
	uint64_t id;
	uint32_t server, weight;
	uint32_t next, step; /* walks over every entry once: the size is prime */
};

/* While a table is built. */
struct work {
	struct maglev *table;
	struct candidate *candidates;
	uint32_t *turns; /* candidates in the order of their turns */
	uint32_t *first; /* [slot + 1]: where the turns of a slot begin in turns */
	unsigned int n;
	uint64_t total;
	uint32_t filled;
};

static uint64_t hash_bytes(const void *bytes, size_t len)
{
	const unsigned char *p = bytes;
	uint64_t hash = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ p[i]) * 0x100000001b3ull;
	return maglev_mix(hash);
}

uint64_t maglev_id(const char *name)
{
	return hash_bytes(name, strlen(name));
}

uint64_t maglev_client_hash(const struct addr *client)
{
	struct in6_addr ip;

	return cidr_ip(client, &ip) ? hash_bytes(&ip, sizeof(ip)) : 0;
}

/* At least 50 entries per server keep the shares within 2 %; a small table stays in the cache. */
static uint32_t size_for(unsigned int n)
{
	static const uint32_t primes[] = {5003, 65537, 655373};

	for (unsigned int i = 0; i < 2; i++) {
		if (n <= primes[i] / 50)
			return primes[i];
	}
	return primes[2];
}

static int by_id(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

static bool collect(struct work *work, const uint64_t *ids, const uint32_t *weights, unsigned int n)
{
	uint32_t size;

	work->candidates = calloc(n + 1, sizeof(*work->candidates));
	if (!work->candidates)
		return false;
	for (unsigned int i = 0; i < n; i++) {
		if (!weights[i])
			continue;
		work->candidates[work->n++] =
			(struct candidate){.id = ids[i], .server = i, .weight = weights[i]};
		work->total += weights[i];
	}
	/* The order of the configuration must not matter. */
	qsort(work->candidates, work->n, sizeof(*work->candidates), by_id);
	size = work->n ? size_for(work->n) : 0;
	work->table = malloc(sizeof(*work->table) + size * sizeof(uint32_t));
	if (!work->table)
		return false;
	work->table->size = size;
	for (unsigned int i = 0; i < work->n; i++) {
		struct candidate *c = &work->candidates[i];

		c->next = (uint32_t)(maglev_mix(c->id ^ SEED_START) % size);
		c->step = (uint32_t)(maglev_mix(c->id ^ SEED_STEP) % (size - 1) + 1);
	}
	return true;
}

/* The slot of a candidate's turn: turns are spread evenly, in proportion to the weight. EMPTY:
 * beyond the table. The first turn comes in the first half, so that nobody is left without an
 * entry. */
static uint32_t slot_of(const struct work *work, const struct candidate *c, uint32_t turn)
{
	uint64_t slot = (2ull * turn + 1) * work->total / (2ull * c->weight);

	if (turn == 0 && slot >= work->table->size / 2)
		return work->table->size / 2;
	return slot < work->table->size ? (uint32_t)slot : EMPTY;
}

/* A counting sort: by slot, then in the order of the candidates. */
static bool order_turns(struct work *work)
{
	uint32_t size = work->table->size, slot, sum = 0;

	work->first = calloc(size + 1, sizeof(*work->first));
	if (!work->first)
		return false;
	for (unsigned int i = 0; i < work->n; i++)
		for (uint32_t k = 0; (slot = slot_of(work, &work->candidates[i], k)) != EMPTY; k++)
			work->first[slot + 1]++;
	for (slot = 0; slot <= size; slot++)
		sum = work->first[slot] += sum;
	work->turns = malloc((sum + 1) * sizeof(*work->turns));
	if (!work->turns)
		return false;
	for (unsigned int i = 0; i < work->n; i++)
		for (uint32_t k = 0; (slot = slot_of(work, &work->candidates[i], k)) != EMPTY; k++)
			work->turns[work->first[slot]++] = i;
	return true; /* first[size], where no turn was put, is their number */
}

static void take_turn(struct work *work, struct candidate *c)
{
	struct maglev *table = work->table;

	while (table->entries[c->next] != EMPTY)
		c->next = (c->next + c->step) % table->size;
	table->entries[c->next] = c->server;
	work->filled++;
}

static void fill(struct work *work)
{
	uint32_t size = work->table->size, nturns = work->first[size];

	for (uint32_t i = 0; i < size; i++)
		work->table->entries[i] = EMPTY;
	for (uint32_t i = 0; i < nturns && work->filled < size; i++)
		take_turn(work, &work->candidates[work->turns[i]]);
	/* Rounding leaves a few entries. */
	for (uint32_t i = 0; work->filled < size; i++)
		take_turn(work, &work->candidates[i % work->n]);
}

struct maglev *maglev_new(const uint64_t *ids, const uint32_t *weights, unsigned int n)
{
	struct work work = {0};
	bool ok = collect(&work, ids, weights, n) && (!work.n || order_turns(&work));

	if (ok && work.n)
		fill(&work);
	free(work.candidates);
	free(work.turns);
	free(work.first);
	if (!ok) {
		free(work.table);
		return NULL;
	}
	return work.table;
}

void maglev_free(struct maglev *table)
{
	free(table);
}
