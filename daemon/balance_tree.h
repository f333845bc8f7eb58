/* SPDX-License-Identifier: BSD-2-Clause */
/* Two complete binary trees over the numbers 0 to n-1: who has the least key, and who owns a point
 * on the line of all weights. Every change costs log2(n) steps. Pure. */
#ifndef SHUNT_BALANCE_TREE_H
#define SHUNT_BALANCE_TREE_H

#include <stdint.h>

#include "util.h"

struct tree_key {
	uint64_t major, minor; /* both UINT64_MAX: not in the tree */
};

#define TREE_ABSENT ((struct tree_key){UINT64_MAX, UINT64_MAX})

struct min_tree {
	unsigned int size; /* leaves: a power of 2 */
	struct tree_key *keys;
	uint32_t *winners; /* [node]: the leaf with the least key below it; node 1 is the root */
};

struct sum_tree {
	unsigned int size;
	uint64_t *sums; /* [node] */
};

/* 0 or -ENOMEM. All keys are absent, all weights 0. The _done take trees that are all zero. */
MUST_CHECK int min_tree_init(struct min_tree *tree, unsigned int n);
void min_tree_done(struct min_tree *tree);
void min_tree_set(struct min_tree *tree, unsigned int i, struct tree_key key);
int min_tree_first(const struct min_tree *tree); /* of equal keys the lowest number; -1: none */

MUST_CHECK int sum_tree_init(struct sum_tree *tree, unsigned int n);
void sum_tree_done(struct sum_tree *tree);
void sum_tree_set(struct sum_tree *tree, unsigned int i, uint64_t weight);
unsigned int sum_tree_find(const struct sum_tree *tree, uint64_t point); /* point < sums[1] */

#endif
