/* SPDX-License-Identifier: BSD-2-Clause */
/* A configuration that threads, sessions and readers may still be using after a reload has replaced
 * it. */
#ifndef SHUNT_GENERATION_H
#define SHUNT_GENERATION_H

#include <stdatomic.h>

#include "cidr.h"
#include "conf.h"
#include "queue.h"
#include "routes.h"

struct generation {
	_Atomic unsigned int refs;
	unsigned int number; /* 1: the one the worker started with */
	struct conf *conf;
	struct cidr **access; /* [nlisteners]; NULL: everybody may connect */
	struct cidr **proxies; /* [nlisteners]; who may send a PROXY header; NULL: everybody */
	struct routes **routes; /* [nlisteners]; NULL: the listener has one backend */
	struct queue **queues; /* [nbackends]; not owned, shared with the generations before */
};

/* Takes the configuration, also when it fails (NULL: out of memory). One reference. */
struct generation *generation_new(struct conf *conf, unsigned int number, struct queues *queues);
struct generation *generation_ref(struct generation *generation);
void generation_unref(struct generation *generation); /* NULL is fine */

#endif
