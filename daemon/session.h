/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One proxied connection. Belongs to one thread from accept to free. session.c holds its life (connect,
 * end, timeouts), session_path.c how its bytes move; both carry out what session_fsm decides.
 */
#ifndef SHUNT_SESSION_H
#define SHUNT_SESSION_H

#include "backend.h"
#include "conf.h"
#include "loop.h"
#include "relay.h"
#include "session_fsm.h"
#include "sockmap.h"
#include "stats.h"

/* What the sessions of one thread share. Set up by the thread before its first session. */
struct session_home {
	struct loop *loop;
	unsigned int thread; /* its number: flow.owner */
	const struct conf *conf;
	struct bpf_obj *bpf; /* NULL: no kernel path, everything is relayed */
	struct backend_choice *backends;
	struct stats *stats;
	struct stats_thread *counters;
	struct relay_pool pool;
	_Atomic uint32_t *sessions_active; /* of the worker */
	struct session *sessions;	   /* all, newest first */
	struct session *spare;		   /* freed, for reuse */
	unsigned int nspare;
	uint64_t next_id;
};

/* How one direction's bytes move now. */
enum dir_path {
	DIR_RELAY,    /* user space, from start to end */
	DIR_SOCKMAP,  /* the verdict program */
	DIR_SETTLING, /* overflow began: the peer has to write what was redirected first */
	DIR_OVERFLOW, /* overflow: the worker relays what the program passes */
};

struct session_end {
	struct loop_watch watch; /* also holds the descriptor */
	bool finished;		 /* epoll said that the peer's FIN has arrived */
};

struct session_dir {
	struct relay relay;
	enum dir_path path;
	unsigned int wait_ms;	   /* next look at something that gives no event; 0: not waiting */
	unsigned int looks;	   /* in a row without progress */
	uint64_t last_sum;	   /* what the last look saw */
	uint64_t overflow_ns;	   /* when the overflow began */
	uint64_t reported_relay;   /* bytes in the counters already */
	uint64_t reported_sockmap;
	uint32_t reported_overflows;
};

struct session {
	struct session *next, *prev;
	struct session_home *home;
	uint64_t id;
	const struct conf_listener *conf;
	const struct conf_backend *backend;
	const struct conf_server *server;
	struct session_fsm fsm;
	bool server_is_unix;
	bool started; /* paths were chosen: counters and gauges know it */
	struct session_end ends[END_COUNT];
	struct session_dir dirs[DIR_COUNT];
	struct sockmap_pair pair;
	ev_timer timer;
	struct loop_task task; /* go on with a long transfer; free at the end */
	uint64_t started_ns, connected_ns;
	uint64_t activity_bytes; /* sum at the last sweep */
	uint64_t activity_ns;
};

/* Takes the accepted socket, whatever happens. */
void session_accept(struct session_home *home, unsigned int listener, int client_fd, bool spliceable);

/* From the verdict program, for the socket with this cookie. */
void session_flow_event(struct session_home *home, const struct flow_event *event);

/* Brings the counters up to date for live sessions, and looks for idle ones. No system call per session. */
void session_sweep(struct session_home *home, uint64_t now);

/* Resets and ends it. */
void session_abort(struct session *session, enum end_reason reason);
void session_abort_all(struct session_home *home, enum end_reason reason);

void session_home_done(struct session_home *home);

/* Between session.c and session_path.c. */
void session_step(struct session *session, enum session_event event);
void session_end_error(struct session *session, unsigned int end);
void session_arm(struct session *session);

void session_path_start(struct session *session);
void session_path_event(struct session *session, unsigned int end);
void session_path_tick(struct session *session);
void session_path_more(struct session *session);
void session_path_overflow(struct session *session, unsigned int dir, const struct flow_event *event);
void session_path_report(struct session *session);
void session_path_done(struct session *session);

#endif
