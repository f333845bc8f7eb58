/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel path of one pair of connected TCP sockets: insertion, kick, drain check, hand-back,
 * removal. Used by sessions and by the probe, which tests exactly this code. Knows no session and
 * logs nothing.
 */
#ifndef SHUNT_SOCKMAP_H
#define SHUNT_SOCKMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "account.h"
#include "bpf_obj.h"
#include "reasons.h"

/* Index of fds[] and flows[]: a direction has the number of the end that receives its bytes. */
enum { END_CLIENT, END_SERVER, END_COUNT };

struct sockmap_pair {
	int fds[END_COUNT]; /* not owned */
	struct flow *flows[END_COUNT]; /* NULL before insertion */
	uint64_t taken[END_COUNT]; /* bytes the worker had read from each end at insertion */
	uint64_t skipped[END_COUNT]; /* bytes received that are not of the stream: a PROXY header */
	uint64_t added[END_COUNT]; /* bytes written that are not: ours */
	uint64_t owner_data; /* copied to both flows, with owner */
	uint32_t owner;
	uint8_t connected; /* bit per end: our side called connect() */
	uint8_t targets; /* bit per end: is in redir_targets */
	uint8_t spliced; /* bit per end: is in spliced_socks, so its direction is in the kernel */
};

/*
 * Inserts both sockets (fds and connected are set, everything read so far was written) and kicks
 * them. 0: at least one direction is in the kernel, see `spliced`; the other one must be relayed.
 * Negative errno: neither is, nothing is left behind. Unless both are, *ret_reason says what to
 * count.
 */
MUST_CHECK int sockmap_insert(struct bpf_obj *obj, struct sockmap_pair *pair, uint32_t limit,
	enum fallback_reason *ret_reason);

/* Lets the verdict program see bytes that are queued already. Harmless at any time (kernel-notes
 * 3). */
void sockmap_kick(int fd);

/* What TCP says of a socket; the call is a barrier: no verdict of this socket runs across it. */
struct sockmap_tcp {
	uint64_t received; /* payload bytes, a FIN not counted */
	uint64_t accepted; /* payload bytes queued for sending; asked before our own FIN only */
	bool fin; /* the peer's FIN was received */
	bool closed; /* both FINs were exchanged (TIME_WAIT is not this socket any more) */
};
/* 0, or negative errno: -ECONNRESET for any error of the socket, which stays there for its owner.
 */
MUST_CHECK int sockmap_tcp_read(
	const struct sockmap_pair *pair, unsigned int end, struct sockmap_tcp *ret);

/* May the FIN of direction `dir` be passed on? An enum account, or -ECONNRESET: the source died,
 * -EPIPE: the target died. read and written are the worker's share. */
int sockmap_drained(
	const struct sockmap_pair *pair, unsigned int dir, uint64_t read, uint64_t written);

/* Has the peer written everything that was redirected in `dir`? Before the worker may write a byte.
 * An enum account, or -EPIPE: the target died. */
int sockmap_settled(const struct sockmap_pair *pair, unsigned int dir, uint64_t written);

/*
 * After an overflow, when the worker has read and written all that was passed: `read` counts its
 * bytes. True: the program redirects again. False: more was passed meanwhile, go on reading.
 */
bool sockmap_hand_back(const struct sockmap_pair *pair, unsigned int dir, uint64_t read);

/*
 * Takes one live direction out of the kernel for good (stream parser only, which cannot pass): with
 * SO_RCVLOWAT raised around the delete, as kernel-notes 15.1.6 rule 2 says. The accounting check
 * stays.
 */
void sockmap_detach(struct bpf_obj *obj, struct sockmap_pair *pair, unsigned int dir);

/* Before the sockets are closed, when both are aborted or have sent and received their FIN. */
void sockmap_remove(struct bpf_obj *obj, struct sockmap_pair *pair);

/* Read by the worker, written by the program. */
uint64_t sockmap_redirected(const struct sockmap_pair *pair, unsigned int dir);
uint64_t sockmap_passed(const struct sockmap_pair *pair, unsigned int dir);
enum flow_mode sockmap_mode(const struct sockmap_pair *pair, unsigned int dir);
uint32_t sockmap_overflows(const struct sockmap_pair *pair, unsigned int dir);

/* Sends a RST at once, whoever else holds the socket (design.md 4). The descriptor stays open. */
void sockmap_abort(int fd);

#endif
