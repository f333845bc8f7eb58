/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The start-up self-test: proves on private loopback connections, through the code that sessions
 * use, that the running kernel keeps the promises of the kernel path. What fails is not offered to
 * sessions. Runs in the supervisor, blocking, before any traffic; leaves no descriptor, map or
 * socket behind.
 */
#ifndef SHUNT_PROBE_H
#define SHUNT_PROBE_H

#include <stdbool.h>
#include <stdio.h>

#include "bpf_obj.h"

#define PROBE_WHY_MAX 200

enum probe_capability { PROBE_SOCKMAP, PROBE_SOCKMAP_PARSER, PROBE_SOCK_STATS, PROBE_COUNT };
extern const char *const probe_capability_names[PROBE_COUNT];

enum probe_check_id {
#define PROBE_CHECK(id, capability, name, run, text) PROBE_CHECK_##id,
#include "probe_checks.def"
#undef PROBE_CHECK
	PROBE_CHECK_COUNT
};

struct probe_result {
	bool ok;
	char why[PROBE_WHY_MAX]; /* of a failure; else a remark, or empty */
	unsigned int us;
};

struct probe_check_result {
	const char *name; /* unique within its capability */
	const char *text; /* what it proves */
	enum probe_capability capability;
	struct probe_result result;
};

struct probe_report {
	char kernel[65]; /* uname -r */
	struct probe_result capabilities[PROBE_COUNT];
	struct probe_check_result checks[PROBE_CHECK_COUNT];
	unsigned int us; /* all of it */
};

/* `conf` gives the sabotage (tests only); the objects opened here have their own size. Without
 * privileges every capability fails with that reason. */
void probe_run(const struct bpf_obj_conf *conf, struct probe_report *ret);

/* A line per capability and one per check, or one JSON document. */
void probe_print(const struct probe_report *report, bool json, FILE *out);

#endif
