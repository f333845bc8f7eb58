/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands that change something. */
#ifndef SHUNT_CTL_CHANGE_H
#define SHUNT_CTL_CHANGE_H

#include "ctl.h"

enum ctl_exit change_server(const struct ctl *ctl, char **args);
enum ctl_exit change_close(const struct ctl *ctl, char **args);
enum ctl_exit change_reload(const struct ctl *ctl, char **args);
enum ctl_exit change_upgrade(const struct ctl *ctl, char **args);
enum ctl_exit change_drain(const struct ctl *ctl, char **args);
enum ctl_exit change_not_ready(const struct ctl *ctl, char **args);
enum ctl_exit change_ready(const struct ctl *ctl, char **args);
enum ctl_exit change_log_level(const struct ctl *ctl, char **args);

#endif
