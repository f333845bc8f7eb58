/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* The maps. Sizes marked "daemon" are set before loading, from max_sessions. */
#ifndef SHUNT_MAPS_BPF_H
#define SHUNT_MAPS_BPF_H

#include "abi.h"

/* Every spliced socket, as a redirect target. Must never have a program attached: being in here
 * keeps the socket's psock, and with it the queue of redirected bytes, alive. Written by the
 * daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1); /* daemon */
	__type(key, struct flow_key);
	__type(value, __u64);
} redir_targets SEC(".maps");

/* Every socket whose bytes the verdict program handles, until its session ends. Written by the
 * daemon; an entry is not deleted while its socket can receive (that loses bytes: design.md 5.2).
 */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1); /* daemon */
	__type(key, struct flow_key);
	__type(value, __u64);
} spliced_socks SEC(".maps");

/* State of each direction; see struct flow. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* daemon: 1 << (64 - flow_shift) */
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

/* From the programs to the worker. A flow has at most one event under way, so it cannot fill up. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* daemon */
} flow_events SEC(".maps");

/* How often each verdict was given, by enum verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

/* Per-connection statistics, in the socket itself; cloned from the listener on accept. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct sock_stats);
} sock_stats SEC(".maps");

#endif
