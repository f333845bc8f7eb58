/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the values that are more than one word: networks, rates, options of sockets, texts to send
 * and to expect. Must not know files. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf_keys.h"

#define RATE_COUNT_MAX 1000000
#define BACKLOG_MAX 65535
#define CHECK_TEXT_MAX (CONF_LINE_MAX - 8) /* "check = " */

static int refuse(struct conf_error *why, const char *text, const char *what)
{
	conf_error_set(why, "'%.64s': %s", text, what);
	return -EINVAL;
}

static int no_memory(struct conf_error *why)
{
	conf_error_set(why, "out of memory");
	return -ENOMEM;
}

/* Networks */

static unsigned int bits_of(const struct conf_cidr *cidr)
{
	return cidr->family == AF_INET ? 32 : 128;
}

/* True if there was anything beyond the prefix. */
static bool clear_host_bits(struct conf_cidr *cidr)
{
	bool found = false;

	for (unsigned int bit = cidr->prefix; bit < bits_of(cidr); bit++) {
		unsigned char mask = (unsigned char)(0x80 >> bit % 8);

		found |= cidr->ip[bit / 8] & mask;
		cidr->ip[bit / 8] &= (unsigned char)~mask;
	}
	return found;
}

/* One form per network, so that a client that comes in over either family meets the same rule. */
static void unmap(struct conf_cidr *cidr)
{
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (cidr->family != AF_INET6 || cidr->prefix < 96 || memcmp(cidr->ip, mapped, 12) != 0)
		return;
	cidr->family = AF_INET;
	cidr->prefix -= 96;
	memmove(cidr->ip, cidr->ip + 12, 4);
	memset(cidr->ip + 4, 0, 12);
}

static void format_cidr(const struct conf_cidr *cidr, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN];

	snprintf(text, size, "%s/%u", inet_ntop(cidr->family, cidr->ip, host, sizeof(host)),
		cidr->prefix);
}

