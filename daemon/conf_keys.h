/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of configuration keys: text to field and back. Knows no file format. */
#ifndef SHUNT_CONF_KEYS_H
#define SHUNT_CONF_KEYS_H

#include "conf.h"

enum conf_section { CONF_GLOBAL, CONF_LISTENER, CONF_BACKEND };

enum conf_type {
	CONF_TYPE_NUMBER,
	CONF_TYPE_SIZE, /* bytes */
	CONF_TYPE_TIME, /* milliseconds */
	CONF_TYPE_ENUM,
	CONF_TYPE_USER,
	CONF_TYPE_NAME,
	CONF_TYPE_TEXT, /* only keys that are not supported yet */
	CONF_TYPE_ADDR,
	CONF_TYPE_ADDRS,
	CONF_TYPE_SERVER,
	CONF_TYPE_ALLOW, /* both add to the same list */
	CONF_TYPE_DENY,
	CONF_TYPE_NETWORKS,
	CONF_TYPE_ROUTE,
	CONF_TYPE_RATE,
	CONF_TYPE_BIND_OPTIONS,
	CONF_TYPE_CHECK, /* the words of an enum, of which the last takes two quoted texts */
};

enum {
	CONF_REPEATABLE = 1,
	CONF_NOT_YET = 2, /* takes its default and nothing else */
	CONF_REQUIRED = 4,
	CONF_FILE_ONLY = 8, /* the file-less form has "off" instead of the default */
	CONF_UNIX_ONLY = 16,
};

struct conf_key {
	enum conf_section section;
	const char *name;
	enum conf_type type;
	size_t offset, size; /* of the field; size 0: checked, not stored */
	const char *words; /* see conf_keys.def */
	const char *def; /* NULL: none */
	uint64_t min, max;
	unsigned int flags;
	const char *help;
};

#define CONF_KEYS_MAX 64
#define CONF_LINE_MAX \
	197 /* characters of a line; what is read has to fit again when it is dumped */
extern const struct conf_key conf_keys[];
extern const unsigned int conf_key_count;

/* NULL: no such key in that section. */
const struct conf_key *conf_key_find(enum conf_section section, const char *name);

/* Sets the key's field in object, the struct of its section, or adds to it. -EINVAL or -ENOMEM with
 * the reason in *why: without file, line, key or section. line is 0 where the value is not from a
 * file. */
MUST_CHECK int conf_key_set(const struct conf_key *key, void *object, const char *value,
	unsigned int line, struct conf_error *why);
/* Sets every default of the section but the CONF_FILE_ONLY ones. -ENOMEM. */
MUST_CHECK int conf_key_set_defaults(enum conf_section section, void *object);
/* Writes "name = value" lines for every key of the section that is supported. */
void conf_key_dump(enum conf_section section, const void *object, FILE *out);

/* The field in the struct of the key's section. */
static inline void *conf_key_field(const struct conf_key *key, void *object)
{
	return (char *)object + key->offset;
}

static inline const void *conf_key_field_const(const struct conf_key *key, const void *object)
{
	return (const char *)object + key->offset;
}

/* For conf_key_set() and conf_key_dump(): the values that are more than one word. Same errors. The
 * dumps write what follows "key =", but those of what is repeatable whole lines. */
MUST_CHECK int conf_access_add(struct conf_cidrs *access, bool allow, const char *text,
	unsigned int line, struct conf_error *why);
void conf_access_dump(const struct conf_cidrs *access, bool allow, FILE *out);
/* key->words is the word for all networks, of which none is kept. */
MUST_CHECK int conf_networks_add(const struct conf_key *key, struct conf_cidrs *networks,
	const char *text, unsigned int line, struct conf_error *why);
void conf_networks_dump(const struct conf_key *key, const struct conf_cidrs *networks, FILE *out);
/* min and max bound the period. */
MUST_CHECK int conf_rate_set(const struct conf_key *key, struct conf_rate *rate, const char *text,
	struct conf_error *why);
void conf_rate_dump(const struct conf_rate *rate, FILE *out);
MUST_CHECK int conf_bind_options_set(struct conf_bind_options *options, const char *text,
	unsigned int line, struct conf_error *why);
void conf_bind_options_dump(const struct conf_bind_options *options, FILE *out);
/* True for "send_expect", whatever follows. */
bool conf_is_send_expect(const char *text);
MUST_CHECK int conf_send_expect_set(
	struct conf_backend *backend, const char *text, struct conf_error *why);
void conf_send_expect_dump(const struct conf_backend *backend, FILE *out);

/* A number, size or time, as the unit of its type says. -EINVAL: not one; -ERANGE: overflow. */
MUST_CHECK int conf_scaled_parse(enum conf_type type, const char *text, uint64_t *ret);
/* With the largest unit that divides the value. */
void conf_scaled_format(enum conf_type type, uint64_t value, char *text, size_t size);

/* For conf_key_set() of the key "server": "ADDRESS [option]...". Same errors. */
MUST_CHECK int conf_server_add(
	struct conf_backend *backend, const char *text, unsigned int line, struct conf_error *why);
/* One line per server. */
void conf_server_dump(const struct conf_backend *backend, FILE *out);

/* For conf_key_set() of the key "route": "PATTERN BACKEND". Same errors. */
MUST_CHECK int conf_route_add(struct conf_listener *listener, const char *text, unsigned int line,
	struct conf_error *why);
/* One line per route. */
void conf_routes_dump(const struct conf_listener *listener, FILE *out);
/* For conf_finish(): finds the backends, and patterns that are given twice. Same errors, and the
 * route's line. */
MUST_CHECK int conf_routes_finish(const struct conf *conf, struct conf_listener *listener,
	unsigned int *ret_line, struct conf_error *why);
void conf_routes_free(struct conf_listener *listener);

/* True for UTF-8 without spaces and control characters: names become labels in metrics and JSON. */
bool conf_name_is_valid(const char *name);
/* Digits at the start of text. -EINVAL: none; -ERANGE: overflow. */
MUST_CHECK int conf_digits(const char *text, uint64_t *ret, const char **ret_rest);

/* Building blocks for the readers. NULL: out of memory. */
struct conf_listener *conf_listener_add(struct conf *conf, const char *name, unsigned int line);
struct conf_backend *conf_backend_add(struct conf *conf, const char *name, unsigned int line);

/* -ENOMEM. */
MUST_CHECK int conf_addrs_add(struct conf_addrs *addrs, const struct addr *addr, unsigned int line);

void conf_error_set(struct conf_error *error, const char *fmt, ...) PRINTF(2, 3);

#endif
