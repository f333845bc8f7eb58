/* SPDX-License-Identifier: BSD-2-Clause */
#include "kernel_path.h"

#include "log.h"
#include "probe.h"

static bool wanted(const struct conf *conf)
{
	for (unsigned int i = 0; i < conf->nlisteners; i++)
		if (conf->listeners[i].path != PATH_MODE_RELAY)
			return true;
	return false;
}

/* Once, in words an operator can act on. */
static bool allowed(const struct probe_report *report, enum probe_capability capability)
{
	const struct probe_result *result = &report->capabilities[capability];

	if (result->ok)
		log_info("self-test: %s: ok", probe_capability_names[capability]);
	else
		log_warning("self-test: %s: switched off: %s", probe_capability_names[capability],
			result->why);
	return result->ok;
}

bool kernel_path_open(const struct conf *conf, uint32_t max_sessions, struct bpf_obj *ret)
{
	struct bpf_obj_conf bpf = {
		.max_sessions = max_sessions,
		.stream_parser = conf->parser == PARSER_STREAM,
	};
	struct probe_report report;
	char why[256];

	if (!wanted(conf))
		return false;
	probe_run(&bpf, &report);
	log_info("self-test took %u ms on kernel %s", report.us / 1000, report.kernel);
	(void)allowed(&report, PROBE_SOCK_STATS);
	if (!allowed(&report, bpf.stream_parser ? PROBE_SOCKMAP_PARSER : PROBE_SOCKMAP))
		return false;
	if (!bpf_obj_open(&bpf, ret, why, sizeof(why)))
		return true;
	log_warning("no kernel path, relaying everything: %s", why);
	return false;
}
