/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is known of a server at run time. Lives in memory shared by supervisor and worker, one per
 * server of the configuration: an operator's word and the health survive the worker and a reload.
 * Every field is read by all threads without a lock.
 */
#ifndef SHUNT_SERVER_STATE_H
#define SHUNT_SERVER_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* HAProxy's words: drain takes no new sessions but is checked and keeps its own, maint is not even
 * checked. */
enum server_admin { SERVER_READY, SERVER_DRAIN, SERVER_MAINT };

#define SERVER_WEIGHT_CONFIGURED (-1)

struct server_state {
	_Atomic uint32_t admin; /* enum server_admin: the operator's word */
	_Atomic int32_t weight; /* the operator's, or SERVER_WEIGHT_CONFIGURED */
	_Atomic uint32_t down; /* the active check's verdict; 0: up, or not checked */
	_Atomic uint32_t active; /* sessions now, of all threads, connecting ones included */
	_Atomic uint32_t failures; /* connect failures and early aborts in a row */
	_Atomic uint64_t up_since_ns; /* CLOCK_MONOTONIC; 0: since the start, no slow start */
	_Atomic uint64_t ejected_until_ns; /* CLOCK_MONOTONIC; 0: not ejected */
	_Atomic uint64_t check_failures; /* counters for the metrics */
	_Atomic uint64_t check_successes;
};

#endif
