/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Weighted turns in O(log n), after WF2Q and EEVDF. In virtual time each turn of a seat takes
 * TURN / weight: it starts where the one before ended. The virtual time now is the mean of all
 * starts by weight; a turn is due once its start has come, and of those due the one that ends first
 * is taken. So no seat is ever a whole turn ahead of or behind its share. The usual smooth weighted
 * round robin has the same aim but looks at every server for each choice; taking the first end
 * without waiting for the start would be one tree less, and give a heavy server its turns in a row.
 *
 * least_sessions uses the ends to break ties. There a seat is not chosen for other reasons than
 * time: its turns begin anew at the clock, the start of the latest turn, rather than being made up
 * for.
 */
#include "balance_tier.h"

#define TURN (1ull << 40)
/* Virtual time starts shortly before it has to be moved back, so that this is no rare case. */
#define CLOCK_MAX (1ull << 60)
#define CLOCK_FIRST (CLOCK_MAX - 2 * TURN)
#define CLOCK_REBASED (4 * TURN) /* no seat is as much behind */

#define RAMP_PROBES 16 /* table entries where a starting server may still decline */

typedef unsigned __int128 u128;

int tier_init(struct balance_tier *tier)
{
	int err = 0;

	tier->clock = CLOCK_FIRST;
	if (tier->mode == BALANCE_ROUND_ROBIN || tier->mode == BALANCE_LEAST_SESSIONS)
		err = min_tree_init(&tier->due, tier->n);
	if (!err && tier->mode == BALANCE_ROUND_ROBIN)
		err = min_tree_init(&tier->waiting, tier->n);
	if (!err && tier->mode == BALANCE_RANDOM_TWO)
		err = sum_tree_init(&tier->weights, tier->n);
	return err;
}

void tier_done(struct balance_tier *tier)
{
	min_tree_done(&tier->due);
	min_tree_done(&tier->waiting);
	sum_tree_done(&tier->weights);
}

/* Not added up turn by turn: rounding would add up as well. */
static uint64_t start_of(const struct balance_seat *seat)
{
	return seat->base + TURN * seat->turns / seat->weight;
}

static uint64_t end_of(const struct balance_seat *seat)
{
	return seat->base + TURN * (seat->turns + 1) / seat->weight;
}

static uint64_t tier_now(const struct balance_tier *tier)
{
	if (tier->mode == BALANCE_ROUND_ROBIN && tier->total)
		return (uint64_t)(tier->sum / tier->total);
	return tier->clock;
}

/* start <= now, without a division, and with one unit to spare since starts are rounded. */
static bool is_due(const struct balance_tier *tier, uint64_t start)
{
	return (u128)start * tier->total <= tier->sum + tier->total;
}

static void join_at(struct balance_tier *tier, unsigned int i, uint64_t base)
{
	struct balance_seat *seat = &tier->seats[i];

	seat->base = base;
	seat->turns = 0;
	tier->total += seat->weight;
	tier->sum += (u128)base * seat->weight;
}

/* Which of equals comes first differs between threads. */
static unsigned int rotated(const struct balance_tier *tier, unsigned int i)
{
	return (i + tier->n - tier->phase) % tier->n;
}

void tier_join(struct balance_tier *tier, unsigned int i)
{
	/* For least_sessions the key has no room for a third rank; n units are next to nothing. */
	unsigned int after = tier->mode == BALANCE_LEAST_SESSIONS ? rotated(tier, i) : 0;

	join_at(tier, i, tier_now(tier) + after);
}

void tier_leave(struct balance_tier *tier, unsigned int i)
{
	struct balance_seat *seat = &tier->seats[i];

	tier->clock = tier_now(tier);
	tier->total -= seat->weight;
	tier->sum -= (u128)start_of(seat) * seat->weight;
}

void tier_reweight(struct balance_tier *tier, unsigned int i, uint32_t weight)
{
	struct balance_seat *seat = &tier->seats[i];
	uint64_t now = tier_now(tier);
	__int128 ahead = (__int128)start_of(seat) - now;

	ahead = ahead * seat->weight / weight;
	ahead = MAX(MIN(ahead, (__int128)TURN), -(__int128)TURN);
	tier_leave(tier, i);
	seat->weight = weight;
	join_at(tier, i, (uint64_t)(now + ahead));
	tier_place(tier, i);
}

static void place_turn(struct balance_tier *tier, unsigned int i)
{
	const struct balance_seat *seat = &tier->seats[i];
	struct tree_key due = TREE_ABSENT, waiting = TREE_ABSENT;

	if (seat->listed && is_due(tier, start_of(seat)))
		due = (struct tree_key){end_of(seat), rotated(tier, i)};
	else if (seat->listed)
		waiting = (struct tree_key){start_of(seat), rotated(tier, i)};
	min_tree_set(&tier->due, i, due);
	min_tree_set(&tier->waiting, i, waiting);
}

static void place_load(struct balance_tier *tier, unsigned int i)
{
	const struct balance_seat *seat = &tier->seats[i];
	struct tree_key key = TREE_ABSENT;

	if (seat->listed)
		key = (struct tree_key){
			((uint64_t)seat->active << 32) / seat->weight, end_of(seat)};
	min_tree_set(&tier->due, i, key);
}

