/* SPDX-License-Identifier: BSD-2-Clause */
#include "view.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "metrics.h"

#define FOLD_TIMEOUT_MS 1000

static void sweep(struct thread *thread, void *arg)
{
	(void)arg;
	session_sweep(&thread->home, now_ns());
}

void view_refresh(struct view *view)
{
	struct thread_call *call = thread_call(view->shared, sweep, NULL, NULL);

	if (!call)
		return;
	(void)!thread_call_wait(call, FOLD_TIMEOUT_MS);
	thread_call_done(call);
}

static uint64_t count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint64_t n = 0;

	if (!dir)
		return 0;
	for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
		if (entry->d_name[0] != '.')
			n++;
	closedir(dir);
	return n - 1; /* the directory itself */
}

static uint64_t resident_bytes(void)
{
	unsigned long long size, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (!file)
		return 0;
	if (fscanf(file, "%llu %llu", &size, &resident) != 2)
		resident = 0;
	fclose(file);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void read_process(const struct view *view, struct metrics_process *ret)
{
	struct rusage usage = {0};
	struct rlimit limit = {0};

	getrusage(RUSAGE_SELF, &usage);
	getrlimit(RLIMIT_NOFILE, &limit);
	*ret = (struct metrics_process){
		.cpu_us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
			  (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec),
		.start_time_us = view->shared->stats->start_time * 1000000,
		.resident_bytes = resident_bytes(),
		.open_fds = count_fds(),
		.max_fds = limit.rlim_cur,
	};
}

static unsigned int read_maps(const struct view *view, struct metrics_map *ret)
{
	static const enum bpf_map_id shown[] = {
		BPF_MAP_REDIR_TARGETS, BPF_MAP_SPLICED_SOCKS, BPF_MAP_FLOWS};

	for (unsigned int i = 0; i < ARRAY_LEN(shown); i++)
		ret[i] = (struct metrics_map){
			.name = bpf_map_names[shown[i]],
			.entries = view->shared->bpf ? view->shared->bpf->used[shown[i]] : 0,
			.capacity = view->shared->bpf ? view->shared->bpf->capacity[shown[i]] : 0,
		};
	return ARRAY_LEN(shown);
}

int view_render(struct view *view, bool openmetrics, char **ret_body, size_t *ret_len)
{
	struct generation *generation = view->current(view->arg);
	struct metrics_map maps[BPF_MAP_ID_COUNT];
	struct metrics_process process;
	struct metrics_view metrics = {
		.conf = generation->conf,
		.stats = view->shared->stats,
		.version = SHUNT_VERSION,
		.maps = maps,
		.process = &process,
		.now_ns = now_ns(),
	};
	int err;

	view_refresh(view);
	metrics.nmaps = read_maps(view, maps);
	read_process(view, &process);
	err = metrics_render(&metrics, openmetrics, ret_body, ret_len);
	generation_unref(generation);
	return err;
}
