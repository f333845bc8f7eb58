/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The BPF objects. The only module that knows libbpf and the skeleton. Opening needs CAP_BPF,
 * CAP_NET_ADMIN and CAP_PERFMON; everything else works on descriptors without any capability
 * (kernel-notes 14), so a worker that inherited them can go on.
 */
#ifndef SHUNT_BPF_OBJ_H
#define SHUNT_BPF_OBJ_H

#include <stdbool.h>
#include <stdint.h>

#include "../bpf/abi.h"
#include "util.h"

enum bpf_map_id {
	BPF_MAP_REDIR_TARGETS,
	BPF_MAP_SPLICED_SOCKS,
	BPF_MAP_FLOWS,
	BPF_MAP_FLOW_EVENTS,
	BPF_MAP_SOCK_STATS,
	BPF_MAP_ID_COUNT
};
extern const char *const bpf_map_names[BPF_MAP_ID_COUNT];

struct bpf_obj_conf {
	uint32_t max_sessions; /* sizes the maps: two sockets and two flows each */
	bool stream_parser; /* attach parser and verdict instead of the verdict alone */
	uint32_t sabotage; /* enum sabotage; ignored unless built for it */
};

struct bpf_obj {
	void *skeleton;
	int map_fds[BPF_MAP_ID_COUNT];
	uint32_t capacity[BPF_MAP_ID_COUNT]; /* entries; bytes for the ring buffer; 0: unbounded */
	int verdicts_fd;
	int valve_fd; /* socket filter program; -1 unless stream_parser */
	bool stream_parser;
	uint32_t sabotage;
	_Atomic uint32_t used[BPF_MAP_ID_COUNT]; /* entries that sessions of this process hold */
	struct flow *flows; /* the mapped table */
	unsigned int flow_shift;
};

/* Loads, attaches and maps. 0, or negative errno with *obj closed and the step that failed in
 * why[]. */
MUST_CHECK int bpf_obj_open(
	const struct bpf_obj_conf *conf, struct bpf_obj *obj, char *why, size_t size);
void bpf_obj_close(struct bpf_obj *obj); /* fine on a zeroed or closed one */

/* After the process that held the sockets has died: the kernel has emptied the socket maps, this
 * the rest. */
void bpf_obj_reset(struct bpf_obj *obj);

/* bpf(2) on a map descriptor. Insertion never replaces: -EEXIST. */
MUST_CHECK int bpf_obj_insert(int map_fd, const void *key, const void *value);
int bpf_obj_delete(int map_fd, const void *key);
int bpf_obj_lookup(int map_fd, const void *key, void *ret_value);

/* Sum over CPUs of one count of enum verdict. */
uint64_t bpf_obj_verdicts(const struct bpf_obj *obj, enum verdict verdict);

/* The consumer of flow_events. Not thread safe: callers serialise. */
struct bpf_events;
typedef void (*bpf_event_cb)(void *arg, const struct flow_event *event);
MUST_CHECK int bpf_events_open(
	const struct bpf_obj *obj, bpf_event_cb cb, void *arg, struct bpf_events **ret);
int bpf_events_consume(struct bpf_events *events);
void bpf_events_close(struct bpf_events *events); /* NULL is fine */

#endif
