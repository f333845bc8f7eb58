/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keeps what this thread knows of each server (its seat) up to date, and decides which tier a
 * session is for.
 *
 * Nobody tells a thread that a shared state has changed. So each pick looks at the server it is
 * about to take, and at LOOKS more in turn; all of them are looked at when the last time was
 * BALANCE_STALE_NS ago. Up to LOOKS servers, the usual case, every pick sees everything.
 */
#include "balance.h"

#include <stdlib.h>
#include <string.h>

#include "balance_tier.h"

#define LOOKS 16
/* Loads grown since they were seen: after so many corrections the choice is good enough. */
#define CORRECTIONS_MAX 8
#define REBUILD_NS 1000000000ull

struct balance {
	struct balance_conf conf;
	unsigned int n;
	struct balance_server *servers;
	struct balance_seat *seats;
	struct balance_tier tiers[TIER_COUNT];
	unsigned int next_look;
	uint64_t looked_ns; /* at all */
	uint64_t random;

	/* source_hash */
	uint64_t *ids;
	uint32_t *table_weights;
	struct maglev *tables[2]; /* of normal servers, of backups */
	bool tables_stale;
	uint64_t tables_built_ns;
};

/* Tables */

/* The weight that the table goes by: 0 by the operator drains, it does not reshuffle. */
static uint32_t table_weight(const struct balance_server *server)
{
	uint32_t weight = balance_weight(server);

	return weight ? weight : MIN(server->weight, BALANCE_WEIGHT_MAX);
}

static struct maglev *table_of(const struct balance *b, bool backup, uint32_t *scratch)
{
	for (unsigned int i = 0; i < b->n; i++)
		scratch[i] = b->servers[i].backup == backup ? b->table_weights[i] : 0;
	return maglev_new(b->ids, scratch, b->n);
}

/* Without memory the old tables stay. */
static bool build_tables(struct balance *b)
{
	uint32_t *scratch = calloc(b->n + 1, sizeof(*scratch));
	struct maglev *tables[2] = {0};

	if (scratch) {
		tables[0] = table_of(b, false, scratch);
		tables[1] = table_of(b, true, scratch);
	}
	free(scratch);
	if (!tables[0] || !tables[1]) {
		maglev_free(tables[0]);
		maglev_free(tables[1]);
		return false;
	}
	for (unsigned int t = 0; t < 2; t++) {
		maglev_free(b->tables[t]);
		b->tables[t] = tables[t];
	}
	return true;
}

static void rebuild_tables(struct balance *b, uint64_t now_ns)
{
	/* Building takes milliseconds; an operator may change a thousand weights one by one. */
	if (!b->tables_stale || (b->tables_built_ns && now_ns < b->tables_built_ns + REBUILD_NS))
		return;
	b->tables_built_ns = now_ns;
	b->tables_stale = !build_tables(b);
}

/* Looking at servers */

static uint16_t ramp_of(const struct balance *b, const struct server_state *state, uint64_t now_ns)
{
	uint64_t since = atomic_load_explicit(&state->up_since_ns, memory_order_relaxed);
	uint64_t ejected = atomic_load_explicit(&state->ejected_until_ns, memory_order_relaxed);
	uint64_t slow = b->conf.slow_start_ns;

	if (ejected <= now_ns)
		since = MAX(since, ejected);
	if (!slow || !since || now_ns >= since + slow)
		return SEAT_WEIGHT_ONE;
	if (now_ns <= since)
		return SEAT_WEIGHT_ONE / 32;
	return (uint16_t)MAX((now_ns - since) * SEAT_WEIGHT_ONE / slow, SEAT_WEIGHT_ONE / 32);
}

static struct balance_seat see(struct balance *b, unsigned int i, uint64_t now_ns)
{
	const struct balance_server *server = &b->servers[i];
	struct balance_seat seen = {.tier = TIER_OUT};

	seen.active = atomic_load_explicit(&server->state->active, memory_order_relaxed);
	seen.full = server->max_sessions && seen.active >= server->max_sessions;
	seen.ramp = ramp_of(b, server->state, now_ns);
	seen.weight = balance_weight(server) * seen.ramp;
	/* The weight may have become 0 since; a seat in a tier must have one. */
	if (seen.weight && balance_is_up(server))
		seen.tier = (uint8_t)((balance_is_ejected(server->state, now_ns) ? TIER_EJECTED
										 : TIER_NORMAL) +
				      server->backup);
	return seen;
}

