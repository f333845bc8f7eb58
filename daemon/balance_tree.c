/* SPDX-License-Identifier: BSD-2-Clause */
#include "balance_tree.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

static unsigned int leaves(unsigned int n)
{
	unsigned int size = 1;

	while (size < n)
		size *= 2;
	return size;
}

int min_tree_init(struct min_tree *tree, unsigned int n)
{
	tree->size = leaves(n);
	tree->keys = malloc(tree->size * sizeof(*tree->keys));
	tree->winners = malloc(2 * tree->size * sizeof(*tree->winners));
	if (!tree->keys || !tree->winners) {
		min_tree_done(tree);
		return -ENOMEM;
	}
	tree->winners[0] = 0; /* no node has this number */
	for (unsigned int i = 0; i < tree->size; i++) {
		tree->keys[i] = TREE_ABSENT;
		tree->winners[tree->size + i] = i;
	}
	for (unsigned int node = tree->size - 1; node; node--)
		tree->winners[node] = tree->winners[2 * node];
	return 0;
}

void min_tree_done(struct min_tree *tree)
{
	free(tree->keys);
	free(tree->winners);
	*tree = (struct min_tree){0};
}

static bool is_less(const struct tree_key *a, const struct tree_key *b)
{
	return a->major != b->major ? a->major < b->major : a->minor < b->minor;
}

static bool is_absent(const struct tree_key *key)
{
	return key->major == UINT64_MAX && key->minor == UINT64_MAX;
}

void min_tree_set(struct min_tree *tree, unsigned int i, struct tree_key key)
{
	if (is_absent(&key) && is_absent(&tree->keys[i]))
		return;
	tree->keys[i] = key;
	for (unsigned int node = (tree->size + i) / 2; node; node /= 2) {
		uint32_t left = tree->winners[2 * node], right = tree->winners[2 * node + 1];
		uint32_t before = tree->winners[node];
		uint32_t after = is_less(&tree->keys[right], &tree->keys[left]) ? right : left;

		tree->winners[node] = after;
		/* Somebody else stays in front of it here: nothing changes further up. */
		if (before == after && before != i)
			break;
	}
}

int min_tree_first(const struct min_tree *tree)
{
	uint32_t first = tree->winners[1];

	return is_absent(&tree->keys[first]) ? -1 : (int)first;
}

int sum_tree_init(struct sum_tree *tree, unsigned int n)
{
	tree->size = leaves(n);
	tree->sums = calloc(2 * (size_t)tree->size, sizeof(*tree->sums));
	return tree->sums ? 0 : -ENOMEM;
}

void sum_tree_done(struct sum_tree *tree)
{
	free(tree->sums);
	*tree = (struct sum_tree){0};
}

void sum_tree_set(struct sum_tree *tree, unsigned int i, uint64_t weight)
{
	uint64_t change = weight - tree->sums[tree->size + i]; /* wraps, and back again */

	if (!change)
		return;
	for (unsigned int node = tree->size + i; node; node /= 2)
		tree->sums[node] += change;
}

unsigned int sum_tree_find(const struct sum_tree *tree, uint64_t point)
{
	unsigned int node = 1;

	while (node < tree->size) {
		node *= 2;
		if (point >= tree->sums[node]) {
			point -= tree->sums[node];
			node++;
		}
	}
	return node - tree->size;
}
