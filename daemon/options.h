/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of shuntd. */
#ifndef SHUNT_OPTIONS_H
#define SHUNT_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "conf.h"

#define OPTIONS_CONFIG_DEFAULT "/etc/shunt/shunt.conf"
#define OPTIONS_PAIRS_MAX 64
#define OPTIONS_GLOBALS_MAX 32

enum options_action {
	OPTIONS_RUN,
	OPTIONS_CHECK,
	OPTIONS_DUMP,
	OPTIONS_PROBE,
	OPTIONS_VERSION,
	OPTIONS_HELP,
};

/* A key of [global] given as an option. */
struct options_global {
	const char *key, *value;
};

/* Every text points into argv. */
struct options {
	enum options_action action;
	bool json; /* with OPTIONS_PROBE */
	const char *config; /* the file; NULL: the file-less form, npairs > 0 */
	const char *listen[OPTIONS_PAIRS_MAX], *to[OPTIONS_PAIRS_MAX];
	unsigned int npairs;
	struct options_global globals[OPTIONS_GLOBALS_MAX]; /* file-less form only */
	unsigned int nglobals;
};

/* 0, or -EINVAL after one message and a hint on stderr: exit with 2. Values are checked, also
 * across options; the configuration file is not opened. */
MUST_CHECK int options_parse(int argc, char **argv, struct options *ret);
/* For OPTIONS_VERSION and OPTIONS_HELP: what to print, on stdout, before exiting with 0. */
void options_print_version(FILE *out);
void options_print_help(FILE *out);

/* Reads the file, or builds the file-less form. NULL with *error filled; the caller frees with
 * conf_free(). */
struct conf *options_conf(const struct options *options, struct conf_error *error);

#endif
