/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a worker does for a session, in miniature: the same steps in the same order through the same
 * functions, without an event loop.
 */
#ifndef SHUNT_PROBE_WORKER_H
#define SHUNT_PROBE_WORKER_H

#include "probe_pair.h"

/* Once around for one direction. */
bool probe_work(struct probe_env *env, struct probe_pair *pair, unsigned int dir);
void probe_on_event(void *arg, const struct flow_event *event); /* arg: the env */
/* sockmap_drained() of the direction, as the worker uses it (sabotage included). */
int probe_drained(struct probe_env *env, struct probe_pair *pair, unsigned int dir);
/* Sends up to `total` bytes, works and reads until all of them came out. */
bool probe_transfer(
	struct probe_env *env, struct probe_pair *pair, unsigned int dir, uint64_t total);
/* Works until the far end has read the FIN that the sender sent, and compares the sums. */
bool probe_finish(struct probe_env *env, struct probe_pair *pair, unsigned int dir);
/* Fails unless everything sent in `dir` since the insertion was redirected. */
bool probe_all_redirected(struct probe_env *env, struct probe_pair *pair, unsigned int dir);

#endif
