/* SPDX-License-Identifier: BSD-2-Clause */
/* The thread that runs the active checks, and what follows from a server's change. */
#ifndef SHUNT_HEALTH_H
#define SHUNT_HEALTH_H

#include "generation.h"
#include "thread.h"

struct health;

/* Starts the thread with the checks of this generation. 0 or negative errno. */
MUST_CHECK int health_start(
	struct thread_shared *shared, struct generation *generation, struct health **ret);
/* Another generation: what stays the same keeps its counts. From any thread; returns at once. */
void health_set(struct health *health, struct generation *generation);
/* The operator changed a server's state or weight: sessions may be waiting for it. From any thread.
 */
void health_server_changed(struct health *health, unsigned int slot);
void health_stop(struct health *health); /* NULL is fine */

#endif