static int parse_host(const char *text, size_t len, struct conf_cidr *ret)
{
	char host[INET6_ADDRSTRLEN];

	if (len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	ret->family = memchr(host, ':', len) ? AF_INET6 : AF_INET;
	return inet_pton(ret->family, host, ret->ip) == 1 ? 0 : -EINVAL;
}

/* forms: what else is allowed. */
static int parse_cidr(
	const char *text, const char *forms, struct conf_cidr *ret, struct conf_error *why)
{
	const char *slash = strchr(text, '/'), *rest;
	char network[INET6_ADDRSTRLEN + 4];
	uint64_t prefix;

	if (parse_host(text, slash ? (size_t)(slash - text) : strlen(text), ret) < 0) {
		conf_error_set(why, "'%.64s': not a network; allowed: %sADDRESS or ADDRESS/PREFIX",
			text, forms);
		return -EINVAL;
	}
	prefix = bits_of(ret);
	if (slash && (conf_digits(slash + 1, &prefix, &rest) || *rest || prefix > bits_of(ret)))
		return refuse(why, text,
			ret->family == AF_INET ? "not a prefix; allowed: 0 to 32"
					       : "not a prefix; allowed: 0 to 128");
	ret->prefix = (unsigned int)prefix;
	if (clear_host_bits(ret)) {
		format_cidr(ret, network, sizeof(network));
		conf_error_set(why, "'%.64s': there are bits beyond the prefix; the network is %s",
			text, network);
		return -EINVAL;
	}
	unmap(ret);
	return 0;
}

static int append_cidr(
	struct conf_cidrs *cidrs, const struct conf_cidr *cidr, struct conf_error *why)
{
	struct conf_cidr *v = reallocarray(cidrs->v, cidrs->n + 1, sizeof(*v));

	if (!v)
		return no_memory(why);
	cidrs->v = v;
	v[cidrs->n++] = *cidr;
	return 0;
}

int conf_access_add(struct conf_cidrs *access, bool allow, const char *text, unsigned int line,
	struct conf_error *why)
{
	struct conf_cidr cidr = {.allow = allow, .line = line};
	int err = parse_cidr(text, "", &cidr, why);

	return err ? err : append_cidr(access, &cidr, why);
}

int conf_networks_add(const struct conf_key *key, struct conf_cidrs *networks, const char *text,
	unsigned int line, struct conf_error *why)
{
	struct conf_cidr cidr = {.allow = true, .line = line};
	char forms[32];
	int err;

	if (strcmp(text, key->words) == 0)
		return 0;
	snprintf(forms, sizeof(forms), "%s, ", key->words);
	err = parse_cidr(text, forms, &cidr, why);
	return err ? err : append_cidr(networks, &cidr, why);
}

void conf_access_dump(const struct conf_cidrs *access, bool allow, FILE *out)
{
	char text[INET6_ADDRSTRLEN + 4];

	for (unsigned int i = 0; i < access->n; i++) {
		if (access->v[i].allow != allow)
			continue;
		format_cidr(&access->v[i], text, sizeof(text));
		fprintf(out, "%s = %s\n", allow ? "allow" : "deny", text);
	}
}

void conf_networks_dump(const struct conf_key *key, const struct conf_cidrs *networks, FILE *out)
{
	char text[INET6_ADDRSTRLEN + 4];

	for (unsigned int i = 0; i < networks->n; i++) {
		format_cidr(&networks->v[i], text, sizeof(text));
		fprintf(out, "%s = %s\n", key->name, text);
	}
	if (!networks->n)
		fprintf(out, "%s = %s\n", key->name, key->words);
}

/* Rates */

int conf_rate_set(const struct conf_key *key, struct conf_rate *rate, const char *text,
	struct conf_error *why)
{
	char min[32], max[32];
	const char *rest;
	uint64_t count, period;

	if (strcmp(text, "off") == 0 || strcmp(text, "0") == 0) {
		*rate = (struct conf_rate){0};
		return 0;
	}
	if (conf_digits(text, &count, &rest) == 0 && *rest == '/' && count >= 1 &&
		count <= RATE_COUNT_MAX &&
		conf_scaled_parse(CONF_TYPE_TIME, rest + 1, &period) == 0 && period >= key->min &&
		period <= key->max) {
		*rate = (struct conf_rate){(unsigned int)count, period};
		return 0;
	}
	conf_scaled_format(CONF_TYPE_TIME, key->min, min, sizeof(min));
	conf_scaled_format(CONF_TYPE_TIME, key->max, max, sizeof(max));
	conf_error_set(why,
		"'%.64s' is not a rate (as in 100/1s); allowed: off, or 1 to %d per %s to %s", text,
		RATE_COUNT_MAX, min, max);
	return -EINVAL;
}

void conf_rate_dump(const struct conf_rate *rate, FILE *out)
{
	char period[32];

	conf_scaled_format(CONF_TYPE_TIME, rate->period_ms, period, sizeof(period));
	if (rate->count)
		fprintf(out, " %u/%s", rate->count, period);
	else
		fputs(" off", out);
}

/* Options of listening sockets */

static int set_interface(
	struct conf_bind_options *options, const char *value, struct conf_error *why)
{
	size_t len = strlen(value);

	/* What the kernel takes as the name of an interface. */
	if (len >= sizeof(options->interface) || !conf_name_is_valid(value) ||
		strpbrk(value, "/:") || strcmp(value, ".") == 0 || strcmp(value, "..") == 0)
		return refuse(why, value, "not the name of a network interface");
	memcpy(options->interface, value, len + 1);
	return 0;
}

static int set_backlog(struct conf_bind_options *options, const char *value, struct conf_error *why)
{
	const char *rest;
	uint64_t n;

	if (conf_digits(value, &n, &rest) || *rest || n < 1 || n > BACKLOG_MAX)
		return refuse(why, value, "not a backlog; allowed: 1 to 65535");
	options->backlog = (unsigned int)n;
	return 0;
}

/* Each option is given once: its field is still empty. */
static int set_bind_option(
	struct conf_bind_options *options, const char *word, struct conf_error *why)
{
	bool twice;

	if (strcmp(word, "v6only") == 0) {
		twice = options->v6only;
		options->v6only = true;
	} else if (strcmp(word, "freebind") == 0) {
		twice = options->freebind;
		options->freebind = true;
	} else if (strncmp(word, "interface=", 10) == 0) {
		twice = options->interface[0];
		if (!twice)
			return set_interface(options, word + 10, why);
	} else if (strncmp(word, "backlog=", 8) == 0) {
		twice = options->backlog;
		if (!twice)
			return set_backlog(options, word + 8, why);
	} else {
		return refuse(why, word,
			"not a bind option; allowed: v6only, freebind, interface=NAME, "
			"backlog=1 to 65535");
	}
	return twice ? refuse(why, word, "this bind option is given twice") : 0;
}

int conf_bind_options_set(struct conf_bind_options *options, const char *text, unsigned int line,
	struct conf_error *why)
{
	struct conf_bind_options set = {.line = line};
	char *copy = strdup(text), *save = NULL;
	int err = 0;

	if (!copy)
		return no_memory(why);
	for (char *word = strtok_r(copy, " \t", &save); word && !err;
		word = strtok_r(NULL, " \t", &save))
		err = set_bind_option(&set, word, why);
	if (!err)
		*options = set;
	free(copy);
	return err;
}

void conf_bind_options_dump(const struct conf_bind_options *options, FILE *out)
{
	if (options->v6only)
		fputs(" v6only", out);
	if (options->freebind)
		fputs(" freebind", out);
	if (options->interface[0])
		fprintf(out, " interface=%s", options->interface);
	if (options->backlog)
		fprintf(out, " backlog=%u", options->backlog);
}

/* Texts to send and to expect */

static const char escapes[][2] = {{'r', '\r'}, {'n', '\n'}, {'t', '\t'}, {'\\', '\\'}, {'"', '"'}};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The character after the backslash. Returns what follows, or NULL. */
static const char *parse_escape(const char *p, char *ret)
{
	if (*p == 'x') {
		int high = hex_digit(p[1]), low = high < 0 ? -1 : hex_digit(p[2]);

		*ret = (char)(high * 16 + low);
		return low < 0 ? NULL : p + 3;
	}
	for (size_t i = 0; i < ARRAY_LEN(escapes); i++) {
		if (escapes[i][0] == *p) {
			*ret = escapes[i][1];
			return p + 1;
		}
	}
	return NULL;
}

/* A blank and a quoted text at *p, into ret, which has room for all. Returns NULL, or what is
 * wrong. */
static const char *parse_quoted(const char **p, char *ret, size_t *ret_len)
{
	const char *from = *p + strspn(*p, " \t");
	size_t len = 0;

	if (from == *p || *from++ != '"')
		return "allowed: send_expect \"SEND\" \"EXPECT\", in quotes";
	while (*from != '"') {
		if (!*from)
			return "a quote is not closed (write ';' after a space as \\x3b)";
		if ((unsigned char)*from >= 0x7f || *from == '\t')
			return "write a tab as \\t, and what is not ASCII as \\xNN";
		if (*from != '\\')
			ret[len++] = *from++;
		else if (!(from = parse_escape(from + 1, &ret[len++])))
			return "unknown escape; allowed: \\r \\n \\t \\\\ \\\" \\xNN";
	}
	*p = from + 1;
	*ret_len = len;
	return NULL;
}

static const char *parse_send_expect(const char *text, struct conf_backend *backend)
{
	const char *p = text + strlen("send_expect"), *wrong;

	if (strlen(text) > CHECK_TEXT_MAX)
		return "too long (at most 189 characters)";
	wrong = parse_quoted(&p, backend->check_send, &backend->check_send_len);
	if (wrong)
		return wrong;
	wrong = parse_quoted(&p, backend->check_expect, &backend->check_expect_len);
	if (wrong)
		return wrong;
	if (*p)
		return "only two quoted texts are allowed: send_expect \"SEND\" \"EXPECT\"";
	return backend->check_expect_len ? NULL : "EXPECT is empty; to only connect, say tcp";
}

bool conf_is_send_expect(const char *text)
{
	return strncmp(text, "send_expect", strlen("send_expect")) == 0;
}

int conf_send_expect_set(struct conf_backend *backend, const char *text, struct conf_error *why)
{
	const char *wrong;

	free(backend->check_send);
	free(backend->check_expect);
	backend->check = CHECK_SEND_EXPECT;
	backend->check_send = malloc(strlen(text) + 1);
	backend->check_expect = malloc(strlen(text) + 1);
	if (!backend->check_send || !backend->check_expect)
		return no_memory(why);
	wrong = parse_send_expect(text, backend);
	return wrong ? refuse(why, text, wrong) : 0;
}

/* Never longer than it can have been written, so that the line fits again. */
static void dump_quoted(const char *text, size_t len, FILE *out)
{
	fputs(" \"", out);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		char name = 0;

		for (size_t k = 0; k < ARRAY_LEN(escapes); k++) {
			if (escapes[k][1] == text[i])
				name = escapes[k][0];
		}
		if (name)
			fprintf(out, "\\%c", name);
		else if (c < ' ' || c >= 0x7f || (c == ';' && i && text[i - 1] == ' '))
			fprintf(out, "\\x%02x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

void conf_send_expect_dump(const struct conf_backend *backend, FILE *out)
{
	fputs(" send_expect", out);
	dump_quoted(backend->check_send, backend->check_send_len, out);
	dump_quoted(backend->check_expect, backend->check_expect_len, out);
}
