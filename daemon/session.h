/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One proxied connection. Belongs to one thread from accept to free. session.c holds its life
 * (start, end, timeouts), session_connect.c the way to a server, session_path.c how its bytes move;
 * all carry out what session_fsm decides.
 */
#ifndef SHUNT_SESSION_H
#define SHUNT_SESSION_H

#include "clients.h"
#include "loop.h"
#include "policy.h"
#include "relay.h"
#include "session_fsm.h"
#include "sockmap.h"
#include "stats.h"

/* What the sessions of one thread share. Set up by the thread before its first session. */
struct session_home {
	struct loop *loop;
	unsigned int thread; /* its number: flow.owner */
	struct policy *policy; /* for new sessions */
	struct bpf_obj *bpf; /* NULL: no kernel path, everything is relayed */
	struct stats *stats;
	struct stats_thread *counters;
	struct clients *clients;
	struct relay_pool pool;
	_Atomic uint32_t *sessions_active; /* of the worker */
	struct session *sessions; /* all, newest first */
	unsigned int nsessions;
	struct session *spare; /* freed, for reuse */
	unsigned int nspare;
	uint64_t next_id;
	uint64_t random; /* state of a small generator: jitter, nothing secret */
};

/* How one direction's bytes move now. */
enum dir_path {
	DIR_RELAY, /* user space, from start to end */
	DIR_SOCKMAP, /* the verdict program */
	DIR_SETTLING, /* overflow began: the peer has to write what was redirected first */
	DIR_OVERFLOW, /* overflow: the worker relays what the program passes */
};

struct session_end {
	struct loop_watch watch; /* also holds the descriptor */
	bool finished; /* epoll said that the peer's FIN has arrived */
};

struct session_dir {
	struct relay relay;
	enum dir_path path;
	unsigned int wait_ms; /* next look at something that gives no event; 0: not waiting */
	unsigned int looks; /* in a row without progress */
	uint64_t last_sum; /* what the last look saw */
	uint64_t overflow_ns; /* when the overflow began */
	uint64_t reported_relay; /* bytes in the counters already */
	uint64_t reported_sockmap;
	uint32_t reported_overflows;
};

/* The client's address: enough to show and to hash, without the room for a UNIX path. */
struct session_client {
	uint8_t ip[16]; /* IPv4 as IPv4-mapped; network byte order */
	uint32_t scope;
	in_port_t port;
	sa_family_t family; /* AF_INET, AF_INET6 or AF_UNIX */
};

/* What is still to be learned from the client before a server is chosen. */
enum session_handshake { SESSION_GREETED, SESSION_WANTS_PROXY, SESSION_WANTS_NAME };

/* What a PROXY header said, for passing on. */
struct session_proxied {
	struct addr src, dst;
	size_t tlvs_len;
	uint8_t tlvs[];
};

struct session {
	struct session *next, *prev;
	struct session_home *home;
	uint64_t id;
	struct policy *policy;
	const struct conf_listener *conf;
	struct policy_backend *backend;
	const struct conf_server *server; /* NULL: not chosen yet; counted in its state->active */
	struct session_client client;
	uint64_t client_hash;
	struct balance_tried tried;
	struct queue_ticket *ticket; /* waiting for a server */
	struct client *counted; /* its place in home->clients; NULL: none */
	struct session_fsm fsm;
	enum session_handshake handshake;
	struct session_proxied *proxied; /* NULL: no header named a client */
	bool server_is_unix;
	bool started; /* paths were chosen: counters and gauges know it */
	uint8_t attempts; /* to connect */
	enum end_reason failed_reason; /* of the last of them */
	struct session_end ends[END_COUNT];
	struct session_dir dirs[DIR_COUNT];
	struct sockmap_pair pair;
	ev_timer timer;
	struct loop_task task; /* go on with a long transfer; free at the end */
	uint64_t started_ns, connecting_ns, connected_ns;
	uint64_t lifetime_ns; /* 0: no end */
	uint64_t activity_bytes; /* sum at the last sweep */
	uint64_t activity_ns;
};

struct session_start {
	const struct conf_listener *listener; /* of home->policy */
	int client_fd;
	const struct addr *client;
	struct client *counted; /* its place in home->clients */
	bool spliceable;
};
/* The place that a session has among max_sessions, of its listener and of all. */
void session_give_place(const struct session_home *home, const struct conf_listener *listener);

/* Takes the accepted socket and both places, the client's and the listener's, whatever happens. */
void session_accept(struct session_home *home, const struct session_start *start);

/* From the verdict program, for the socket with this cookie. */
void session_flow_event(struct session_home *home, const struct flow_event *event);

/* A place in the queue's turn has come; the ticket was granted to this thread. */
void session_granted(struct queue_ticket *ticket);

/* Brings the counters up to date for live sessions, and looks for idle ones. No system call per
 * session. */
void session_sweep(struct session_home *home, uint64_t now);

/* Resets and ends it. */
void session_abort(struct session *session, enum end_reason reason);
void session_abort_all(struct session_home *home, enum end_reason reason);
void session_abort_some(struct session_home *home, enum end_reason reason, unsigned int n);
/* Those of the server in this slot whose backend says on_server_down = reset. */
void session_server_down(struct session_home *home, unsigned int slot);
/* -ENOENT: no session of this thread has the id. */
int session_close(struct session_home *home, uint64_t id);

void session_home_done(struct session_home *home);

/* Between session*.c. */
struct stats_listener *session_listener_stats(const struct session *session);
struct stats_server *session_server_stats(const struct session *session);
void session_step(struct session *session, enum session_event event);
void session_end_error(struct session *session, unsigned int end);
void session_arm(struct session *session);
void session_client_addr(const struct session *session, struct addr *ret);

void session_set_client(struct session *session, const struct addr *addr);

/* Looks for what the listener wants to know first, then chooses a server. */
void session_handshake_start(struct session *session);
void session_handshake(struct session *session); /* the client has sent something, or finished */
/* Writes the PROXY header that the backend wants. 0 or negative errno. */
MUST_CHECK int session_greet_server(struct session *session);

void session_choose(struct session *session);
void session_connect_event(struct session *session, uint32_t events);
void session_connect_tick(struct session *session);
/* The server was found down while we connect to it: another one may serve. */
void session_connect_lost(struct session *session);
void session_release_server(struct session *session, bool early_abort);
void session_leave_queue(struct session *session);

void session_path_start(struct session *session);
void session_path_event(struct session *session, unsigned int end);
void session_path_tick(struct session *session);
void session_path_more(struct session *session);
void session_path_overflow(
	struct session *session, unsigned int dir, const struct flow_event *event);
void session_path_report(struct session *session);
void session_path_done(struct session *session);

#endif
