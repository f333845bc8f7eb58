/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the value of the key "server": an address and its options. Must not know files. */
#include "conf_keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_LEN 48
#define WEIGHT_DEFAULT 1
#define WEIGHT_MAX 256
#define MAX_SESSIONS_MAX 100000000
#define TEXT_MAX (CONF_LINE_MAX - 9) /* "server = " */

int conf_digits(const char *text, uint64_t *ret, const char **ret_rest)
{
	uint64_t value = 0;
	bool overflow = false;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	for (; *text >= '0' && *text <= '9'; text++) {
		overflow |= __builtin_mul_overflow(value, (uint64_t)10, &value);
		overflow |= __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value);
	}
	if (overflow)
		return -ERANGE;
	*ret = value;
	*ret_rest = text;
	return 0;
}

/* The length of the UTF-8 sequence that starts here; 0: it is not valid. Over-long forms and
 * surrogates are refused as JSON and Prometheus do. */
static size_t utf8_len(const unsigned char *p)
{
	static const struct {
		unsigned char first_min, first_max, second_min, second_max;
		size_t len;
	} forms[] = {
		{0xc2, 0xdf, 0x80, 0xbf, 2},
		{0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3},
		{0xed, 0xed, 0x80, 0x9f, 3},
		{0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4},
		{0xf1, 0xf3, 0x80, 0xbf, 4},
		{0xf4, 0xf4, 0x80, 0x8f, 4},
	};

	if (*p > ' ' && *p < 0x7f)
		return 1;
	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		if (*p < forms[i].first_min || *p > forms[i].first_max)
			continue;
		if (p[1] < forms[i].second_min || p[1] > forms[i].second_max)
			return 0;
		for (size_t k = 2; k < forms[i].len; k++) {
			if ((p[k] & 0xc0) != 0x80)
				return 0;
		}
		return forms[i].len;
	}
	return 0;
}

bool conf_name_is_valid(const char *name)
{
	const unsigned char *p = (const unsigned char *)name;

	while (*p) {
		size_t len = utf8_len(p);

		if (!len)
			return false;
		p += len;
	}
	return p != (const unsigned char *)name;
}

static int refuse(struct conf_error *why, const char *word, const char *what)
{
	conf_error_set(why, "'%.64s': %s", word, what);
	return -EINVAL;
}

static int set_address(struct conf_server *server, const char *word, struct conf_error *why)
{
	const char *error;

	if (addr_parse(word, &server->addr, &error) < 0) {
		conf_error_set(why, "'%.112s': %s", word, error);
		return -EINVAL;
	}
	if (server->addr.dual_stack)
		return refuse(why, word, "a server needs an address, not '*'");
	/* The port is at the same place for both families. */
	if (!addr_is_unix(&server->addr) && !server->addr.in.sin_port)
		return refuse(why, word, "a server needs a port from 1 to 65535");
	return 0;
}

static int set_name(struct conf_server *server, const char *value, struct conf_error *why)
{
	if (strlen(value) > NAME_MAX_LEN || !conf_name_is_valid(value))
		return refuse(why, value, "not a server name; allowed: 1 to 48 bytes of text");
	server->name = strdup(value);
	if (!server->name) {
		conf_error_set(why, "out of memory");
		return -ENOMEM;
	}
	return 0;
}

static int set_weight(struct conf_server *server, const char *value, struct conf_error *why)
{
	const char *rest;
	uint64_t weight;

	if (conf_digits(value, &weight, &rest) || *rest || weight > WEIGHT_MAX)
		return refuse(why, value, "not a weight; allowed: 0 to 256");
	server->weight = (unsigned int)weight;
	return 0;
}

static int set_max_sessions(struct conf_server *server, const char *value, struct conf_error *why)
{
	bool off = strcmp(value, "off") == 0;
	const char *rest;
	uint64_t n = 0;

	if (!off && (conf_digits(value, &n, &rest) || *rest || n > MAX_SESSIONS_MAX))
		return refuse(
			why, value, "not a number of sessions; allowed: off, or 1 to 100000000");
	server->max_sessions = (unsigned int)n;
	server->max_sessions_is_own = true;
	return 0;
}