static struct balance_tier *tier_of(struct balance *b, const struct balance_seat *seat)
{
	return seat->tier < TIER_COUNT ? &b->tiers[seat->tier] : NULL;
}

/* To another tier, or to and from the turns of its own. */
static void move(struct balance *b, unsigned int i, const struct balance_seat *seen)
{
	struct balance_seat *seat = &b->seats[i];
	struct balance_tier *from = tier_of(b, seat), *to = tier_of(b, seen);

	if (from) {
		if (!seat->full)
			tier_leave(from, i);
		from->usable--;
		from->tried -= seat->tried;
		seat->tier = TIER_OUT;
		tier_place(from, i);
	}
	seat->full = seen->full;
	seat->weight = seen->weight;
	seat->active = seen->active;
	if (to) {
		seat->tier = seen->tier;
		to->usable++;
		to->tried += seat->tried;
		if (!seat->full)
			tier_join(to, i);
		tier_place(to, i);
	}
}

static void update(struct balance *b, unsigned int i, const struct balance_seat *seen)
{
	struct balance_seat *seat = &b->seats[i];

	seat->ramp = seen->ramp;
	if (seat->tier != seen->tier || seat->full != seen->full) {
		move(b, i, seen);
		return;
	}
	if (seat->tier == TIER_OUT || seat->full)
		return;
	if (seat->weight != seen->weight)
		tier_reweight(&b->tiers[seat->tier], i, seen->weight);
	if (seat->active != seen->active) {
		seat->active = seen->active;
		if (b->conf.mode == BALANCE_LEAST_SESSIONS)
			tier_place(&b->tiers[seat->tier], i);
	}
}

static void look(struct balance *b, unsigned int i, uint64_t now_ns)
{
	struct balance_seat seen = see(b, i, now_ns);

	update(b, i, &seen);
	if (b->conf.mode == BALANCE_SOURCE_HASH &&
		b->table_weights[i] != table_weight(&b->servers[i])) {
		b->table_weights[i] = table_weight(&b->servers[i]);
		b->tables_stale = true;
	}
}

static void look_at_all(struct balance *b, uint64_t now_ns)
{
	for (unsigned int i = 0; i < b->n; i++)
		look(b, i, now_ns);
	b->looked_ns = now_ns;
}

/* Whether a look would find it as useless as before. */
static bool is_still_out(const struct balance *b, unsigned int i)
{
	const struct balance_server *server = &b->servers[i];
	const struct server_state *state = server->state;

	if (b->seats[i].tier == TIER_OUT)
		return atomic_load_explicit(&state->down, memory_order_relaxed) ||
		       atomic_load_explicit(&state->admin, memory_order_relaxed) != SERVER_READY;
	return b->seats[i].full &&
	       atomic_load_explicit(&state->active, memory_order_relaxed) >= server->max_sessions;
}

/* While all are full or down each pick comes here: it must not cost a whole look at each. */
static void look_for_any(struct balance *b, uint64_t now_ns)
{
	for (unsigned int i = 0; i < b->n; i++)
		if (!is_still_out(b, i))
			look(b, i, now_ns);
	rebuild_tables(b, now_ns);
}

/* True: it looked at all. */
static bool look_around(struct balance *b, uint64_t now_ns)
{
	bool all = b->n <= LOOKS || now_ns - b->looked_ns >= BALANCE_STALE_NS;

	if (all)
		look_at_all(b, now_ns);
	for (unsigned int k = 0; !all && k < LOOKS; k++) {
		look(b, b->next_look, now_ns);
		b->next_look = (b->next_look + 1) % b->n;
	}
	rebuild_tables(b, now_ns);
	return all;
}

/* Picking */

void balance_tried_add(struct balance_tried *tried, unsigned int server)
{
	tried->servers[tried->n++ % BALANCE_TRIED_MAX] = server;
}

static void mark_tried(struct balance *b, const struct balance_tried *tried, bool mark)
{
	for (unsigned int k = 0; tried && k < MIN(tried->n, BALANCE_TRIED_MAX); k++) {
		unsigned int i = tried->servers[k];
		struct balance_tier *tier;

		if (i >= b->n || b->seats[i].tried == mark)
			continue;
		b->seats[i].tried = mark;
		tier = tier_of(b, &b->seats[i]);
		if (!tier)
			continue;
		tier->tried += mark ? 1u : -1u;
		tier_place(tier, i);
	}
}

