/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of a session as a pure function: (state, event) -> (state, actions). Lifecycle and
 * direction are two different things; keeping them apart is what keeps half-close right. No I/O, no
 * libev, no libbpf.
 */
#ifndef SHUNT_SESSION_FSM_H
#define SHUNT_SESSION_FSM_H

enum session_state {
	SESSION_CONNECTING, /* the client was accepted, the server has not answered yet */
	SESSION_OPEN, /* both ends are connected, bytes may move */
	SESSION_CLOSED, /* over; only freeing is left */
	SESSION_STATE_COUNT
};

enum flow_state {
	FLOW_OPEN, /* the sender may send more */
	FLOW_EOF, /* the sender's FIN was seen, bytes before it may still be owed */
	FLOW_SHUT, /* the FIN was passed on after the last byte */
	FLOW_STATE_COUNT
};

enum session_event {
	SESSION_EV_CONNECTED, /* the server accepted */
	SESSION_EV_EOF_C2S, /* the client's FIN was seen */
	SESSION_EV_EOF_S2C, /* the server's FIN was seen */
	SESSION_EV_DRAINED_C2S, /* every byte before it was written to the server's socket */
	SESSION_EV_DRAINED_S2C,
	SESSION_EV_ABORT, /* reset, failure, timeout, stop: the reason is counted by the caller */
	SESSION_EV_COUNT
};

/* What the caller has to do, in this order; a set of bits. */
enum session_action {
	SESSION_DO_START = 1 << 0, /* let bytes move */
	SESSION_DO_SHUT_SERVER = 1 << 1, /* pass the client's FIN on */
	SESSION_DO_SHUT_CLIENT = 1 << 2, /* pass the server's FIN on */
	SESSION_DO_CLOSE = 1 << 3, /* both FINs were passed on: close in order */
	SESSION_DO_ABORT = 1 << 4, /* reset both ends and close */
	SESSION_DO_REPORT = 1 << 5, /* cannot happen: our own bug */
};

struct session_fsm {
	enum session_state state;
	enum flow_state c2s, s2c;
};

/* Never fails; an impossible event changes nothing and returns SESSION_DO_REPORT. */
unsigned int session_fsm_step(struct session_fsm *fsm, enum session_event event);

#endif
