/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Maglev's lookup table (Eisenbud et al., NSDI 2016), with weights: which server a hash belongs to.
 * Pure.
 *
 * The table follows from the names and weights alone, whatever their order: hosts with the same
 * configuration choose the same server. So none of the hashes here may ever change: two versions of
 * the daemon would send a client to different servers.
 */
#ifndef SHUNT_MAGLEV_H
#define SHUNT_MAGLEV_H

#include <stddef.h>
#include <stdint.h>

#include "addr.h"

struct maglev {
	uint32_t size; /* a prime; 0: no server has a weight */
	uint32_t entries[]; /* numbers of servers */
};

/* A server of weight 0 is not in it; each other one is at least once. NULL: out of memory. A table
 * of 1,000 servers takes 256 KiB and some milliseconds. */
struct maglev *maglev_new(const uint64_t *ids, const uint32_t *weights, unsigned int n);
void maglev_free(struct maglev *table); /* NULL is fine */

/* What maglev_new() wants to know of a name. */
uint64_t maglev_id(const char *name);

/* Of the address without its port, in one form for IPv4 and IPv4-mapped. All clients of UNIX
 * sockets have the same one. */
uint64_t maglev_client_hash(const struct addr *client);

/* Spreads every bit over all bits. */
static inline uint64_t maglev_mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

#endif
