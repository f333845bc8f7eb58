/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration as the daemon uses it: plain data, owned by struct conf, immutable once parsed. */
#ifndef SHUNT_CONF_H
#define SHUNT_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "addr.h"
#include "log.h"

enum path_mode { PATH_MODE_AUTO, PATH_MODE_SOCKMAP, PATH_MODE_RELAY };
enum parser_mode { PARSER_AUTO, PARSER_STREAM, PARSER_NONE };
enum check_mode { CHECK_OFF, CHECK_TCP }; /* what was asked for; active checks are not run yet */

struct conf_addrs {
	struct addr *v;
	unsigned int *lines; /* where each was given; 0: not in a file */
	unsigned int n;
};

struct conf_server {
	char *name; /* as in "name=a"; else the address text */
	struct addr addr;
	unsigned int weight; /* 0: drained */
	bool backup;
	unsigned int max_sessions; /* 0: off */
	unsigned int line;
};

struct conf_backend {
	char *name;
	struct conf_server *servers;
	unsigned int nservers;
	enum check_mode check;
	uint64_t connect_timeout_ms;
	uint64_t keepalive_ms;	  /* 0: off */
	uint64_t user_timeout_ms; /* 0: off */
	unsigned int line;
};

struct conf_listener {
	char *name;
	struct conf_addrs binds;
	char *backend_name;
	unsigned int backend_line;
	struct conf_backend *backend; /* resolved by conf_finish() */
	enum path_mode path;	      /* its own, or the global one */
	bool path_is_own;	      /* else conf_finish() copies the global one */
	uint64_t max_sessions;	      /* 0: off */
	uint64_t idle_timeout_ms;     /* 0: off */
	uint64_t half_close_timeout_ms;
	unsigned int line;
};

struct conf {
	char *source;	      /* file name, for messages; NULL: command line */
	unsigned int threads; /* 0: auto, one per CPU */
	char *user;	      /* NULL: default (shunt, else nobody) */
	struct conf_addrs stats;
	struct addr control; /* len 0: none */
	enum path_mode path;
	enum parser_mode parser;
	uint64_t overflow_limit; /* bytes */
	uint64_t max_sessions;	 /* 0: auto */
	uint64_t drain_timeout_ms;
	enum log_level log_level;
	struct conf_listener *listeners;
	unsigned int nlisteners;
	struct conf_backend *backends;
	unsigned int nbackends;
};

/* Where and what, ready to print: "file:line: message", without a newline. */
struct conf_error {
	char text[512];
};

/* Both return a new configuration, or NULL with *error filled. The caller frees it with conf_free(). */
struct conf *conf_read_file(const char *path, struct conf_error *error);
struct conf *conf_read_text(const char *text, size_t len, const char *name, struct conf_error *error);

/* An empty configuration with every default set; the file-less form builds on it. NULL: out of memory. */
struct conf *conf_new(void);
/* Adds "listenerN"/"backendN" for one --listen/--to pair. 0, or -EINVAL/-ENOMEM with *error filled. */
MUST_CHECK int conf_add_pair(struct conf *conf, const char *listen, const char *to,
	struct conf_error *error);
/* Checks across keys and resolves names; the readers call it themselves. 0 or -EINVAL with *error filled. */
MUST_CHECK int conf_finish(struct conf *conf, struct conf_error *error);

/* Writes the effective configuration in the form that conf_read_file() takes. */
void conf_dump(const struct conf *conf, FILE *out);
void conf_free(struct conf *conf); /* NULL is fine */

#endif
