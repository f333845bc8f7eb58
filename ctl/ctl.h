/* SPDX-License-Identifier: BSD-2-Clause */
/* shuntctl: the command line, and what its commands share. */
#ifndef SHUNT_CTL_H
#define SHUNT_CTL_H

#include <stdbool.h>
#include <stdio.h>

#define CTL_SOCKET "/run/shunt/control.sock"

enum ctl_exit { CTL_OK, CTL_FAILED, CTL_USAGE, CTL_UNREACHABLE };

/* What the command line said. */
struct ctl {
	FILE *out, *err;
	const char *socket;
	bool json;
	/* For `sessions`; NULL: not given. */
	const char *listener, *backend, *server, *client, *path, *limit;
};

struct ctl_command {
	const char *name;
	const char *args; /* as the usage shows them */
	int min_args, max_args;
	/* args: those after the command's name, NULL at the end. */
	enum ctl_exit (*run)(const struct ctl *ctl, char **args);
	const char *help;
};

/* The only list of the commands: usage, dispatch, and what manual and completions are checked
 * against. */
extern const struct ctl_command ctl_commands[];
extern const unsigned int ctl_ncommands;

enum ctl_exit ctl_run(int argc, char **argv, FILE *out, FILE *err);

/* A message and how to get help. Returns CTL_USAGE. */
enum ctl_exit ctl_usage(const struct ctl *ctl, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
