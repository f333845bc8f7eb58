/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the claims on slots. The counters in a slot belong to the programs. */
#include "flow_table.h"

#include <stddef.h>
#include <string.h>

struct flow *flow_claim(struct flow *table, unsigned int shift, uint64_t cookie)
{
	uint64_t first = (cookie * FLOW_HASH_MULT) >> shift;
	uint64_t mask = (1ull << (64 - shift)) - 1;

	for (unsigned int i = 0; i < FLOW_PROBES; i++) {
		struct flow *flow = &table[(first + i) & mask];
		__u64 none = 0;

		if (!__atomic_compare_exchange_n(&flow->cookie, &none, FLOW_CLAIMED, 0,
			    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			continue;
		memset(&flow->redirected, 0, sizeof(*flow) - offsetof(struct flow, redirected));
		flow->handback = FLOW_NO_HANDBACK;
		return flow;
	}
	return NULL;
}

void flow_publish(struct flow *flow, uint64_t cookie)
{
	__atomic_store_n(&flow->cookie, cookie, __ATOMIC_RELEASE);
}

struct flow *flow_find(struct flow *table, unsigned int shift, uint64_t cookie)
{
	uint64_t first = (cookie * FLOW_HASH_MULT) >> shift;
	uint64_t mask = (1ull << (64 - shift)) - 1;

	for (unsigned int i = 0; i < FLOW_PROBES; i++) {
		struct flow *flow = &table[(first + i) & mask];

		if (__atomic_load_n(&flow->cookie, __ATOMIC_ACQUIRE) == cookie)
			return flow;
	}
	return NULL;
}

void flow_release(struct flow *flow)
{
	__atomic_store_n(&flow->cookie, 0, __ATOMIC_RELEASE);
}
