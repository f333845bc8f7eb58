/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the file format: lines, sections, which key may stand where. The only user of libinih.
 *
 * libinih cuts long lines and long section names silently, takes an indented line for a
 * continuation, merges sections, gives the handler no line numbers and goes on after an error. All
 * of that is prevented here by the line reader, which sees each line before libinih does. */
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "conf_keys.h"

#define FILE_MAX_BYTES (1u << 20)
#define HEADER_MAX 49 /* libinih keeps that many characters of a section name */

struct reader {
	struct conf *conf;
	struct conf_error *error;
	const char *name, *pos, *end;
	unsigned int line;
	bool failed; /* *error is filled; nothing more is read */
	bool wants_pair; /* the current line has to reach handle_pair() */
	bool global_seen;
	/* The open section, in object: the struct that its keys go to. NULL before the first one.
	 */
	void *object;
	enum conf_section section;
	unsigned int section_line;
	char header[HEADER_MAX + 1];
	unsigned int given[CONF_KEYS_MAX]; /* line where each key of the section was given first; 0:
					      not */
};

/* Keeps the first error. */
PRINTF(3, 4) static void fail(struct reader *r, unsigned int line, const char *fmt, ...)
{
	char text[sizeof(r->error->text)];
	va_list ap;

	if (r->failed)
		return;
	r->failed = true;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	conf_error_set(r->error, "%.200s:%u: %.300s", r->name, line, text);
}

static void set_file_only_defaults(struct reader *r, enum conf_section section, void *object)
{
	struct conf_error why;

	for (unsigned int i = 0; i < conf_key_count; i++) {
		const struct conf_key *key = &conf_keys[i];

		if (key->section != section || !(key->flags & CONF_FILE_ONLY) || r->given[i])
			continue;
		if (conf_key_set(key, object, key->def, 0, &why) < 0)
			fail(r, r->line, "%s", why.text);
	}
}

static void close_section(struct reader *r)
{
	if (!r->object || r->failed)
		return;
	for (unsigned int i = 0; i < conf_key_count; i++) {
		const struct conf_key *key = &conf_keys[i];

		if (key->section == r->section && key->flags & CONF_REQUIRED && !r->given[i])
			fail(r, r->section_line, "key '%s' in [%s]: missing, it has no default",
				key->name, r->header);
	}
	set_file_only_defaults(r, r->section, r->object);
	r->object = NULL;
}

static bool section_exists(const struct reader *r, enum conf_section section, const char *name)
{
	const struct conf *conf = r->conf;

	if (section == CONF_GLOBAL)
		return r->global_seen;
	for (unsigned int i = 0; section == CONF_LISTENER && i < conf->nlisteners; i++) {
		if (strcmp(conf->listeners[i].name, name) == 0)
			return true;
	}
	for (unsigned int i = 0; section == CONF_BACKEND && i < conf->nbackends; i++) {
		if (strcmp(conf->backends[i].name, name) == 0)
			return true;
	}
	return false;
}

static void open_section(struct reader *r, enum conf_section section, const char *name)
{
	if (section_exists(r, section, name)) {
		fail(r, r->line, "section [%s] is given twice", r->header);
		return;
	}
	if (section == CONF_LISTENER)
		r->object = conf_listener_add(r->conf, name, r->line);
	else if (section == CONF_BACKEND)
		r->object = conf_backend_add(r->conf, name, r->line);
	else
		r->object = r->conf;
	if (!r->object)
		fail(r, r->line, "out of memory");
	r->global_seen |= section == CONF_GLOBAL;
	r->section = section;
	r->section_line = r->line;
	memset(r->given, 0, sizeof(r->given));
}

/* "global", "listener NAME" or "backend NAME". */
static void parse_header(struct reader *r)
{
	static const char *const kinds[] = {
		[CONF_LISTENER] = "listener", [CONF_BACKEND] = "backend"};

	if (strcmp(r->header, "global") == 0) {
		open_section(r, CONF_GLOBAL, "");
		return;
	}
	for (enum conf_section i = CONF_LISTENER; i <= CONF_BACKEND; i++) {
		size_t len = strlen(kinds[i]);
		const char *name = r->header + len;

		if (strncmp(r->header, kinds[i], len) || (*name && *name != ' ' && *name != '\t'))
			continue;
		name += strspn(name, " \t");
		if (conf_name_is_valid(name) && *name != ';')
			open_section(r, i, name);
		else
			fail(r, r->line, "section [%s]: %s needs a name without spaces", r->header,
				kinds[i]);
		return;
	}
	fail(r, r->line, "unknown section [%s]; allowed: [global], [listener NAME], [backend NAME]",
		r->header);
}

