/* SPDX-License-Identifier: BSD-2-Clause */
/* Accepts on the listening sockets of one thread: limits, pauses, and taking over a new set of
 * sockets. */
#ifndef SHUNT_ACCEPTOR_H
#define SHUNT_ACCEPTOR_H

#include "session.h"

/* A listening socket as the worker knows it. */
struct listen_socket {
	uint64_t id;
	int fd;
	unsigned int listener; /* in the configuration of the generation */
	bool wanted; /* its sessions want the kernel path */
	bool spliceable; /* and can have it */
	enum fallback_reason why; /* if not: counted for each session */
};

struct acceptor {
	struct acceptor *next;
	ev_io io;
	ev_timer pause;
	struct acceptors *set;
	struct listen_socket socket; /* the descriptor is its own */
};

struct acceptors {
	struct session_home *home;
	uint32_t max_sessions; /* of the worker */
	struct acceptor *first;
};

/* Closes those that are not among these, by their ids. What the kernel has accepted on them was
 * promised to the client and is served first, under the policy that still stands. */
void acceptors_keep(struct acceptors *set, const struct listen_socket *sockets, unsigned int n);

/* Accepts on all of these: new ones are duplicated, known ones change their listener. home->policy
 * must be the one they belong to. -ENOMEM or -EMFILE: some could not be taken. */
MUST_CHECK int acceptors_set(
	struct acceptors *set, const struct listen_socket *sockets, unsigned int n);

#endif
