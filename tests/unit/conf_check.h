/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the configuration share. Include after cmocka.h. */
#ifndef SHUNT_CONF_CHECK_H
#define SHUNT_CONF_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf_keys.h"

#define LISTENER "[listener web]\nbind = 127.0.0.1:80\nbackend = app\n"
#define BACKEND "[backend app]\nserver = 127.0.0.1:81\n"
#define MINIMAL LISTENER BACKEND

static inline struct conf *accept_bytes(const char *text, size_t len)
{
	struct conf_error error = {""};
	struct conf *conf = conf_read_text(text, len, "t.conf", &error);

	if (!conf)
		fail_msg("refused: %s\n%s", error.text, text);
	return conf;
}

static inline struct conf *accept_text(const char *text)
{
	return accept_bytes(text, strlen(text));
}

static inline void accepts(const char *text)
{
	conf_free(accept_text(text));
}

/* Refused with exactly this place, and a message that holds the words. */
static inline void refuses_bytes(const char *text, size_t len, unsigned int line, const char *words)
{
	struct conf_error error = {""};
	struct conf *conf = conf_read_text(text, len, "t.conf", &error);
	char place[32];

	if (conf)
		fail_msg("taken, though it should say '%s':\n%s", words, text);
	snprintf(place, sizeof(place), "t.conf:%u: ", line);
	if (strncmp(error.text, place, strlen(place)) != 0)
		fail_msg("'%s' is not at line %u:\n%s", error.text, line, text);
	if (!strstr(error.text, words))
		fail_msg("'%s' does not say '%s'", error.text, words);
}

static inline void refuses(const char *text, unsigned int line, const char *words)
{
	refuses_bytes(text, strlen(text), line, words);
}

/* One more key at the end of its section, on the line that is returned. */
static inline unsigned int with_key(
	char *ret, size_t size, enum conf_section section, const char *key)
{
	if (section == CONF_GLOBAL)
		snprintf(ret, size, "[global]\n%s\n" MINIMAL, key);
	else if (section == CONF_LISTENER)
		snprintf(ret, size, LISTENER "%s\n" BACKEND, key);
	else
		snprintf(ret, size, MINIMAL "%s\n", key);
	return section == CONF_GLOBAL ? 2 : section == CONF_LISTENER ? 4 : 6;
}

static inline void refuses_key(enum conf_section section, const char *key, const char *words)
{
	static const char *const names[] = {"in [global]", "in [listener web]", "in [backend app]"};
	char text[512];
	unsigned int line = with_key(text, sizeof(text), section, key);

	refuses(text, line, words);
	refuses(text, line, names[section]);
}

static inline struct conf *accept_key(enum conf_section section, const char *key)
{
	char text[512];

	with_key(text, sizeof(text), section, key);
	return accept_text(text);
}

static inline void accepts_key(enum conf_section section, const char *key)
{
	conf_free(accept_key(section, key));
}

static inline char *dump(const struct conf *conf)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	conf_dump(conf, out);
	fclose(out);
	return text;
}

static inline void assert_same_dump(const struct conf *a, const struct conf *b)
{
	char *x = dump(a), *y = dump(b);

	assert_string_equal(x, y);
	free(x);
	free(y);
}

static inline void survives_its_dump(struct conf *conf)
{
	char *text = dump(conf);
	struct conf *again = accept_text(text);

	assert_same_dump(conf, again);
	free(text);
	conf_free(again);
	conf_free(conf);
}

#endif