static void read_header(struct reader *r, const char *line, size_t len)
{
	const char *close = memchr(line, ']', len), *rest;

	if (!close) {
		fail(r, r->line, "the ']' after the section name is missing");
		return;
	}
	if (close - line - 1 > HEADER_MAX) {
		fail(r, r->line, "the section name is too long (at most %d characters)",
			HEADER_MAX);
		return;
	}
	for (rest = close + 1; rest < line + len && (*rest == ' ' || *rest == '\t'); rest++)
		;
	if (rest < line + len && *rest != ';') {
		fail(r, r->line, "only a comment (';') may follow the section name");
		return;
	}
	close_section(r);
	if (r->failed)
		return;
	snprintf(r->header, sizeof(r->header), "%.*s", (int)(close - line - 1), line + 1);
	parse_header(r);
}

/* libinih would hand over whatever these do to a line; ours is text. Tabs are fine. */
static bool check_bytes(struct reader *r, const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)line[i];

		if ((c < ' ' && c != '\t') || c == 0x7f) {
			fail(r, r->line, "control character (byte 0x%02x)", c);
			return false;
		}
	}
	return true;
}

static void check_line(struct reader *r, const char *line, size_t len)
{
	size_t blanks = 0;

	if (!check_bytes(r, line, len))
		return;
	while (blanks < len && (line[blanks] == ' ' || line[blanks] == '\t'))
		blanks++;
	if (blanks == len || line[blanks] == ';' || line[blanks] == '#')
		return;
	if (blanks) {
		fail(r, r->line, "the line is indented");
	} else if (line[0] == '[') {
		read_header(r, line, len);
	} else if (!r->object) {
		fail(r, r->line, "a key before the first section");
	} else {
		r->wants_pair = true;
	}
}

/* The line that went to libinih and did not come back as a pair. */
static void check_last_line(struct reader *r)
{
	if (r->wants_pair)
		fail(r, r->line, "not a 'key = value' line");
	r->wants_pair = false;
}

/* In the manner of fgets(), for ini_parse_stream(). NULL ends it: at the end of the text, or after
 * an error. */
static char *read_line(char *buf, int size, void *stream)
{
	struct reader *r = stream;
	const char *newline, *line = r->pos;
	size_t len;

	check_last_line(r);
	if (r->failed || r->pos == r->end)
		return NULL;
	r->line++;
	newline = memchr(line, '\n', (size_t)(r->end - line));
	len = (size_t)((newline ? newline : r->end) - line);
	r->pos = newline ? newline + 1 : r->end;
	if (len && line[len - 1] == '\r')
		len--;
	if (len + 3 > (size_t)size) /* "\r\n" and the terminator, as libinih counts */
		fail(r, r->line, "the line is too long (at most %d characters)", size - 3);
	else
		check_line(r, line, len);
	if (r->failed)
		return NULL;
	memcpy(buf, line, len);
	memcpy(buf + len, "\n", 2);
	return buf;
}

static void unknown_key(struct reader *r, const char *name, const char *value)
{
	static const char *const sections[] = {"[global]", "[listener NAME]", "[backend NAME]"};
	char hint[64] = "";

	for (enum conf_section i = CONF_GLOBAL; i <= CONF_BACKEND && !hint[0]; i++) {
		if (conf_key_find(i, name))
			snprintf(hint, sizeof(hint), "; it belongs in %s", sections[i]);
	}
	fail(r, r->line, "unknown key '%.64s' in [%s] (value '%.64s')%s", name, r->header, value,
		hint);
}

/* None (or any), and one of a list: which of the two is meant? */
static bool mixes_word(const struct conf_key *key, const void *object, const char *value)
{
	const void *field = conf_key_field_const(key, object);
	unsigned int n;

	if (key->type == CONF_TYPE_ADDRS && key->words)
		n = ((const struct conf_addrs *)field)->n;
	else if (key->type == CONF_TYPE_NETWORKS)
		n = ((const struct conf_cidrs *)field)->n;
	else
		return false;
	return n == 0 || strcmp(value, key->words) == 0;
}

