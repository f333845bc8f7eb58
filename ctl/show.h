/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands that only look. */
#ifndef SHUNT_CTL_SHOW_H
#define SHUNT_CTL_SHOW_H

#include "ctl.h"

enum ctl_exit show_info(const struct ctl *ctl, char **args);
enum ctl_exit show_listeners(const struct ctl *ctl, char **args);
enum ctl_exit show_backends(const struct ctl *ctl, char **args);
enum ctl_exit show_sessions(const struct ctl *ctl, char **args);

#endif
