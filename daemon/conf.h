/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration as the daemon uses it: plain data, owned by struct conf, immutable once parsed.
 */
#ifndef SHUNT_CONF_H
#define SHUNT_CONF_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "addr.h"
#include "log.h"

enum path_mode { PATH_MODE_AUTO, PATH_MODE_SOCKMAP, PATH_MODE_RELAY };
enum parser_mode { PARSER_AUTO, PARSER_STREAM, PARSER_NONE };
enum balance_mode {
	BALANCE_ROUND_ROBIN,
	BALANCE_LEAST_SESSIONS,
	BALANCE_RANDOM_TWO,
	BALANCE_SOURCE_HASH
};
enum check_mode { CHECK_OFF, CHECK_TCP, CHECK_SEND_EXPECT };
enum server_down_mode { SERVER_DOWN_KEEP, SERVER_DOWN_RESET };
enum send_proxy_mode { SEND_PROXY_OFF, SEND_PROXY_V1, SEND_PROXY_V2 };

struct conf_addrs {
	struct addr *v;
	unsigned int *lines; /* where each was given; 0: not in a file */
	unsigned int n;
};

/* A row of allow, deny or accept_proxy_from. An IPv4-mapped network is kept as the IPv4 one. No
 * host bit is set. */
struct conf_cidr {
	int family; /* AF_INET: the first 4 bytes of ip count; AF_INET6 */
	unsigned char ip[16]; /* network byte order, zero beyond the prefix */
	unsigned int prefix;
	bool allow; /* else deny */
	unsigned int line;
};

struct conf_cidrs {
	struct conf_cidr *v;
	unsigned int n;
};

struct conf_rate {
	unsigned int count; /* per period; 0: off */
	uint64_t period_ms;
};

struct conf_bind_options {
	bool v6only; /* "*:port" is IPv6 alone */
	bool freebind;
	char interface[IF_NAMESIZE]; /* "": any */
	unsigned int backlog; /* 0: the daemon's own */
	unsigned int line;
};

/* One "route" line. */
struct conf_route {
	char *pattern; /* as written; see routes.h */
	char *backend_name;
	struct conf_backend *backend; /* resolved by conf_finish() */
	unsigned int line;
};

struct conf_server {
	char *name; /* as in "name=a"; else the address text */
	struct addr addr;
	unsigned int weight; /* 0: drained */
	bool backup;
	unsigned int max_sessions; /* 0: off */
	bool max_sessions_is_own; /* else conf_finish() copies the backend's */
	unsigned int line;
	unsigned int slot; /* not from the file: index into shared state, for its users to set */
};

struct conf_backend {
	char *name;
	struct conf_server *servers;
	unsigned int nservers;
	enum balance_mode balance;
	enum send_proxy_mode send_proxy;
	enum check_mode check;
	char *check_send, *check_expect; /* may hold NUL bytes; NULL but for CHECK_SEND_EXPECT */
	size_t check_send_len, check_expect_len; /* to send: may be 0; to expect: at least 1 */
	uint64_t check_interval_ms;
	unsigned int check_rise, check_fall;
	uint64_t connect_timeout_ms;
	unsigned int retries; /* further servers to try */
	uint64_t queue_timeout_ms;
	enum server_down_mode on_server_down;
	uint64_t slow_start_ms; /* 0: off */
	unsigned int server_max_sessions; /* 0: off; conf_server.max_sessions is what counts */
	uint64_t ejection_ms; /* 0: off */
	uint64_t keepalive_ms; /* to servers; 0: off */
	uint64_t user_timeout_ms; /* to servers; 0: off */
	unsigned int line;
};

struct conf_listener {
	char *name;
	struct conf_addrs binds;
	char *backend_name;
	unsigned int backend_line;
	struct conf_backend *backend; /* resolved by conf_finish() */
	enum path_mode path; /* its own, or the global one */
	bool path_is_own; /* else conf_finish() copies the global one */
	struct conf_cidrs access; /* allow and deny, in the order of the file */
	bool accept_proxy;
	struct conf_cidrs accept_proxy_from; /* all of them allow; none: any */
	struct conf_route *routes; /* no two for the same names; in the order of the file */
	unsigned int nroutes;
	uint64_t max_sessions; /* 0: off */
	uint64_t max_sessions_per_ip; /* 0: off */
	struct conf_rate max_rate_per_ip;
	uint64_t idle_timeout_ms; /* 0: off */
	uint64_t half_close_timeout_ms;
	uint64_t handshake_timeout_ms;
	uint64_t max_lifetime_ms; /* 0: off */
	uint64_t keepalive_ms; /* to clients; 0: off */
	uint64_t user_timeout_ms; /* to clients; 0: off */
	struct conf_bind_options bind_options;
	unsigned int line;
	unsigned int slot; /* not from the file: index into shared state, for its users to set */
};

struct conf {
	char *source; /* file name, for messages; NULL: command line */
	unsigned int threads; /* 0: auto, one per CPU */
	char *user; /* NULL: default (shunt, else nobody) */
	struct conf_addrs stats;
	struct addr control; /* len 0: none */
	enum path_mode path;
	enum parser_mode parser;
	uint64_t overflow_limit; /* bytes */
	uint64_t max_sessions; /* 0: auto */
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

/* Both return a new configuration, or NULL with *error filled. The caller frees it with
 * conf_free(). */
struct conf *conf_read_file(const char *path, struct conf_error *error);
struct conf *conf_read_text(
	const char *text, size_t len, const char *name, struct conf_error *error);

/* An empty configuration with every default set; the file-less form builds on it. NULL: out of
 * memory. */
struct conf *conf_new(void);
/* Adds "listenerN"/"backendN" for one --listen/--to pair. 0, or -EINVAL/-ENOMEM with *error filled.
 */
MUST_CHECK int conf_add_pair(
	struct conf *conf, const char *listen, const char *to, struct conf_error *error);
/* Checks across keys and resolves names; the readers call it themselves. 0 or -EINVAL with *error
 * filled. */
MUST_CHECK int conf_finish(struct conf *conf, struct conf_error *error);

/* By name; NULL: there is none. */
struct conf_listener *conf_find_listener(const struct conf *conf, const char *name);
struct conf_backend *conf_find_backend(const struct conf *conf, const char *name);
struct conf_server *conf_find_server(const struct conf_backend *backend, const char *name);
/* The index of an equal address, "*:80" and "[::]:80" being different ones, or -1. */
int conf_find_addr(const struct conf_addrs *addrs, const struct addr *addr);
/* True when the listening sockets of one can serve the other: same addresses, in any order, and the
 * same options. */
bool conf_listener_same_binds(const struct conf_listener *a, const struct conf_listener *b);

/* Writes the effective configuration in the form that conf_read_file() takes. */
void conf_dump(const struct conf *conf, FILE *out);
void conf_free(struct conf *conf); /* NULL is fine */

#endif
