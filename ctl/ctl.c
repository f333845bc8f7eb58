/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the command line. Must not know what a command does. */
#include "ctl.h"

#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include "../daemon/util.h"
#include "change.h"
#include "show.h"
#include "top.h"

const struct ctl_command ctl_commands[] = {
	{"info", "", 0, 0, show_info, "what runs: version, processes, kernel path, readiness"},
	{"listeners", "", 0, 0, show_listeners, "each listener with its sessions and bytes"},
	{"backends", "", 0, 0, show_backends, "each server with its state, weight and bytes"},
	{"sessions", "[FILTER...]", 0, 0, show_sessions, "the live sessions, most bytes first"},
	{"top", "", 0, 0, top_run, "the live sessions and their rates, every second"},
	{"server", "BACKEND/NAME ready|drain|maint|weight N", 2, 3, change_server,
		"set the state of a server, or its weight (0 to 256, or default)"},
	{"close", "SESSION", 1, 1, change_close, "reset a session, by its id"},
	{"reload", "", 0, 0, change_reload, "read the configuration again"},
	{"upgrade", "", 0, 0, change_upgrade, "replace the running binary"},
	{"drain", "", 0, 0, change_drain, "accept no more, end when the last session has"},
	{"not-ready", "", 0, 0, change_not_ready, "let /readyz say 503, and go on serving"},
	{"ready", "", 0, 0, change_ready, "take not-ready back"},
	{"log-level", "error|warning|notice|info|debug", 1, 1, change_log_level,
		"how much the daemon logs"},
};

const unsigned int ctl_ncommands = ARRAY_LEN(ctl_commands);

enum option_id {
	OPTION_LISTENER = 256,
	OPTION_BACKEND,
	OPTION_SERVER,
	OPTION_CLIENT,
	OPTION_PATH,
	OPTION_LIMIT
};

static const struct option options[] = {
	{"socket", required_argument, NULL, 's'},
	{"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{"listener", required_argument, NULL, OPTION_LISTENER},
	{"backend", required_argument, NULL, OPTION_BACKEND},
	{"server", required_argument, NULL, OPTION_SERVER},
	{"client", required_argument, NULL, OPTION_CLIENT},
	{"path", required_argument, NULL, OPTION_PATH},
	{"limit", required_argument, NULL, OPTION_LIMIT},
	{NULL, 0, NULL, 0},
};

enum ctl_exit ctl_usage(const struct ctl *ctl, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("shuntctl: ", ctl->err);
	vfprintf(ctl->err, fmt, ap);
	fputs("\nTry 'shuntctl --help'.\n", ctl->err);
	va_end(ap);
	return CTL_USAGE;
}

static enum ctl_exit show_help(const struct ctl *ctl)
{
	fputs("usage: shuntctl [--socket PATH] [--json] COMMAND\n\ncommands:\n", ctl->out);
	for (unsigned int i = 0; i < ctl_ncommands; i++)
		fprintf(ctl->out, "  %s %s\n      %s\n", ctl_commands[i].name, ctl_commands[i].args,
			ctl_commands[i].help);
	fputs("\noptions:\n"
	      "  -s, --socket PATH  the daemon's control socket (" CTL_SOCKET ")\n"
	      "  -j, --json         print the daemon's JSON as it is\n"
	      "  -h, --help         this text\n"
	      "  -V, --version      the version of shuntctl\n"
	      "\nfilters of sessions:\n"
	      "  --listener NAME, --backend NAME, --server NAME or BACKEND/NAME\n"
	      "  --client TEXT      the start of the client's address\n"
	      "  --path PATH        relay, sockmap or shortcut, in either direction\n"
	      "  --limit N          at most so many (100)\n"
	      "\nexit: 0 done, 1 refused or failed, 2 usage, 3 cannot connect\n",
		ctl->out);
	return CTL_OK;
}

static const char **filter_of(struct ctl *ctl, int id)
{
	switch (id) {
	case OPTION_LISTENER:
		return &ctl->listener;
	case OPTION_BACKEND:
		return &ctl->backend;
	case OPTION_SERVER:
		return &ctl->server;
	case OPTION_CLIENT:
		return &ctl->client;
	case OPTION_PATH:
		return &ctl->path;
	case OPTION_LIMIT:
		return &ctl->limit;
	default:
		return NULL;
	}
}

/* getopt's own messages go to stderr, wherever ours go. */
static enum ctl_exit bad_option(const struct ctl *ctl, int kind, char **argv)
{
	return ctl_usage(ctl, kind == ':' ? "option '%s' needs a value" : "unknown option '%s'",
		argv[optind - 1]);
}

enum step { STEP_RUN, STEP_DONE };

static enum step read_options(struct ctl *ctl, int argc, char **argv, enum ctl_exit *ret_status)
{
	int id;

	optind = 0; /* also forgets an earlier run */
	opterr = 0;
	*ret_status = CTL_OK;
	while ((id = getopt_long(argc, argv, ":s:jhV", options, NULL)) >= 0) {
		const char **filter = filter_of(ctl, id);

		if (filter) {
			*filter = optarg;
		} else if (id == 's') {
			ctl->socket = optarg;
		} else if (id == 'j') {
			ctl->json = true;
		} else {
			if (id == 'h')
				show_help(ctl);
			else if (id == 'V')
				fprintf(ctl->out, "shuntctl %s\n", SHUNT_VERSION);
			else
				*ret_status = bad_option(ctl, id, argv);
			return STEP_DONE;
		}
	}
	return STEP_RUN;
}

static bool has_filter(const struct ctl *ctl)
{
	return ctl->listener || ctl->backend || ctl->server || ctl->client || ctl->path ||
	       ctl->limit;
}

static enum ctl_exit dispatch(const struct ctl *ctl, char **args, int nargs)
{
	for (unsigned int i = 0; i < ctl_ncommands; i++) {
		const struct ctl_command *command = &ctl_commands[i];

		if (strcmp(args[0], command->name) != 0)
			continue;
		if (nargs - 1 < command->min_args || nargs - 1 > command->max_args)
			return ctl_usage(ctl, "usage: shuntctl %s%s%s", command->name,
				*command->args ? " " : "", command->args);
		if (has_filter(ctl) && command->run != show_sessions)
			return ctl_usage(ctl, "only 'sessions' takes a filter");
		return command->run(ctl, args + 1);
	}
	return ctl_usage(ctl, "unknown command '%s'", args[0]);
}

enum ctl_exit ctl_run(int argc, char **argv, FILE *out, FILE *err)
{
	struct ctl ctl = {.out = out, .err = err, .socket = CTL_SOCKET};
	enum ctl_exit status;

	if (read_options(&ctl, argc, argv, &status) == STEP_DONE)
		return status;
	if (optind >= argc)
		return ctl_usage(&ctl, "a command is expected");
	return dispatch(&ctl, argv + optind, argc - optind);
}