/* True: the session is counted. Else the seat is no more what it was, and another may be better. */
static bool claim(
	struct balance *b, struct balance_tier *tier, unsigned int i, uint64_t now_ns, bool correct)
{
	struct balance_seat *seat = &b->seats[i];
	uint32_t active = seat->active;

	look(b, i, now_ns);
	if (seat->tier != tier->number || seat->full)
		return false;
	if (b->conf.mode == BALANCE_LEAST_SESSIONS && correct && seat->active > active)
		return false;
	if (!balance_claim(&b->servers[i])) {
		struct balance_seat seen = *seat;

		seen.full = true;
		update(b, i, &seen);
		return false;
	}
	seat->active++;
	tier_charge(tier, i);
	return true;
}

static int pick_in(struct balance *b, struct balance_tier *tier, uint64_t now_ns, uint64_t hash)
{
	for (unsigned int k = 0;; k++) {
		int i = tier_choose(tier, hash);

		if (i < 0 || claim(b, tier, (unsigned int)i, now_ns, k < CORRECTIONS_MAX))
			return i;
	}
}

static int pick(struct balance *b, uint64_t now_ns, uint64_t hash)
{
	bool tried = false;

	for (unsigned int t = 0; t < TIER_COUNT; t++) {
		struct balance_tier *tier = &b->tiers[t];
		int i = pick_in(b, tier, now_ns, hash);

		if (i >= 0)
			return i;
		if (tier->usable > tier->tried)
			return BALANCE_FULL;
		tried |= tier->tried > 0;
	}
	return tried ? BALANCE_ALL_TRIED : BALANCE_NONE;
}

int balance_pick(
	struct balance *b, uint64_t now_ns, uint64_t client_hash, const struct balance_tried *tried)
{
	bool all = look_around(b, now_ns);
	int i;

	mark_tried(b, tried, true);
	i = pick(b, now_ns, client_hash);
	if (i < 0 && !all) {
		look_for_any(b, now_ns);
		i = pick(b, now_ns, client_hash);
	}
	mark_tried(b, tried, false);
	return i;
}

/* Making */

static int init_source_hash(struct balance *b)
{
	b->ids = calloc(b->n + 1, sizeof(*b->ids));
	b->table_weights = calloc(b->n + 1, sizeof(*b->table_weights));
	if (!b->ids || !b->table_weights)
		return -1;
	for (unsigned int i = 0; i < b->n; i++) {
		b->ids[i] = maglev_id(b->servers[i].name);
		b->table_weights[i] = table_weight(&b->servers[i]);
	}
	return build_tables(b) ? 0 : -1;
}

static int init_tiers(struct balance *b)
{
	for (unsigned int t = 0; t < TIER_COUNT; t++) {
		b->tiers[t] = (struct balance_tier){
			.mode = b->conf.mode,
			.number = t,
			.servers = b->servers,
			.seats = b->seats,
			.n = b->n,
			.phase = b->n ? (unsigned int)(b->conf.seed % b->n) : 0,
			.random = &b->random,
			.table = &b->tables[t % 2],
		};
		if (tier_init(&b->tiers[t]))
			return -1;
	}
	return 0;
}

struct balance *balance_new(
	const struct balance_conf *conf, const struct balance_server *servers, unsigned int n)
{
	struct balance *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->conf = *conf;
	b->n = n;
	b->random = maglev_mix(conf->seed);
	b->servers = calloc(n + 1, sizeof(*b->servers));
	b->seats = calloc(n + 1, sizeof(*b->seats));
	for (unsigned int i = 0; b->servers && b->seats && i < n; i++) {
		b->servers[i] = servers[i];
		b->seats[i].tier = TIER_OUT;
	}
	if (!b->servers || !b->seats || init_tiers(b) ||
		(conf->mode == BALANCE_SOURCE_HASH && init_source_hash(b))) {
		balance_free(b);
		return NULL;
	}
	for (unsigned int i = 0; i < n; i++)
		b->servers[i].name = NULL; /* not ours */
	return b;
}

void balance_free(struct balance *b)
{
	if (!b)
		return;
	for (unsigned int t = 0; t < TIER_COUNT; t++)
		tier_done(&b->tiers[t]);
	for (unsigned int t = 0; t < 2; t++)
		maglev_free(b->tables[t]);
	free(b->ids);
	free(b->table_weights);
	free(b->seats);
	free(b->servers);
	free(b);
}