void tier_place(struct balance_tier *tier, unsigned int i)
{
	struct balance_seat *seat = &tier->seats[i];
	bool listed = seat->tier == tier->number && !seat->full && !seat->tried;

	/* It was listed in this tier, or in none: a seat is unlisted before it changes to another.
	 */
	tier->listed += (unsigned int)listed - seat->listed;
	seat->listed = listed;
	switch (tier->mode) {
	case BALANCE_ROUND_ROBIN:
		place_turn(tier, i);
		break;
	case BALANCE_LEAST_SESSIONS:
		place_load(tier, i);
		break;
	case BALANCE_RANDOM_TWO:
		sum_tree_set(&tier->weights, i, listed ? seat->weight : 0);
		break;
	case BALANCE_SOURCE_HASH:
		break;
	}
}

static int choose_turn(struct balance_tier *tier)
{
	int i = min_tree_first(&tier->waiting);

	while (i >= 0 && is_due(tier, start_of(&tier->seats[i]))) {
		place_turn(tier, (unsigned int)i);
		i = min_tree_first(&tier->waiting);
	}
	i = min_tree_first(&tier->due);
	/* None is due when those that are have been tried by this session. */
	return i >= 0 ? i : min_tree_first(&tier->waiting);
}

static unsigned int draw(struct balance_tier *tier)
{
	uint64_t random = maglev_mix(*tier->random += 0x9e3779b97f4a7c15ull);

	return sum_tree_find(
		&tier->weights, (uint64_t)((u128)random * tier->weights.sums[1] >> 64));
}

static int choose_of_two(struct balance_tier *tier)
{
	unsigned int a = draw(tier), b;
	uint64_t load_a, load_b;

	if (tier->listed == 1)
		return (int)a;
	sum_tree_set(&tier->weights, a, 0);
	b = draw(tier);
	sum_tree_set(&tier->weights, a, tier->seats[a].weight);
	load_a = atomic_load_explicit(&tier->servers[a].state->active, memory_order_relaxed);
	load_b = atomic_load_explicit(&tier->servers[b].state->active, memory_order_relaxed);
	return (int)(load_a * tier->seats[b].weight <= load_b * tier->seats[a].weight ? a : b);
}

static int any_listed(const struct balance_tier *tier)
{
	for (unsigned int i = 0; i < tier->n; i++) {
		if (tier->seats[i].listed && tier->seats[i].tier == tier->number)
			return (int)i;
	}
	return -1;
}

/* The neighbours of an entry belong to other servers as by chance: walking on spreads the clients
 * of a server over all others. */
static int choose_by_hash(const struct balance_tier *tier, uint64_t hash)
{
	const struct maglev *table = *tier->table;
	uint32_t at = table->size ? (uint32_t)(hash % table->size) : 0;

	for (uint32_t k = 0; k < table->size; k++) {
		uint32_t i = table->entries[at];
		const struct balance_seat *seat = &tier->seats[i];

		if (++at == table->size)
			at = 0;
		if (!seat->listed || seat->tier != tier->number)
			continue;
		if (k >= RAMP_PROBES || maglev_mix(hash + k) % SEAT_WEIGHT_ONE < seat->ramp)
			return (int)i;
	}
	/* A server that has just been given a weight is not in the table yet. */
	return any_listed(tier);
}

int tier_choose(struct balance_tier *tier, uint64_t client_hash)
{
	if (!tier->listed)
		return -1;
	switch (tier->mode) {
	case BALANCE_ROUND_ROBIN:
		return choose_turn(tier);
	case BALANCE_LEAST_SESSIONS:
		return min_tree_first(&tier->due);
	case BALANCE_RANDOM_TWO:
		return choose_of_two(tier);
	case BALANCE_SOURCE_HASH:
		return choose_by_hash(tier, client_hash);
	}
	return -1;
}

static void rebase(struct balance_tier *tier)
{
	uint64_t back = tier_now(tier) - CLOCK_REBASED;

	tier->clock = CLOCK_REBASED;
	tier->sum -= (u128)back * tier->total;
	for (unsigned int i = 0; i < tier->n; i++) {
		/* Others get their base when they join. */
		if (tier->seats[i].tier != tier->number || tier->seats[i].full)
			continue;
		/* least_sessions may have seats that are behind by any time. */
		tier->seats[i].base -= MIN(back, tier->seats[i].base);
		tier_place(tier, i);
	}
}

static void take_turn(struct balance_tier *tier, struct balance_seat *seat)
{
	uint64_t start = start_of(seat);

	tier->sum -= (u128)start * seat->weight;
	if (++seat->turns == seat->weight) {
		seat->base += TURN;
		seat->turns = 0;
	}
	if (tier->mode == BALANCE_LEAST_SESSIONS) {
		tier->clock = MAX(tier->clock, start);
		if (start_of(seat) < tier->clock) {
			seat->base = tier->clock;
			seat->turns = 0;
		}
	}
	tier->sum += (u128)start_of(seat) * seat->weight;
}

void tier_charge(struct balance_tier *tier, unsigned int i)
{
	struct balance_seat *seat = &tier->seats[i];

	if (tier->mode == BALANCE_RANDOM_TWO || tier->mode == BALANCE_SOURCE_HASH)
		return;
	take_turn(tier, seat);
	tier_place(tier, i);
	if (start_of(seat) >= CLOCK_MAX)
		rebase(tier);
}
