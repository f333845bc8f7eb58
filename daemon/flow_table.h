/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The daemon's side of the `flows` table: open addressing by socket cookie, as struct flow says.
 * Slots are claimed with a compare-and-swap, so threads need no lock. No system call.
 */
#ifndef SHUNT_FLOW_TABLE_H
#define SHUNT_FLOW_TABLE_H

#include "../bpf/abi.h"
#include "util.h"

/* A slot for this cookie with cleared counters, or NULL when all its slots are taken (a fallback,
 * never a wait). Nobody finds it before the caller has filled in the rest and published it. */
struct flow *flow_claim(struct flow *table, unsigned int shift, uint64_t cookie);
void flow_publish(struct flow *flow, uint64_t cookie);
/* NULL: no slot has this cookie. */
struct flow *flow_find(struct flow *table, unsigned int shift, uint64_t cookie);
/* Only after no program can run for the socket any more. */
void flow_release(struct flow *flow);

#endif