/* *given holds one bit per option of this line. */
static int set_option(
	struct conf_server *server, char *word, unsigned int *given, struct conf_error *why)
{
	static const char *const names[] = {"name=", "weight=", "max_sessions=", "backup"};
	unsigned int option = 0;
	const char *value;

	while (option < ARRAY_LEN(names) &&
		strncmp(word, names[option], strlen(names[option])) != 0)
		option++;
	if (option == ARRAY_LEN(names) || (option == 3 && word[strlen(names[3])]))
		return refuse(why, word,
			"not a server option; allowed: name=NAME, weight=0 to 256, "
			"max_sessions=off or 1 to 100000000, backup");
	if (*given & 1u << option)
		return refuse(why, word, "this server option is given twice");
	*given |= 1u << option;
	value = word + strlen(names[option]);
	if (option == 0)
		return set_name(server, value, why);
	if (option == 1)
		return set_weight(server, value, why);
	if (option == 2)
		return set_max_sessions(server, value, why);
	server->backup = true;
	return 0;
}

static int parse_words(struct conf_server *server, char *text, struct conf_error *why)
{
	unsigned int given = 0;
	char *save = NULL, *word;
	int err;

	word = strtok_r(text, " \t", &save);
	err = set_address(server, word ? word : "", why);
	while (!err && (word = strtok_r(NULL, " \t", &save)))
		err = set_option(server, word, &given, why);
	return err;
}

static int set_default_name(struct conf_server *server, struct conf_error *why)
{
	char text[ADDR_TEXT_MAX];

	if (server->name)
		return 0;
	addr_format(&server->addr, text, sizeof(text));
	server->name = strdup(text);
	if (server->name)
		return 0;
	conf_error_set(why, "out of memory");
	return -ENOMEM;
}

static int append(
	struct conf_backend *backend, const struct conf_server *server, struct conf_error *why)
{
	struct conf_server *v;

	for (unsigned int i = 0; i < backend->nservers; i++) {
		if (strcmp(backend->servers[i].name, server->name) == 0)
			return refuse(
				why, server->name, "another server of this backend has this name");
	}
	v = reallocarray(backend->servers, backend->nservers + 1, sizeof(*v));
	if (!v) {
		conf_error_set(why, "out of memory");
		return -ENOMEM;
	}
	backend->servers = v;
	v[backend->nservers++] = *server;
	return 0;
}

int conf_server_add(
	struct conf_backend *backend, const char *text, unsigned int line, struct conf_error *why)
{
	struct conf_server server = {.weight = WEIGHT_DEFAULT, .line = line};
	char *copy;
	int err = -ENOMEM;

	if (strlen(text) > TEXT_MAX)
		return refuse(why, text, "too long (at most 188 characters)");
	copy = strdup(text);
	if (copy)
		err = parse_words(&server, copy, why);
	else
		conf_error_set(why, "out of memory");
	if (!err)
		err = set_default_name(&server, why);
	if (!err)
		err = append(backend, &server, why);
	if (err)
		free(server.name);
	free(copy);
	return err;
}

static void dump_server(const struct conf_server *server, FILE *out)
{
	char text[ADDR_TEXT_MAX];

	addr_format(&server->addr, text, sizeof(text));
	fprintf(out, "server = %s", text);
	if (strcmp(server->name, text) != 0)
		fprintf(out, " name=%s", server->name);
	if (server->weight != WEIGHT_DEFAULT)
		fprintf(out, " weight=%u", server->weight);
	if (server->max_sessions_is_own && server->max_sessions)
		fprintf(out, " max_sessions=%u", server->max_sessions);
	else if (server->max_sessions_is_own)
		fputs(" max_sessions=off", out);
	if (server->backup)
		fputs(" backup", out);
	fputc('\n', out);
}

void conf_server_dump(const struct conf_backend *backend, FILE *out)
{
	for (unsigned int i = 0; i < backend->nservers; i++)
		dump_server(&backend->servers[i], out);
}
