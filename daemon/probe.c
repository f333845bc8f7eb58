/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the order of the self-test and its report. What the checks do is in probe_checks.c and its
 * sisters. */
#include "probe.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/utsname.h>

#include "probe_checks.h"
#include "probe_worker.h"

#define PROBE_SESSIONS 64
#define NEEDS " (needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)"

const char *const probe_capability_names[PROBE_COUNT] = {
	[PROBE_SOCKMAP] = "sockmap",
	[PROBE_SOCKMAP_PARSER] = "sockmap-parser",
	[PROBE_SOCK_STATS] = "sock-stats",
};

static const struct {
	enum probe_capability capability;
	const char *name, *text;
	bool (*run)(struct probe_env *env);
} checks[PROBE_CHECK_COUNT] = {
#define PROBE_CHECK(id, capability, name, run, text) {capability, name, text, run},
#include "probe_checks.def"
#undef PROBE_CHECK
};

static unsigned int us_since(uint64_t start_ns)
{
	return (unsigned int)((now_ns() - start_ns) / 1000);
}

static void run_check(
	struct probe_env *env, unsigned int i, uint64_t deadline_ns, struct probe_result *result)
{
	uint64_t start = now_ns();

	if (start >= deadline_ns) {
		snprintf(result->why, sizeof(result->why),
			"not run: the checks before it took too long");
		return;
	}
	env->why = result->why;
	env->why_size = sizeof(result->why);
	env->deadline_ns = start + PROBE_CHECK_MS * 1000000ull;
	result->ok = checks[i].run(env);
	result->us = us_since(start);
}

/* The first check that fails gives the reason; the others run all the same, for the report. */
static void run_checks(
	struct bpf_obj *obj, enum probe_capability capability, struct probe_report *report)
{
	uint64_t deadline = now_ns() + PROBE_CAPABILITY_MS * 1000000ull;
	struct probe_result *sum = &report->capabilities[capability];
	struct probe_env env = {.obj = obj};
	uint64_t start = now_ns();
	int err = bpf_events_open(obj, probe_on_event, &env, &env.events);

	if (err) {
		snprintf(sum->why, sizeof(sum->why), "opening flow_events: %s", strerror(-err));
		return;
	}
	relay_pool_init(&env.pool);
	sum->ok = true;
	for (unsigned int i = 0; i < PROBE_CHECK_COUNT; i++) {
		struct probe_result *result = &report->checks[i].result;

		if (checks[i].capability != capability)
			continue;
		run_check(&env, i, deadline, result);
		if (!result->ok && sum->ok) {
			sum->ok = false;
			snprintf(sum->why, sizeof(sum->why), "%s: %.150s", checks[i].name,
				result->why);
		}
	}
	relay_pool_done(&env.pool);
	bpf_events_close(env.events);
	sum->us += us_since(start);
}

static void not_run(struct probe_report *report, enum probe_capability capability, const char *why)
{
	struct probe_result *sum = &report->capabilities[capability];

	snprintf(sum->why, sizeof(sum->why), "%s", why);
	for (unsigned int i = 0; i < PROBE_CHECK_COUNT; i++)
		if (checks[i].capability == capability)
			snprintf(report->checks[i].result.why, PROBE_WHY_MAX, "not run");
}

/* One set of objects for each attachment; the storage map comes with the first one. */
static void run_objects(struct probe_report *report, uint32_t sabotage, bool stream_parser)
{
	const struct bpf_obj_conf conf = {
		.max_sessions = PROBE_SESSIONS,
		.stream_parser = stream_parser,
		.sabotage = sabotage,
	};
	enum probe_capability capability = stream_parser ? PROBE_SOCKMAP_PARSER : PROBE_SOCKMAP;
	char step[PROBE_WHY_MAX - 64], why[PROBE_WHY_MAX];
	uint64_t start = now_ns();
	struct bpf_obj obj;
	int err = bpf_obj_open(&conf, &obj, step, sizeof(step));

	if (err) {
		snprintf(why, sizeof(why), "%s%s", step, err == -EPERM ? NEEDS : "");
		not_run(report, capability, why);
		if (!stream_parser)
			not_run(report, PROBE_SOCK_STATS, why);
		return;
	}
	report->capabilities[capability].us = us_since(start);
	run_checks(&obj, capability, report);
	if (!stream_parser)
		run_checks(&obj, PROBE_SOCK_STATS, report);
	bpf_obj_close(&obj);
}

void probe_run(const struct bpf_obj_conf *conf, struct probe_report *ret)
{
	uint64_t start = now_ns();
	struct utsname name;

	memset(ret, 0, sizeof(*ret));
	if (uname(&name) == 0)
		snprintf(ret->kernel, sizeof(ret->kernel), "%s", name.release);
	for (unsigned int i = 0; i < PROBE_CHECK_COUNT; i++) {
		ret->checks[i].name = checks[i].name;
		ret->checks[i].text = checks[i].text;
		ret->checks[i].capability = checks[i].capability;
	}
	run_objects(ret, conf ? conf->sabotage : SABOTAGE_NONE, false);
	run_objects(ret, conf ? conf->sabotage : SABOTAGE_NONE, true);
	ret->us = us_since(start);
}

static void print_line(
	FILE *out, const char *indent, const char *name, const struct probe_result *result)
{
	if (!result->ok)
		fprintf(out, "%s%s: no: %s\n", indent, name, result->why);
	else if (result->why[0])
		fprintf(out, "%s%s: ok (%s)\n", indent, name, result->why);
	else
		fprintf(out, "%s%s: ok\n", indent, name);
}

static void print_text(const struct probe_report *report, FILE *out)
{
	for (unsigned int c = 0; c < PROBE_COUNT; c++) {
		print_line(out, "", probe_capability_names[c], &report->capabilities[c]);
		for (unsigned int i = 0; i < PROBE_CHECK_COUNT; i++)
			if (report->checks[i].capability == c)
				print_line(out, "  ", report->checks[i].name,
					&report->checks[i].result);
	}
}

/* NULL (no memory) is passed through: jansson takes it and fails, and nothing is printed. */
static json_t *result_json(const struct probe_result *result)
{
	json_t *json = json_pack("{s:b, s:i}", "ok", result->ok, "us", (int)result->us);

	if (result->why[0])
		json_object_set_new(
			json, result->ok ? "remark" : "reason", json_string(result->why));
	return json;
}

static json_t *capability_json(const struct probe_report *report, enum probe_capability capability)
{
	json_t *json = result_json(&report->capabilities[capability]);
	json_t *list = json_object();

	for (unsigned int i = 0; i < PROBE_CHECK_COUNT; i++)
		if (report->checks[i].capability == capability)
			json_object_set_new(list, report->checks[i].name,
				result_json(&report->checks[i].result));
	json_object_set_new(json, "checks", list);
	return json;
}

static void print_json(const struct probe_report *report, FILE *out)
{
	json_t *capabilities = json_object();
	json_t *json;

	for (unsigned int c = 0; c < PROBE_COUNT; c++)
		json_object_set_new(
			capabilities, probe_capability_names[c], capability_json(report, c));
	json = json_pack("{s:s, s:i, s:o}", "kernel", report->kernel, "us", (int)report->us,
		"capabilities", capabilities);
	if (json && json_dumpf(json, out, JSON_INDENT(2)) == 0)
		fputc('\n', out);
	json_decref(json);
}

void probe_print(const struct probe_report *report, bool json, FILE *out)
{
	if (json)
		print_json(report, out);
	else
		print_text(report, out);
}