/* What more is remembered of some keys of a listener. */
static void note_key(struct reader *r, const struct conf_key *key)
{
	struct conf_listener *listener = r->object;

	if (key->section != CONF_LISTENER)
		return;
	if (key->offset == offsetof(struct conf_listener, path))
		listener->path_is_own = true;
	if (key->offset == offsetof(struct conf_listener, backend_name))
		listener->backend_line = r->line;
}

static void set_key(struct reader *r, const struct conf_key *key, const char *value)
{
	unsigned int *given = &r->given[key - conf_keys];
	struct conf_error why;

	if (*given && !(key->flags & CONF_REPEATABLE)) {
		fail(r, r->line, "key '%s' in [%s]: given twice (value '%.64s', first on line %u)",
			key->name, r->header, value, *given);
		return;
	}
	if (*given && mixes_word(key, r->object, value)) {
		fail(r, r->line, "key '%s' in [%s]: '%s' and %s (value '%.64s')", key->name,
			r->header, key->words,
			key->type == CONF_TYPE_ADDRS ? "an address" : "a network", value);
		return;
	}
	if (conf_key_set(key, r->object, value, r->line, &why) < 0) {
		fail(r, r->line, "key '%s' in [%s]: %s", key->name, r->header, why.text);
		return;
	}
	if (!*given)
		*given = r->line;
	note_key(r, key);
}

static int handle_pair(void *user, const char *section, const char *name, const char *value)
{
	struct reader *r = user;
	const struct conf_key *key;

	if (r->failed || !r->wants_pair)
		return 0;
	r->wants_pair = false;
	/* A libinih built otherwise than we know may see another section than we did. */
	if (strcmp(section, r->header) != 0) {
		fail(r, r->line, "section [%s] was read as [%s]", r->header, section);
		return 0;
	}
	key = conf_key_find(r->section, name);
	if (key)
		set_key(r, key, value);
	else
		unknown_key(r, name, value);
	return !r->failed;
}

static void read_all(struct reader *r)
{
	int status;

	r->conf->source = strdup(r->name);
	if (!r->conf->source) {
		fail(r, 1, "out of memory");
		return;
	}
	status = ini_parse_stream(read_line, r, handle_pair, r);
	if (status > 0)
		fail(r, (unsigned int)status, "syntax error");
	else if (status < 0)
		fail(r, r->line, "out of memory");
	close_section(r);
	if (!r->global_seen) {
		memset(r->given, 0, sizeof(r->given));
		set_file_only_defaults(r, CONF_GLOBAL, r->conf);
	}
	if (!r->failed && conf_finish(r->conf, r->error) < 0)
		r->failed = true;
}

struct conf *conf_read_text(
	const char *text, size_t len, const char *name, struct conf_error *error)
{
	struct reader r = {
		.conf = conf_new(),
		.error = error,
		.name = name,
		.pos = text,
		.end = text + len,
	};

	if (!r.conf) {
		conf_error_set(error, "%.200s: out of memory", name);
		return NULL;
	}
	/* Editors of other systems start files with a byte order mark; it would read as an unknown
	 * key. */
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		r.pos += 3;
	read_all(&r);
	if (r.failed) {
		conf_free(r.conf);
		return NULL;
	}
	return r.conf;
}

struct conf *conf_read_file(const char *path, struct conf_error *error)
{
	struct conf *conf = NULL;
	char *text = malloc(FILE_MAX_BYTES + 1);
	FILE *file = text ? fopen(path, "re") : NULL;
	size_t len;

	if (!file) {
		conf_error_set(error, "%.200s: %s", path, strerror(errno));
		goto out;
	}
	len = fread(text, 1, FILE_MAX_BYTES + 1, file);
	if (ferror(file))
		conf_error_set(error, "%.200s: %s", path, strerror(errno));
	else if (len > FILE_MAX_BYTES)
		conf_error_set(error, "%.200s: larger than %u bytes", path, FILE_MAX_BYTES);
	else
		conf = conf_read_text(text, len, path, error);
out:
	if (file)
		fclose(file);
	free(text);
	return conf;
}
