/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The order among servers of equal standing (normal ones, backups, ...) for each algorithm. Knows
 * what balance.c last saw of each server (its seat) and must not know why a server is in its tier.
 */
#ifndef SHUNT_BALANCE_TIER_H
#define SHUNT_BALANCE_TIER_H

#include "balance.h"
#include "balance_tree.h"
#include "maglev.h"

/* In the order of preference. */
enum {
	TIER_NORMAL,
	TIER_BACKUP,
	TIER_EJECTED,
	TIER_EJECTED_BACKUP,
	TIER_COUNT,
	TIER_OUT = TIER_COUNT
};

/* The weight of a seat whose server has weight 1 and is not starting. */
#define SEAT_WEIGHT_ONE 256

/* A server as this thread last saw it. It takes turns in its tier while it is not full. */
struct balance_seat {
	uint64_t base; /* its virtual time before its turns */
	uint32_t turns; /* taken since; below weight */
	uint32_t weight; /* grows in slow start */
	uint32_t active;
	uint16_t ramp; /* of SEAT_WEIGHT_ONE: the part of the full weight */
	uint8_t tier; /* TIER_OUT: not usable */
	bool full;
	bool tried; /* by the session that is about to be placed */
	bool listed; /* may be chosen: kept by tier_place() */
};

struct balance_tier {
	enum balance_mode mode;
	unsigned int number; /* TIER_... */
	const struct balance_server *servers;
	struct balance_seat *seats; /* [n], of all tiers */
	unsigned int n, phase;
	unsigned int usable, tried, listed; /* seats in this tier; kept by balance.c, but listed */
	uint64_t *random;
	struct maglev *const *table;

	/* Virtual time: see balance_tier.c. */
	uint64_t total; /* weights of the seats that take turns */
	unsigned __int128 sum; /* of weight * start of the same */
	uint64_t clock;
	struct min_tree due, waiting; /* due only, for least_sessions */
	struct sum_tree weights;
};

MUST_CHECK int tier_init(struct balance_tier *tier);
void tier_done(struct balance_tier *tier);

/* A seat begins or ceases to take turns. tier_place() it afterwards. */
void tier_join(struct balance_tier *tier, unsigned int i);
void tier_leave(struct balance_tier *tier, unsigned int i);
/* Keeps its place in the turns, in proportion. */
void tier_reweight(struct balance_tier *tier, unsigned int i, uint32_t weight);
/* Brings the trees up to date after any change of a seat. */
void tier_place(struct balance_tier *tier, unsigned int i);

/* -1: none is listed. Changes nothing that the next call would notice. */
int tier_choose(struct balance_tier *tier, uint64_t client_hash);
/* The chosen seat has used its turn. */
void tier_charge(struct balance_tier *tier, unsigned int i);

#endif
