/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * The programs on spliced sockets. Each runs for one skb that a socket received, under that
 * socket's lock, and decides whether its bytes go to the other end of the session or to the worker.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "core.bpf.h"
#include "maps.bpf.h"

const volatile __u32 flow_shift = 63; /* daemon: 64 - log2(entries of flows) */
#ifdef SHUNT_SABOTAGE
const volatile __u32 sabotage = SABOTAGE_NONE;
#else
#define sabotage SABOTAGE_NONE
#endif

/* sk_skb_adjust_room() refuses more in one call. */
#define TRIM_STEP 0xfffu
/* Enough for an skb of a megabyte; TCP builds none above 64 KiB times two by coalescing (131 KB
 * seen). */
#define TRIM_STEPS 256

static __always_inline int verdict(enum verdict why, int action)
{
	__u32 index = why;
	__u64 *count = bpf_map_lookup_elem(&verdicts, &index);

	if (count)
		(*count)++;
	return action;
}

static __always_inline struct flow *flow_find(__u64 cookie)
{
	__u32 first = (__u32)((cookie * FLOW_HASH_MULT) >> flow_shift);
	__u32 mask = (__u32)((1ull << (64 - flow_shift)) - 1);

	for (__u32 i = 0; i < FLOW_PROBES; i++) {
		__u32 slot = (first + i) & mask;
		struct flow *flow = bpf_map_lookup_elem(&flows, &slot);

		if (flow && flow->cookie == cookie)
			return flow;
	}
	return NULL;
}

static __always_inline void tell(const struct flow *flow, enum flow_event_kind kind)
{
	struct flow_event event = {
		.cookie = flow->cookie,
		.kind = kind,
		.mode = flow->mode,
	};

	bpf_ringbuf_output(&flow_events, &event, sizeof(event), 0);
}

static __always_inline int broken(struct flow *flow, enum flow_fault fault)
{
	if (flow->mode != FLOW_BROKEN) {
		flow->mode = FLOW_BROKEN;
		flow->fault = fault;
		tell(flow, FLOW_EVENT_BROKEN);
	}
	return verdict(VERDICT_BROKEN, SK_DROP);
}

/* The first byte to expect is the first one that nobody has read: bytes that the worker took from a
 * half-read skb before the insertion are cut off like any other repetition. */
static __always_inline void start(struct flow *flow, struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct tcp_sock *tp;

	if (flow->started || !sk)
		return;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		flow->next_seq = tp->copied_seq;
}

/*
 * Cuts off bytes that were seen before. The kernel hands over whole skbs, also when the front of
 * one is a repetition (a repacketized retransmission), and would send those bytes twice. Returns
 * the bytes left, or -1 when the stream cannot be continued.
 */
static __always_inline int trim(struct flow *flow, struct __sk_buff *skb, __u32 seq)
{
	__s32 old = (__s32)(flow->next_seq - seq);
	__u32 len = skb->len;
	__u32 left;

	if (old < 0)
		return -FLOW_FAULT_GAP;
	if (old == 0 || (sabotage & SABOTAGE_TRIM)) {
		flow->next_seq = seq + len;
		return (int)len;
	}
	left = (__u32)old < len ? (__u32)old : len;
	flow->trimmed += left;
	for (int i = 0; i < TRIM_STEPS && left; i++) {
		__u32 n = left < TRIM_STEP ? left : TRIM_STEP;

		if (bpf_skb_adjust_room(skb, -(__s32)n, 0, 0))
			return -FLOW_FAULT_TRIM;
		left -= n;
	}
	if (left)
		return -FLOW_FAULT_TRIM;
	if ((__u32)old < len)
		flow->next_seq = seq + len;
	return (int)skb->len;
}

struct backlog {
	__u32 waiting; /* handed over, not yet written by the peer */
	__u32 queued; /* in the peer's write queue, overhead included */
	__u32 room; /* half of the peer's send buffer */
};

static __always_inline void measure(struct flow *flow, bool rebase, struct backlog *backlog)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&redir_targets, &flow->peer);
	struct tcp_sock *tp;

	if (!sk)
		return; /* the redirect will find the same and say so */
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		if (rebase)
			flow->base = tp->write_seq - (__u32)flow->redirected;
		backlog->waiting = (__u32)flow->redirected - (tp->write_seq - flow->base);
		backlog->queued = (__u32)tp->inet_conn.icsk_inet.sk.sk_wmem_queued;
		backlog->room = (__u32)tp->inet_conn.icsk_inet.sk.sk_sndbuf / 2;
	}
	bpf_sk_release(sk);
}

/*
 * Redirect only what fits: what waits in the peer's psock queue, what its write queue holds and
 * this skb together under half of its send buffer (then the kernel's worker never meets a full one,
 * where it would poll and block the other direction), and the waiting bytes under the limit. An
 * idle peer takes any skb that the limit allows.
 */
static __always_inline bool fits(const struct flow *flow, const struct backlog *backlog, __u32 len)
{
	__u32 before = backlog->waiting + backlog->queued;

	if (sabotage & SABOTAGE_FITS)
		return true;
	if (backlog->waiting + len > flow->limit)
		return false;
	return before == 0 || before + len <= backlog->room;
}

static __always_inline int redirect(struct flow *flow, struct __sk_buff *skb, __u32 len)
{
	flow->redirected += len;
	if (bpf_sk_redirect_hash(skb, &redir_targets, &flow->peer, 0) == SK_PASS)
		return verdict(VERDICT_REDIRECT, SK_PASS);
	flow->redirected -= len;
	return -1;
}

