/* SPDX-License-Identifier: BSD-2-Clause */
/* Users, capabilities, resource limits. */
#ifndef SHUNT_PRIV_H
#define SHUNT_PRIV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util.h"

struct priv_user {
	bool change; /* false: started without the right to change; the worker keeps the user */
	uid_t uid;
	gid_t gid;
	char name[64];
};

/* name NULL: the default, shunt or else nobody (with a notice). 0 or negative errno, logged. */
MUST_CHECK int priv_lookup(const char *name, struct priv_user *ret);

/* In the worker, for good: changes user, drops every capability, sets no_new_privs. Logged. */
MUST_CHECK int priv_drop(const struct priv_user *user);

/* Raises the soft limit of open files to the hard one. Returns what it is then. */
uint64_t priv_raise_nofile(void);

#endif
