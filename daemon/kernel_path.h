/* SPDX-License-Identifier: BSD-2-Clause */
/* Decides at start whether the kernel path is used: what the configuration wants and the self-test
 * allows. */
#ifndef SHUNT_KERNEL_PATH_H
#define SHUNT_KERNEL_PATH_H

#include <stdbool.h>

#include "bpf_obj.h"
#include "conf.h"

/* True: *ret is open. False: everything is relayed; the reason was logged. */
bool kernel_path_open(const struct conf *conf, uint32_t max_sessions, struct bpf_obj *ret);

#endif
