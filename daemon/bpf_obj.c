/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns loading, attaching and the raw map operations. Must not know sessions. */
#include "bpf_obj.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual" /* generated */
#include "splice.skel.h"
#pragma GCC diagnostic pop

const char *const bpf_map_names[BPF_MAP_ID_COUNT] = {
	[BPF_MAP_REDIR_TARGETS] = "redir_targets",
	[BPF_MAP_SPLICED_SOCKS] = "spliced_socks",
	[BPF_MAP_FLOWS] = "flows",
	[BPF_MAP_FLOW_EVENTS] = "flow_events",
	[BPF_MAP_SOCK_STATS] = "sock_stats",
};

/* libbpf's own text is one level quieter than ours: a failed load is our decision to report. */
static int libbpf_print(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char text[512];
	size_t len;

	if (level == LIBBPF_DEBUG || log_get_level() < LOG_LEVEL_DEBUG)
		return 0;
	vsnprintf(text, sizeof(text), fmt, ap);
	len = strlen(text);
	while (len && text[len - 1] == '\n')
		text[--len] = '\0';
	log_debug("%s", text);
	return 0;
}

/* Two to four slots for each direction keep every probe sequence of FLOW_PROBES short of full. */
static unsigned int flow_bits(uint32_t max_sessions)
{
	unsigned int bits = 6;

	while (bits < 26 && (1ull << bits) < (uint64_t)max_sessions * 2 * 2)
		bits++;
	return bits;
}

/* The ring buffer's size must be a power of two of pages; each direction can have one event
 * waiting. */
static uint32_t ring_bytes(uint32_t max_sessions)
{
	uint64_t need = (uint64_t)max_sessions * 2 * (sizeof(struct flow_event) + 8);
	uint32_t bytes = 64 * 1024;

	while (bytes < need && bytes < 64u * 1024 * 1024)
		bytes *= 2;
	return bytes;
}

static int set_sizes(struct splice_bpf *skel, const struct bpf_obj_conf *conf, struct bpf_obj *obj)
{
	uint32_t sockets = conf->max_sessions * 2;
	int err = 0;

	obj->flow_shift = 64 - flow_bits(conf->max_sessions);
	obj->capacity[BPF_MAP_REDIR_TARGETS] = sockets;
	obj->capacity[BPF_MAP_SPLICED_SOCKS] = sockets;
	obj->capacity[BPF_MAP_FLOWS] = 1u << (64 - obj->flow_shift);
	obj->capacity[BPF_MAP_FLOW_EVENTS] = ring_bytes(conf->max_sessions);
	skel->rodata->flow_shift = obj->flow_shift;
#ifdef SHUNT_SABOTAGE
	skel->rodata->sabotage = conf->sabotage;
#endif
	err = err ?: bpf_map__set_max_entries(skel->maps.redir_targets, sockets);
	err = err ?: bpf_map__set_max_entries(skel->maps.spliced_socks, sockets);
	err = err ?: bpf_map__set_max_entries(skel->maps.flows, obj->capacity[BPF_MAP_FLOWS]);
	err = err
		      ?: bpf_map__set_max_entries(
				 skel->maps.flow_events, obj->capacity[BPF_MAP_FLOW_EVENTS]);
	err = err ?: bpf_program__set_autoload(skel->progs.skb_verdict, !conf->stream_parser);
	err = err ?: bpf_program__set_autoload(skel->progs.skb_parser, conf->stream_parser);
	err = err ?: bpf_program__set_autoload(skel->progs.skb_parsed, conf->stream_parser);
	err = err ?: bpf_program__set_autoload(skel->progs.payload_valve, conf->stream_parser);
	return err;
}

static int attach(struct splice_bpf *skel, struct bpf_obj *obj)
{
	int map_fd = bpf_map__fd(skel->maps.spliced_socks);
	int err;

	if (!obj->stream_parser)
		return bpf_prog_attach(bpf_program__fd(skel->progs.skb_verdict), map_fd,
			BPF_SK_SKB_STREAM_VERDICT, 0);
	err = bpf_prog_attach(
		bpf_program__fd(skel->progs.skb_parser), map_fd, BPF_SK_SKB_STREAM_PARSER, 0);
	if (err)
		return err;
	return bpf_prog_attach(
		bpf_program__fd(skel->progs.skb_parsed), map_fd, BPF_SK_SKB_STREAM_VERDICT, 0);
}

static size_t flows_bytes(const struct bpf_obj *obj)
{
	return (size_t)obj->capacity[BPF_MAP_FLOWS] * sizeof(struct flow);
}

