/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The accounting of one direction, pure. `received` and `accepted` are what TCP says of the two
 * sockets, `read` and `written` what the worker moved itself, `redirected` what the verdict program
 * handed over. All count bytes since the connections began.
 */
#ifndef SHUNT_ACCOUNT_H
#define SHUNT_ACCOUNT_H

#include <stdint.h>

enum account {
	ACCOUNT_SETTLED, /* both sides agree */
	ACCOUNT_PENDING, /* bytes are still on their way */
	ACCOUNT_BROKEN, /* more came out than went in: bytes were repeated or counted wrongly */
};

struct account_state {
	uint64_t read, written, redirected;
};

/* Has everything that the source socket received gone to the worker or to the peer? */
static inline enum account account_source(const struct account_state *s, uint64_t received)
{
	uint64_t taken = s->read + s->redirected;

	if (received == taken)
		return ACCOUNT_SETTLED;
	return received > taken ? ACCOUNT_PENDING : ACCOUNT_BROKEN;
}

/* Has the destination socket accepted everything that was redirected or written by the worker? */
static inline enum account account_target(const struct account_state *s, uint64_t accepted)
{
	uint64_t given = s->written + s->redirected;

	if (accepted == given)
		return ACCOUNT_SETTLED;
	return accepted < given ? ACCOUNT_PENDING : ACCOUNT_BROKEN;
}

/* May a FIN be passed on? Only after the last byte before it. */
static inline enum account account_drained(
	const struct account_state *s, uint64_t received, uint64_t accepted)
{
	enum account source = account_source(s, received);
	enum account target = account_target(s, accepted);

	if (source == ACCOUNT_BROKEN || target == ACCOUNT_BROKEN)
		return ACCOUNT_BROKEN;
	if (s->read != s->written || source == ACCOUNT_PENDING || target == ACCOUNT_PENDING)
		return ACCOUNT_PENDING;
	return ACCOUNT_SETTLED;
}

#endif
