/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SHUNT_CTL_TOP_H
#define SHUNT_CTL_TOP_H

#include "ctl.h"

/* Until 'q', or the daemon is gone. */
enum ctl_exit top_run(const struct ctl *ctl, char **args);

#endif
