/* SPDX-License-Identifier: BSD-2-Clause */
/* The functions of probe_checks.def: true, or false with the reason in env->why. */
#ifndef SHUNT_PROBE_CHECKS_H
#define SHUNT_PROBE_CHECKS_H

#include "probe_pair.h"

#define PROBE_CHECK(id, capability, name, run, text) bool run(struct probe_env *env);
#include "probe_checks.def"
#undef PROBE_CHECK

#endif
