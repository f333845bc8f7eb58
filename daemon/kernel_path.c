/* SPDX-License-Identifier: BSD-2-Clause */
#include "kernel_path.h"

#include "log.h"

static bool wanted(const struct conf *conf)
{
	for (unsigned int i = 0; i < conf->nlisteners; i++)
		if (conf->listeners[i].path != PATH_MODE_RELAY)
			return true;
	return false;
}

bool kernel_path_open(const struct conf *conf, uint32_t max_sessions, struct bpf_obj *ret)
{
	struct bpf_obj_conf bpf = {
		.max_sessions = max_sessions,
		.stream_parser = conf->parser == PARSER_STREAM,
	};
	char why[256];

	if (!wanted(conf))
		return false;
	if (!bpf_obj_open(&bpf, ret, why, sizeof(why)))
		return true;
	log_warning("no kernel path, relaying everything: %s", why);
	return false;
}