static int take_fds(struct splice_bpf *skel, struct bpf_obj *obj)
{
	void *table;

	obj->map_fds[BPF_MAP_REDIR_TARGETS] = bpf_map__fd(skel->maps.redir_targets);
	obj->map_fds[BPF_MAP_SPLICED_SOCKS] = bpf_map__fd(skel->maps.spliced_socks);
	obj->map_fds[BPF_MAP_FLOWS] = bpf_map__fd(skel->maps.flows);
	obj->map_fds[BPF_MAP_FLOW_EVENTS] = bpf_map__fd(skel->maps.flow_events);
	obj->map_fds[BPF_MAP_SOCK_STATS] = bpf_map__fd(skel->maps.sock_stats);
	obj->verdicts_fd = bpf_map__fd(skel->maps.verdicts);
	obj->valve_fd = obj->stream_parser ? bpf_program__fd(skel->progs.payload_valve) : -1;
	table = mmap(NULL, flows_bytes(obj), PROT_READ | PROT_WRITE, MAP_SHARED,
		obj->map_fds[BPF_MAP_FLOWS], 0);
	if (table == MAP_FAILED)
		return -errno;
	obj->flows = table;
	return 0;
}

static int fail(struct bpf_obj *obj, int err, const char *step, char *why, size_t size)
{
	snprintf(why, size, "%s: %s", step, strerror(-err));
	bpf_obj_close(obj);
	return err;
}

int bpf_obj_open(const struct bpf_obj_conf *conf, struct bpf_obj *obj, char *why, size_t size)
{
	struct splice_bpf *skel;
	int err;

	memset(obj, 0, sizeof(*obj));
	obj->stream_parser = conf->stream_parser;
	obj->sabotage = conf->sabotage;
	libbpf_set_print(libbpf_print);
	skel = splice_bpf__open();
	if (!skel)
		return fail(obj, -errno, "opening the BPF object", why, size);
	obj->skeleton = skel;
	err = set_sizes(skel, conf, obj);
	if (err)
		return fail(obj, err, "sizing the maps", why, size);
	err = splice_bpf__load(skel);
	if (err)
		return fail(obj, err, "loading the BPF programs", why, size);
	err = attach(skel, obj);
	if (err)
		return fail(obj, err, "attaching to spliced_socks", why, size);
	err = take_fds(skel, obj);
	if (err)
		return fail(obj, err, "mapping the flow table", why, size);
	return 0;
}

void bpf_obj_close(struct bpf_obj *obj)
{
	if (obj->flows)
		munmap(obj->flows, flows_bytes(obj));
	splice_bpf__destroy(obj->skeleton);
	memset(obj, 0, sizeof(*obj));
}

void bpf_obj_reset(struct bpf_obj *obj)
{
	for (uint32_t i = 0; i < obj->capacity[BPF_MAP_FLOWS]; i++)
		__atomic_store_n(&obj->flows[i].cookie, 0, __ATOMIC_RELEASE);
}

int bpf_obj_insert(int map_fd, const void *key, const void *value)
{
	return bpf_map_update_elem(map_fd, key, value, BPF_NOEXIST) ? -errno : 0;
}

int bpf_obj_delete(int map_fd, const void *key)
{
	return bpf_map_delete_elem(map_fd, key) ? -errno : 0;
}

int bpf_obj_lookup(int map_fd, const void *key, void *ret_value)
{
	return bpf_map_lookup_elem(map_fd, key, ret_value) ? -errno : 0;
}

uint64_t bpf_obj_verdicts(const struct bpf_obj *obj, enum verdict verdict)
{
	int cpus = libbpf_num_possible_cpus();
	uint32_t index = verdict;
	uint64_t sum = 0;
	uint64_t *values;

	if (cpus <= 0)
		return 0;
	values = calloc((size_t)cpus, sizeof(*values));
	if (values && !bpf_map_lookup_elem(obj->verdicts_fd, &index, values))
		for (int i = 0; i < cpus; i++)
			sum += values[i];
	free(values);
	return sum;
}

struct bpf_events {
	struct ring_buffer *ring;
	bpf_event_cb cb;
	void *arg;
};

static int on_sample(void *ctx, void *data, size_t size)
{
	struct bpf_events *events = ctx;

	if (size >= sizeof(struct flow_event))
		events->cb(events->arg, data);
	return 0;
}

int bpf_events_open(const struct bpf_obj *obj, bpf_event_cb cb, void *arg, struct bpf_events **ret)
{
	struct bpf_events *events = calloc(1, sizeof(*events));
	int err;

	if (!events)
		return -ENOMEM;
	events->cb = cb;
	events->arg = arg;
	events->ring = ring_buffer__new(obj->map_fds[BPF_MAP_FLOW_EVENTS], on_sample, events, NULL);
	if (!events->ring) {
		err = errno ? -errno : -EINVAL;
		free(events);
		return err;
	}
	*ret = events;
	return 0;
}

int bpf_events_consume(struct bpf_events *events)
{
	return ring_buffer__consume(events->ring);
}

void bpf_events_close(struct bpf_events *events)
{
	if (!events)
		return;
	ring_buffer__free(events->ring);
	free(events);
}
