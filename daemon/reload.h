/* SPDX-License-Identifier: BSD-2-Clause */
/* A new configuration beside the one that is served: read, checked, its sockets open, nothing
 * changed yet. */
#ifndef SHUNT_RELOAD_H
#define SHUNT_RELOAD_H

#include "bind.h"

struct reload {
	struct conf *conf;
	struct bounds bounds; /* shares what it kept with the old set */
	char *text;
	size_t len;
};

/*
 * 0, or -1 with the reason in why[]: then nothing is left of it, and the old set is untouched.
 * Changes that a reload cannot make are logged, and the old value stands.
 */
MUST_CHECK int reload_prepare(const struct conf *old, unsigned int threads,
	struct bounds *old_bounds, struct reload *ret, char *why, size_t size);

/* Gives up: closes what the old set does not have. */
void reload_abandon(struct reload *reload);

#endif
