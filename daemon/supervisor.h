/* SPDX-License-Identifier: BSD-2-Clause */
/* The privileged process: binds, probes, loads BPF, keeps one worker running. Reads nothing from
 * the network. */
#ifndef SHUNT_SUPERVISOR_H
#define SHUNT_SUPERVISOR_H

#include "conf.h"

/* Runs until it is told to stop. Returns the exit status. */
/* Takes the configuration. */
int supervisor_run(struct conf *conf);

#endif
