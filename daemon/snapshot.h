/* SPDX-License-Identifier: BSD-2-Clause */
/* All live sessions as the API shows them. No system call per session. */
#ifndef SHUNT_SNAPSHOT_H
#define SHUNT_SNAPSHOT_H

#include "api.h"
#include "thread.h"

/* One block with the names behind the sessions; the caller frees it. -ENOMEM; -ETIMEDOUT: a thread
 * is stuck. */
MUST_CHECK int snapshot_take(struct thread_shared *shared, struct api_session **ret, size_t *ret_n);

#endif
