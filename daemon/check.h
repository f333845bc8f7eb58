/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Active health checks of all servers of a worker, on one event loop, which is the only thread that
 * may call anything here. Servers start up; the verdict is server_state.down.
 */
#ifndef SHUNT_CHECK_H
#define SHUNT_CHECK_H

#include <ev.h>
#include <stdbool.h>

#include "conf.h"
#include "server_state.h"
#include "util.h"

/* Checks at the same time, at most; further ones that are due wait for their turn. */
#define CHECKER_CONNS_MAX 512

struct checker;

/* on_change is called when a server goes down or up, after its state has changed and a line was
 * logged; it must not call checker_set() or checker_free(). NULL: out of memory. */
struct checker *checker_new(struct ev_loop *loop,
	void (*on_change)(void *arg, unsigned int slot, bool up, const char *why), void *arg);
void checker_free(struct checker *checker); /* before the loop is destroyed; NULL is fine */

/*
 * From now on the servers of this configuration are checked; states is indexed by conf_server.slot.
 * What is needed of conf is copied. A server of the same backend, name, address and check stays as
 * it is, with its schedule. Where only the check has changed the verdict is kept; another address,
 * or check = off, is up. The first call keeps the verdicts in states: a worker before this one may
 * have left them. -ENOMEM: nothing has changed, and the states of before are still written to.
 */
MUST_CHECK int checker_set(
	struct checker *checker, const struct conf *conf, struct server_state *states);

/* Descriptors that the checks of this configuration may use at the same time. */
unsigned int checker_fds(const struct conf *conf);

#endif
