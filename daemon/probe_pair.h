/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the checks of the probe share: one session in miniature, all four sockets in this process.
 * The far ends send a known pattern; the near ends are what shunt would hold, moved by the code
 * that sessions use.
 */
#ifndef SHUNT_PROBE_PAIR_H
#define SHUNT_PROBE_PAIR_H

#include "bpf_obj.h"
#include "relay.h"
#include "sockmap.h"

/* Of one check, and of one capability. Healthy checks take a few ms; the rest is room for a busy
 * host. */
#define PROBE_CHECK_MS 1000
#define PROBE_CAPABILITY_MS 4000

#define PROBE_LIMIT (128u * 1024) /* overflow_limit of the pairs */

struct probe_pair;

struct probe_env {
	struct bpf_obj *obj;
	struct bpf_events *events;
	struct relay_pool pool;
	struct probe_pair *pair; /* whose events arrive */
	uint64_t deadline_ns;
	char *why;
	size_t why_size;
};

enum probe_path { PROBE_KERNEL, PROBE_SETTLING, PROBE_RELAYED };

/* One direction, with the number of the end that receives its bytes. */
struct probe_dir {
	struct relay relay;
	enum probe_path path;
	bool event; /* of flow_events: an overflow began */
	bool finished; /* the sender's FIN was seen */
	bool passed; /* ... and passed on */
	bool eof; /* ... and read */
	uint64_t sent, received;
	unsigned int handbacks;
};

struct probe_pair {
	int far[END_COUNT]; /* client and server */
	struct sockmap_pair near;
	struct probe_dir dirs[END_COUNT];
	bool is_v6;
};

/* Zero: the kernel's defaults. */
struct probe_shape {
	int client_family; /* of the listener; the client of a dual one (AF_INET6 with mapped) uses
			      IPv4 */
	bool mapped;
	int server_family;
	int client_sndbuf, target_sndbuf, server_rcvbuf; /* bytes as in SO_SNDBUF */
};

/* Checks and their steps: true, or false with the reason in env->why. */
bool probe_fail(struct probe_env *env, const char *fmt, ...) PRINTF(2, 3);
bool probe_fail_errno(struct probe_env *env, int err, const char *what);

bool probe_pair_open(
	struct probe_env *env, struct probe_pair *pair, const struct probe_shape *shape);
bool probe_pair_insert(struct probe_env *env, struct probe_pair *pair);
void probe_pair_close(struct probe_env *env, struct probe_pair *pair);
void probe_close_reset(int fd); /* close() that sends RST and so leaves no TIME_WAIT; -1 is fine */
/* Opens, inserts if asked to, runs the steps, closes. */
typedef bool (*probe_steps)(struct probe_env *env, struct probe_pair *pair);
bool probe_with_pair(
	struct probe_env *env, const struct probe_shape *shape, bool insert, probe_steps steps);
/* A connected pair of sockets: [0] called connect(), [1] was accepted by listen_fd. */
bool probe_connect(struct probe_env *env, int listen_fd, int family, int sndbuf, int ret_fds[2]);
int probe_listen(struct probe_env *env, int family, bool dual, int rcvbuf); /* -1 */

/* Waits a little for something that gives no event. False at the check's deadline. */
bool probe_nap(struct probe_env *env);
bool probe_wait(struct probe_env *env, int fd, short events, const char *what);
short probe_poll(int fd, short events); /* at once */

/* The far ends: sends until `total` bytes or EAGAIN; reads and compares all there is. */
void probe_pattern(unsigned int dir, uint64_t offset, void *buf, size_t len);
bool probe_offer(struct probe_env *env, struct probe_pair *pair, unsigned int dir, uint64_t total);
bool probe_collect(struct probe_env *env, struct probe_pair *pair, unsigned int dir);

#endif
