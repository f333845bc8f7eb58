/* SPDX-License-Identifier: BSD-2-Clause */
/* Which server of a backend gets the next session. State of one thread; no lock, no I/O. */
#ifndef SHUNT_BACKEND_H
#define SHUNT_BACKEND_H

#include "conf.h"

struct backend_choice {
	const struct conf_backend *conf;
	int64_t *current;	   /* smooth weighted round robin: one per server */
};

/* One entry per backend of the configuration, in its order. Frees with backend_choices_free(). */
struct backend_choice *backend_choices_new(const struct conf *conf);
void backend_choices_free(struct backend_choice *choices, unsigned int n);

/* Index into conf->servers, or -1 when every weight is 0. */
int backend_pick(struct backend_choice *choice);

#endif