/* A passed skb is charged to the socket, so its window closes and TCP's own backpressure reaches
 * the sender. */
static __always_inline int pass(struct flow *flow, __u32 len, enum flow_event_kind kind)
{
	flow->passed += len;
	if (flow->mode != FLOW_PASS) {
		flow->mode = FLOW_PASS;
		flow->overflows++;
		tell(flow, kind);
	}
	return verdict(kind == FLOW_EVENT_PEER_GONE ? VERDICT_PEER_GONE : VERDICT_PASS, SK_PASS);
}

/* The worker hands back by a number: it is right only while nothing was passed since it counted. */
static __always_inline bool handed_back(const struct flow *flow)
{
	__u64 offer = *(volatile const __u64 *)&flow->handback;

	if (sabotage & SABOTAGE_HANDBACK)
		return offer != FLOW_NO_HANDBACK;
	return offer == flow->passed;
}

/* Verdict-only: attached as BPF_SK_SKB_STREAM_VERDICT or BPF_SK_SKB_VERDICT without a parser. */
SEC("sk_skb/stream_verdict")
int skb_verdict(struct __sk_buff *skb)
{
	__u32 seq = skb->cb[0]; /* TCP_SKB_CB(skb)->seq: nothing writes there before us
				   (kernel-notes 16) */
	struct backlog backlog = {};
	struct flow *flow;
	bool rebase;
	int len;

	if (skb->len == 0 && !(sabotage & SABOTAGE_EMPTY))
		return verdict(
			VERDICT_EMPTY, SK_DROP); /* redirected, it would break the peer (EPIPE) */
	flow = flow_find(bpf_get_socket_cookie(skb));
	if (!flow)
		return verdict(VERDICT_NO_FLOW, SK_PASS);
	if (flow->mode == FLOW_BROKEN)
		return verdict(VERDICT_BROKEN, SK_DROP);
	rebase = !flow->started;
	start(flow, skb);
	flow->started = 1;
	len = trim(flow, skb, seq);
	if (len < 0)
		return broken(flow, (enum flow_fault) - len);
	if (len == 0 && !(sabotage & SABOTAGE_EMPTY))
		return verdict(VERDICT_REPEAT, SK_DROP);
	flow->skbs++;
	if (flow->mode == FLOW_PASS) {
		if (!handed_back(flow))
			return pass(flow, len, FLOW_EVENT_OVERFLOW);
		flow->mode = FLOW_REDIRECT;
		rebase = true;
	}
	measure(flow, rebase, &backlog);
	if ((sabotage & SABOTAGE_REDIRECT) || !fits(flow, &backlog, len))
		return pass(flow, len, FLOW_EVENT_OVERFLOW);
	if (redirect(flow, skb, len) < 0)
		return pass(flow, len, FLOW_EVENT_PEER_GONE);
	return SK_PASS;
}

/* One message is what has arrived: the parser exists because some attach points ask for one. */
SEC("sk_skb/stream_parser")
int skb_parser(struct __sk_buff *skb)
{
	return skb->len;
}

/*
 * Behind a stream parser: no sequence numbers (strparser uses the control block) and no SK_PASS (it
 * stalls: kernel-notes 15.3). Over the limit it goes on redirecting, tells the worker to take the
 * direction away, and closes the valve when the worker is too slow for that.
 */
SEC("sk_skb/stream_verdict")
int skb_parsed(struct __sk_buff *skb)
{
	__u32 len = skb->len;
	struct flow *flow = flow_find(bpf_get_socket_cookie(skb));
	struct backlog backlog = {};

	if (!flow)
		return verdict(VERDICT_NO_FLOW, SK_DROP);
	if (len == 0)
		return verdict(VERDICT_EMPTY, SK_DROP);
	measure(flow, !flow->started, &backlog);
	flow->started = 1;
	flow->skbs++;
	if (flow->mode == FLOW_REDIRECT && !fits(flow, &backlog, len)) {
		flow->mode = FLOW_SATURATED;
		flow->overflows++;
		tell(flow, FLOW_EVENT_OVERFLOW);
	}
	if (backlog.waiting + len > flow->limit * FLOW_VALVE_FACTOR)
		flow->valve = 1;
	if (redirect(flow, skb, len) < 0)
		return broken(flow, FLOW_FAULT_NONE);
	return SK_PASS;
}

/*
 * The valve: a socket filter on sockets behind a stream parser. While it is closed it cuts the
 * payload off arriving segments; their ACK still counts, and the sender will send the payload
 * again. A segment with a FIN is dropped whole: without its payload the FIN would end the stream
 * too early.
 */
#define TCP_OFFSET_DOFF 12
#define TCP_OFFSET_FLAGS 13
#define TCP_FLAG_FIN 0x01
#define KEEP_ALL 0xffffffffu

SEC("socket")
int payload_valve(struct __sk_buff *skb)
{
	struct flow *flow = flow_find(bpf_get_socket_cookie(skb));
	__u8 doff = 0, flags = 0;

	if (!flow || !*(volatile __u32 *)&flow->valve)
		return KEEP_ALL;
	if (bpf_skb_load_bytes(skb, TCP_OFFSET_DOFF, &doff, 1) ||
		bpf_skb_load_bytes(skb, TCP_OFFSET_FLAGS, &flags, 1))
		return KEEP_ALL;
	doff = (doff >> 4) * 4;
	if (skb->len <= doff)
		return KEEP_ALL;
	verdict(VERDICT_VALVE, 0);
	return flags & TCP_FLAG_FIN ? 0 : doff;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
