/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* What the BPF programs and the daemon both see. Fixed-width types only; sizes are asserted. */
#ifndef SHUNT_BPF_ABI_H
#define SHUNT_BPF_ABI_H

#include <linux/types.h>

/* Key of redir_targets and spliced_socks: one socket's own 4-tuple. IPv4 addresses are stored as
 * IPv4-mapped IPv6 with family AF_INET, also for an IPv4 connection on an IPv6 socket. Network byte
 * order. */
struct flow_key {
	__u32 family;
	__be32 local_addr[4];
	__be32 remote_addr[4];
	__be16 local_port;
	__be16 remote_port;
};

enum flow_mode {
	FLOW_REDIRECT, /* the program redirects what fits */
	FLOW_PASS, /* overflow: everything is passed to the worker until it hands back */
	FLOW_BROKEN, /* the stream cannot be continued intact: both ends must be reset */
	FLOW_SATURATED, /* stream parser only: over the limit, the worker must detach the direction
			 */
};

/* Why a flow is FLOW_BROKEN. */
enum flow_fault {
	FLOW_FAULT_NONE,
	FLOW_FAULT_GAP, /* an skb starts behind the next expected sequence number */
	FLOW_FAULT_TRIM, /* an overlapping segment could not be trimmed */
};

/* flow.handback when nothing is offered: no byte count can ever equal it. */
#define FLOW_NO_HANDBACK (~0ull)

/*
 * One direction, named after the socket that receives its bytes. `flows` is an open-addressed table
 * that the daemon fills through mmap: slot = (cookie * FLOW_HASH_MULT) >> flow_shift, then up to
 * FLOW_PROBES neighbours. The first cache line is written by the daemon, the second one by the
 * programs, which run under the receiving socket's lock: one at a time for a flow.
 */
struct flow {
	__u64 cookie; /* SO_COOKIE of the receiving socket; 0: free; FLOW_CLAIMED: being filled */
	struct flow_key peer; /* where its bytes go, in redir_targets */
	__u32 limit; /* bytes that may wait in the kernel for the peer (overflow_limit) */
	__u32 owner; /* the daemon's: number of the thread whose session it is */
	__u64 handback; /* "I have read this many passed bytes": see FLOW_PASS */

	__u64 redirected; /* bytes handed over to the peer's queue */
	__u64 passed; /* bytes left to the worker by SK_PASS */
	__u64 skbs; /* verdicts with payload */
	__u32 overflows; /* times FLOW_PASS or FLOW_SATURATED was entered */
	__u32 mode; /* enum flow_mode */
	__u32 fault; /* enum flow_fault */
	__u32 started; /* next_seq and base are valid */
	__u32 next_seq; /* sequence number that the next new byte must have */
	__u32 base; /* peer's write_seq when nothing was waiting, minus redirected */
	__u32 trimmed; /* bytes cut off overlapping segments */
	__u32 valve; /* stream parser: 1 while the socket filter must refuse payload */
	__u64 owner_data; /* the daemon's: not read by the programs */
};

/* No socket has this cookie: the kernel counts them up from 1. */
#define FLOW_CLAIMED (~0ull)

#define FLOW_HASH_MULT 0x9E3779B97F4A7C15ull
#define FLOW_PROBES 16

/* Stream parser: waiting bytes may reach this many times the limit before the valve closes; what
 * the receiving socket has already taken comes on top. */
#define FLOW_VALVE_FACTOR 8

_Static_assert(sizeof(struct flow_key) == 40, "flow_key has no holes");
_Static_assert(sizeof(struct flow) == 128, "a flow is two cache lines");

enum flow_event_kind {
	FLOW_EVENT_OVERFLOW, /* the flow went to FLOW_PASS or FLOW_SATURATED */
	FLOW_EVENT_BROKEN, /* the flow went to FLOW_BROKEN */
	FLOW_EVENT_PEER_GONE, /* the redirect found no peer; the bytes were passed */
};

struct flow_event {
	__u64 cookie;
	__u32 kind; /* enum flow_event_kind */
	__u32 mode;
};

/* Index into the per-CPU array `verdicts`: one count for each way out of a program. */
enum verdict {
	VERDICT_REDIRECT,
	VERDICT_PASS, /* overflow */
	VERDICT_EMPTY, /* a bare FIN */
	VERDICT_NO_FLOW, /* no state for the socket: passed */
	VERDICT_PEER_GONE, /* no redirect target: passed */
	VERDICT_REPEAT, /* only old bytes: dropped */
	VERDICT_TRIM, /* old bytes cut off, the rest went on (counted besides its verdict) */
	VERDICT_BROKEN, /* dropped, the session will be reset */
	VERDICT_VALVE, /* payload refused by the socket filter */
	VERDICT_COUNT
};

/* What the tests take out to see the probe notice (only in objects built with SHUNT_SABOTAGE). */
enum sabotage {
	SABOTAGE_NONE = 0,
	SABOTAGE_TRIM = 1 << 0, /* do not trim overlapping segments */
	SABOTAGE_EMPTY = 1 << 1, /* redirect a bare FIN */
	SABOTAGE_FITS = 1 << 2, /* redirect without a bound */
	SABOTAGE_HANDBACK = 1 << 3, /* return to redirect as soon as anything was offered */
	SABOTAGE_KICK = 1 << 4, /* daemon: do not kick after the insertion */
	SABOTAGE_DRAIN = 1 << 5, /* daemon: pass a FIN on without the drain check */
	SABOTAGE_REDIRECT = 1 << 6, /* pass instead of redirect */
	SABOTAGE_STORAGE = 1 << 7, /* daemon: do not clone socket storage */
	SABOTAGE_ERRORS = 1 << 8, /* daemon: do not look at the peer's error */
	SABOTAGE_V6 = 1 << 9, /* daemon: wrong key for IPv6 */
};

/* Value of sock_stats, one per socket. */
struct sock_stats {
	__u32 listener; /* index of the listener whose accepted socket this is; cloned on accept */
	__u32 flags;
	__u64 start_ns; /* CLOCK_MONOTONIC at establishment */
	__u64 activity_ns; /* CLOCK_MONOTONIC of the last callback */
	__u64 bytes_received;
	__u64 bytes_acked;
	__u32 srtt_us;
	__u32 min_rtt_us;
	__u32 retransmits;
	__u32 segs_in;
	__u32 segs_out;
	__u32 reserved;
};

#endif
