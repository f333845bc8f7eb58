/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the table of keys, and how each type of value is read and written. Must not know files. */
#include "conf_keys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(type, member) offsetof(struct type, member), sizeof(((struct type *)0)->member)
#define NO_FIELD 0, 0
#define KEY(section, name, type, field, words, def, min, max, flags, help) \
	{CONF_##section, #name, CONF_TYPE_##type, field, words, def, min, max, flags, help},
const struct conf_key conf_keys[] = {
#include "conf_keys.def"
};
#undef KEY

const unsigned int conf_key_count = ARRAY_LEN(conf_keys);
_Static_assert(ARRAY_LEN(conf_keys) <= CONF_KEYS_MAX, "raise CONF_KEYS_MAX");

static const struct unit {
	enum conf_type type;
	const char *suffix;
	uint64_t factor;
} units[] = {
	/* The largest first: the first one that divides a value is the one to write it with. */
	{CONF_TYPE_SIZE, "G", 1 << 30},
	{CONF_TYPE_SIZE, "M", 1 << 20},
	{CONF_TYPE_SIZE, "K", 1 << 10},
	{CONF_TYPE_SIZE, "", 1},
	{CONF_TYPE_TIME, "h", 3600000},
	{CONF_TYPE_TIME, "m", 60000},
	{CONF_TYPE_TIME, "s", 1000},
	{CONF_TYPE_TIME, "ms", 1},
	{CONF_TYPE_NUMBER, "", 1},
};

const struct conf_key *conf_key_find(enum conf_section section, const char *name)
{
	for (unsigned int i = 0; i < conf_key_count; i++) {
		if (conf_keys[i].section == section && strcmp(conf_keys[i].name, name) == 0)
			return &conf_keys[i];
	}
	return NULL;
}

int conf_scaled_parse(enum conf_type type, const char *text, uint64_t *ret)
{
	const char *rest;
	uint64_t value, factor = 0;
	int err = conf_digits(text, &value, &rest);

	if (err)
		return err;
	for (unsigned int i = 0; i < ARRAY_LEN(units) && !factor; i++) {
		if (units[i].type == type && strcmp(units[i].suffix, rest) == 0)
			factor = units[i].factor;
	}
	if (type == CONF_TYPE_TIME && value == 0 && *rest == '\0')
		factor = 1; /* no unit is needed to say 0 */
	if (!factor)
		return -EINVAL;
	if (__builtin_mul_overflow(value, factor, &value))
		return -ERANGE;
	*ret = value;
	return 0;
}

/* "off" and "auto" are 0 in the field; where "off" exists, 0 is off too. */
static int parse_scaled(const struct conf_key *key, const char *text, uint64_t *ret)
{
	uint64_t value;
	int err;

	if (key->words && strcmp(text, key->words) == 0) {
		*ret = 0;
		return 0;
	}
	err = conf_scaled_parse(key->type, text, &value);
	if (err)
		return err;
	if (value == 0 && key->words && strcmp(key->words, "off") == 0) {
		*ret = 0;
		return 0;
	}
	if (value < key->min || value > key->max)
		return -ERANGE;
	*ret = value;
	return 0;
}

void conf_scaled_format(enum conf_type type, uint64_t value, char *text, size_t size)
{
	const struct unit *unit = units;

	while (unit->type != type || (unit->factor > 1 && (value == 0 || value % unit->factor)))
		unit++;
	snprintf(text, size, "%" PRIu64 "%s", value / unit->factor, value ? unit->suffix : "");
}

static void format_scaled(const struct conf_key *key, uint64_t value, char *text, size_t size)
{
	if (value == 0 && key->words)
		snprintf(text, size, "%s", key->words);
	else
		conf_scaled_format(key->type, value, text, size);
}

static void store(const struct conf_key *key, void *object, uint64_t value)
{
	void *field = conf_key_field(key, object);

	if (key->size == sizeof(bool)) /* "off|on" */
		*(bool *)field = value;
	else if (key->size == sizeof(unsigned int)) /* also every enum */
		*(unsigned int *)field = (unsigned int)value;
	else if (key->size == sizeof(uint64_t))
		*(uint64_t *)field = value;
}

static uint64_t load(const struct conf_key *key, const void *object)
{
	const void *field = conf_key_field_const(key, object);

	if (key->size == sizeof(bool))
		return *(const bool *)field;
	if (key->size == sizeof(unsigned int))
		return *(const unsigned int *)field;
	return *(const uint64_t *)field;
}

static int set_scaled(
	const struct conf_key *key, void *object, const char *text, struct conf_error *why)
{
	static const char *const forms[] = {
		[CONF_TYPE_NUMBER] = "a number",
		[CONF_TYPE_SIZE] = "a size (bytes, or a number with K, M or G)",
		[CONF_TYPE_TIME] = "a time (a number with ms, s, m or h)",
	};
	char min[32], max[32];
	uint64_t value;
	int err = parse_scaled(key, text, &value);

	if (!err) {
		store(key, object, value);
		return 0;
	}
	format_scaled(key, key->min, min, sizeof(min));
	format_scaled(key, key->max, max, sizeof(max));
	conf_error_set(why, "'%.64s' is %s%s; allowed: %s%s%s to %s", text,
		err == -ERANGE ? "out of range" : "not ", err == -ERANGE ? "" : forms[key->type],
		key->words ? key->words : "", key->words ? ", or " : "", min, max);
	return -EINVAL;
}

/* The i-th of the '|' separated words without its '!', as pointer and length. NULL: there is none.
 */
static const char *word_at(const char *words, unsigned int i, size_t *ret_len, bool *ret_not_yet)
{
	while (i--) {
		words += strcspn(words, "|");
		if (!*words++)
			return NULL;
	}
	*ret_not_yet = *words == '!';
	words += *ret_not_yet;
	*ret_len = strcspn(words, "|");
	return words;
}

/* "'a', 'b'": the words that may be given today. */
static unsigned int served_words(const char *words, char *text, size_t size)
{
	unsigned int served = 0;
	const char *word;
	bool not_yet;
	size_t len, used = 0;

	text[0] = '\0';
	for (unsigned int i = 0; (word = word_at(words, i, &len, &not_yet)); i++) {
		if (not_yet || used >= size)
			continue;
		used += (size_t)snprintf(
			text + used, size - used, "%s'%.*s'", served ? ", " : "", (int)len, word);
		served++;
	}
	return served;
}

static int set_enum(
	const struct conf_key *key, void *object, const char *text, struct conf_error *why)
{
	const char *word;
	char served[128];
	bool not_yet, plural = served_words(key->words, served, sizeof(served)) > 1;
	size_t len;

	for (unsigned int i = 0; (word = word_at(key->words, i, &len, &not_yet)); i++) {
		/* What is not supported yet may take arguments: its first word tells. */
		if (strncmp(word, text, len) || (text[len] && !(not_yet && text[len] == ' ')))
			continue;
		if (not_yet) {
			conf_error_set(why, "'%.64s': not supported yet (only %s %s)", text, served,
				plural ? "are" : "is");
			return -EINVAL;
		}
		store(key, object, i);
		return 0;
	}
	conf_error_set(why, "'%.64s' is not one of %s", text, served);
	return -EINVAL;
}

static int set_text(
	const struct conf_key *key, void *object, const char *text, struct conf_error *why)
{
	char **field = conf_key_field(key, object), *copy = NULL;

	/* The default account is NULL: it may fall back to another one, a named account may not. */
	if (!key->def || strcmp(text, key->def) != 0) {
		copy = strdup(text);
		if (!copy) {
			conf_error_set(why, "out of memory");
			return -ENOMEM;
		}
	}
	free(*field);
	*field = copy;
	return 0;
}

static int set_user(
	const struct conf_key *key, void *object, const char *text, struct conf_error *why)
{
	static const char chars[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
	size_t len = strlen(text);

	if (len < 1 || len > 32 || text[0] == '-' || text[strspn(text, chars)]) {
		conf_error_set(why,
			"'%.64s' is not an account name; allowed: 1 to 32 of "
			"letters, digits, '_', '.', '-'",
			text);
		return -EINVAL;
	}
	return set_text(key, object, text, why);
}

static int set_name(
	const struct conf_key *key, void *object, const char *text, struct conf_error *why)
{
	if (!conf_name_is_valid(text)) {
		conf_error_set(why, "'%.64s' is not a name; allowed: text without spaces", text);
		return -EINVAL;
	}
	return set_text(key, object, text, why);
}

static int set_addr(const struct conf_key *key, void *object, const char *text, unsigned int line,
	struct conf_error *why)
{
	void *field = conf_key_field(key, object);
	struct addr addr = {0};
	const char *error;

	if (!key->words || strcmp(text, key->words) != 0) {
		if (addr_parse(text, &addr, &error) < 0) {
			conf_error_set(why, "'%.112s': %s", text, error);
			return -EINVAL;
		}
		if (key->flags & CONF_UNIX_ONLY && !addr_is_unix(&addr)) {
			conf_error_set(
				why, "'%.112s': only a UNIX socket (unix:/path) will do", text);
			return -EINVAL;
		}
	}
	if (key->type == CONF_TYPE_ADDR) {
		*(struct addr *)field = addr;
	} else if (addr.len && conf_addrs_add(field, &addr, line) < 0) {
		conf_error_set(why, "out of memory");
		return -ENOMEM;
	}
	return 0;
}

static int set_not_yet(const struct conf_key *key, const char *text, struct conf_error *why)
{
	if (key->def && strcmp(text, key->def) == 0)
		return 0;
	if (key->def)
		conf_error_set(why, "not supported yet (only '%s' is)", key->def);
	else
		conf_error_set(why, "not supported yet");
	return -EINVAL;
}

int conf_key_set(const struct conf_key *key, void *object, const char *value, unsigned int line,
	struct conf_error *why)
{
	void *field = conf_key_field(key, object);

	if (key->flags & CONF_NOT_YET)
		return set_not_yet(key, value, why);
	switch (key->type) {
	case CONF_TYPE_NUMBER:
	case CONF_TYPE_SIZE:
	case CONF_TYPE_TIME:
		return set_scaled(key, object, value, why);
	case CONF_TYPE_ENUM:
		return set_enum(key, object, value, why);
	case CONF_TYPE_USER:
		return set_user(key, object, value, why);
	case CONF_TYPE_NAME:
		return set_name(key, object, value, why);
	case CONF_TYPE_ADDR:
	case CONF_TYPE_ADDRS:
		return set_addr(key, object, value, line, why);
	case CONF_TYPE_SERVER:
		return conf_server_add(object, value, line, why);
	case CONF_TYPE_ALLOW:
	case CONF_TYPE_DENY:
		return conf_access_add(field, key->type == CONF_TYPE_ALLOW, value, line, why);
	case CONF_TYPE_NETWORKS:
		return conf_networks_add(key, field, value, line, why);
	case CONF_TYPE_ROUTE:
		return conf_route_add(object, value, line, why);
	case CONF_TYPE_RATE:
		return conf_rate_set(key, field, value, why);
	case CONF_TYPE_BIND_OPTIONS:
		return conf_bind_options_set(field, value, line, why);
	case CONF_TYPE_CHECK:
		if (conf_is_send_expect(value))
			return conf_send_expect_set(object, value, why);
		return set_enum(key, object, value, why);
	case CONF_TYPE_TEXT:
		break;
	}
	return set_not_yet(key, value, why);
}

int conf_key_set_defaults(enum conf_section section, void *object)
{
	struct conf_error why;
	int err;

	for (unsigned int i = 0; i < conf_key_count; i++) {
		const struct conf_key *key = &conf_keys[i];

		if (key->section != section || !key->def || !key->size ||
			key->flags & CONF_FILE_ONLY)
			continue;
		err = conf_key_set(key, object, key->def, 0, &why);
		if (err)
			return err;
	}
	return 0;
}

static void dump_addrs(const struct conf_key *key, const struct conf_addrs *addrs, FILE *out)
{
	char text[ADDR_TEXT_MAX];

	for (unsigned int i = 0; i < addrs->n; i++) {
		addr_format(&addrs->v[i], text, sizeof(text));
		fprintf(out, "%s = %s\n", key->name, text);
	}
	if (!addrs->n && key->words)
		fprintf(out, "%s = %s\n", key->name, key->words);
}

static void dump_word(const struct conf_key *key, const void *object, FILE *out)
{
	const char *text = key->def;
	size_t len = key->def ? strlen(key->def) : 0;
	bool not_yet;

	if (key->size)
		text = word_at(key->words, (unsigned int)load(key, object), &len, &not_yet);
	fprintf(out, "%s = %.*s\n", key->name, (int)len, text);
}

/* The default in its own words: "60s" rather than "1m". */
static void dump_scaled(const struct conf_key *key, const void *object, FILE *out)
{
	uint64_t value = load(key, object), def;
	char text[32];

	format_scaled(key, value, text, sizeof(text));
	fprintf(out, "%s = %s\n", key->name,
		parse_scaled(key, key->def, &def) == 0 && def == value ? key->def : text);
}

/* What conf_values.c writes; empty is "key =". */
static void dump_value(const struct conf_key *key, const void *object, FILE *out)
{
	const void *field = conf_key_field_const(key, object);
	const struct conf_backend *backend = object;

	if (key->type == CONF_TYPE_CHECK && backend->check != CHECK_SEND_EXPECT) {
		dump_word(key, object, out);
		return;
	}
	fprintf(out, "%s =", key->name);
	if (key->type == CONF_TYPE_RATE)
		conf_rate_dump(field, out);
	else if (key->type == CONF_TYPE_BIND_OPTIONS)
		conf_bind_options_dump(field, out);
	else
		conf_send_expect_dump(backend, out);
	fputc('\n', out);
}

static void dump_key(const struct conf_key *key, const void *object, FILE *out)
{
	const void *field = conf_key_field_const(key, object);
	const char *string;
	char text[ADDR_TEXT_MAX];

	switch (key->type) {
	case CONF_TYPE_ENUM:
		dump_word(key, object, out);
		return;
	case CONF_TYPE_ADDRS:
		dump_addrs(key, field, out);
		return;
	case CONF_TYPE_SERVER:
		conf_server_dump(object, out);
		return;
	case CONF_TYPE_ALLOW:
	case CONF_TYPE_DENY:
		conf_access_dump(field, key->type == CONF_TYPE_ALLOW, out);
		return;
	case CONF_TYPE_NETWORKS:
		conf_networks_dump(key, field, out);
		return;
	case CONF_TYPE_ROUTE:
		conf_routes_dump(object, out);
		return;
	case CONF_TYPE_RATE:
	case CONF_TYPE_BIND_OPTIONS:
	case CONF_TYPE_CHECK:
		dump_value(key, object, out);
		return;
	case CONF_TYPE_ADDR:
		addr_format(field, text, sizeof(text));
		fprintf(out, "%s = %s\n", key->name,
			((const struct addr *)field)->len ? text : key->words);
		return;
	case CONF_TYPE_USER:
	case CONF_TYPE_NAME:
	case CONF_TYPE_TEXT:
		string = *(char *const *)field;
		fprintf(out, "%s = %s\n", key->name, string ? string : key->def);
		return;
	default:
		dump_scaled(key, object, out);
	}
}

void conf_key_dump(enum conf_section section, const void *object, FILE *out)
{
	for (unsigned int i = 0; i < conf_key_count; i++) {
		if (conf_keys[i].section == section && !(conf_keys[i].flags & CONF_NOT_YET))
			dump_key(&conf_keys[i], object, out);
	}
}
