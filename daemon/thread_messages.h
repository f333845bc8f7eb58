/* SPDX-License-Identifier: BSD-2-Clause */
/* Between thread.c and thread_call.c only. */
#ifndef SHUNT_THREAD_MESSAGES_H
#define SHUNT_THREAD_MESSAGES_H

#include "thread.h"

enum thread_message {
	THREAD_DRAIN,
	THREAD_STOP,
	THREAD_FLOW,
	THREAD_GRANT,
	THREAD_SERVER_DOWN,
	THREAD_CALL
};

/* 0 or -ENOMEM, logged. */
int thread_post(struct thread *thread, enum thread_message kind, uint64_t value, void *data);

/* thread NULL: it could not be asked. */
void thread_call_run(struct thread *thread, struct thread_call *call);

#endif
