/* SPDX-License-Identifier: BSD-2-Clause */
/* Arguments, order of start, exit status; nothing else. */
#include <stdio.h>

#include "conf.h"
#include "log.h"
#include "options.h"
#include "probe.h"
#include "supervisor.h"

enum { EXIT_CLEAN = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static int with_conf(const struct options *options)
{
	struct conf_error error;
	struct conf *conf = options_conf(options, &error);

	if (!conf) {
		fprintf(stderr, "%s\n", error.text);
		return EXIT_FAILED;
	}
	if (options->action == OPTIONS_DUMP) {
		conf_dump(conf, stdout);
	} else if (options->action == OPTIONS_RUN) {
		log_set_level(conf->log_level);
		return supervisor_run(conf);
	}
	conf_free(conf);
	return EXIT_CLEAN;
}

/* 0 when the kernel path can be used in the way that "auto" would. */
static int show_probe(bool json)
{
	struct probe_report report;

	probe_run(NULL, &report);
	probe_print(&report, json, stdout);
	return report.capabilities[PROBE_SOCKMAP].ok ? EXIT_CLEAN : EXIT_FAILED;
}

int main(int argc, char **argv)
{
	struct options options;

	log_init();
	if (options_parse(argc, argv, &options))
		return EXIT_USAGE;
	switch (options.action) {
	case OPTIONS_VERSION:
		options_print_version(stdout);
		return EXIT_CLEAN;
	case OPTIONS_HELP:
		options_print_help(stdout);
		return EXIT_CLEAN;
	case OPTIONS_PROBE:
		return show_probe(options.json);
	case OPTIONS_RUN:
	case OPTIONS_CHECK:
	case OPTIONS_DUMP:
		break;
	}
	return with_conf(&options);
}
