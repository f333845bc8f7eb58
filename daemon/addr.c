/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the text form of socket addresses. Must not know who uses them, nor resolve names. */
#include "addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#define UNIX_PREFIX "unix:"
#define SUN_PATH_OFFSET offsetof(struct sockaddr_un, sun_path)

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Digits only, up to the end of the text; a leading zero is refused, since some read it as octal.
 */
static bool parse_decimal(const char *text, uint32_t max, uint32_t *ret)
{
	uint64_t value = 0;

	if (!is_digit(text[0]) || (text[0] == '0' && text[1]))
		return false;
	for (; *text; text++) {
		if (!is_digit(*text))
			return false;
		value = value * 10 + (uint64_t)(*text - '0');
		if (value > max)
			return false;
	}
	*ret = (uint32_t)value;
	return true;
}

/* The parse helpers return NULL or a static text that says what is wrong. */
static const char *parse_port(const char *text, in_port_t *ret)
{
	uint32_t port;

	if (text[0] != ':' || !text[1])
		return "the port is missing";
	if (!parse_decimal(text + 1, 65535, &port))
		return "the port must be a number from 0 to 65535 without leading zeros";
	*ret = htons((uint16_t)port);
	return NULL;
}

/* A blank would end the word on a server line, and " ;" starts a comment: such a path could be
 * neither written in a configuration file nor dumped to one. */
static const char *parse_unix(const char *name, struct addr *ret)
{
	size_t len = strlen(name);

	if (name[0] != '/' && name[0] != '@')
		return "a UNIX socket is unix:/path (absolute) or unix:@name";
	if (name[0] == '@' && len == 1)
		return "the abstract socket name is missing";
	if (len >= sizeof(ret->un.sun_path))
		return "the UNIX socket name is too long (at most 107 characters)";
	for (const char *p = name; *p; p++) {
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return "a UNIX socket name takes no spaces or control characters";
	}
	ret->un.sun_family = AF_UNIX;
	memcpy(ret->un.sun_path, name, len);
	if (name[0] == '@')
		ret->un.sun_path[0] = '\0';
	else
		len++; /* a path is counted with its NUL, an abstract name has none */
	ret->len = (socklen_t)(SUN_PATH_OFFSET + len);
	return NULL;
}

static const char *parse_any(const char *text, struct addr *ret)
{
	ret->in6.sin6_family = AF_INET6;
	ret->in6.sin6_addr = in6addr_any;
	ret->dual_stack = true;
	ret->len = sizeof(ret->in6);
	return parse_port(text + 1, &ret->in6.sin6_port);
}

/* What to tell somebody whose text before the port is not an IPv4 address. */
static const char *explain_host(const char *text, size_t len)
{
	static const char name_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					 "0123456789.-_";

	if (len == 0)
		return "the address is missing (for every address write *:80)";
	if (strspn(text, "0123456789.") >= len)
		return "not an IPv4 address";
	if (strspn(text, name_chars) >= len)
		return "names are not supported yet, only numeric addresses";
	return "not an address (1.2.3.4:80, [::1]:80, *:80 or unix:/path)";
}

static const char *parse_in(const char *text, struct addr *ret)
{
	size_t len = strcspn(text, ":");
	char host[INET_ADDRSTRLEN];

	if (text[len] && strchr(text + len + 1, ':'))
		return "an IPv6 address goes in brackets: [::1]:80";
	if (len >= sizeof(host))
		return explain_host(text, len);
	memcpy(host, text, len);
	host[len] = '\0';
	if (inet_pton(AF_INET, host, &ret->in.sin_addr) != 1)
		return explain_host(text, len);
	ret->in.sin_family = AF_INET;
	ret->len = sizeof(ret->in);
	return parse_port(text + len, &ret->in.sin_port);
}

static const char *parse_scope(const char *scope, struct sockaddr_in6 *ret)
{
	if (!IN6_IS_ADDR_LINKLOCAL(&ret->sin6_addr) && !IN6_IS_ADDR_MC_LINKLOCAL(&ret->sin6_addr))
		return "only a link-local address takes a scope";
	/* Numbers first: addr_format() writes numbers, and reading them asks nobody. */
	if (parse_decimal(scope, UINT32_MAX, &ret->sin6_scope_id) && ret->sin6_scope_id)
		return NULL;
	ret->sin6_scope_id = if_nametoindex(scope);
	return ret->sin6_scope_id ? NULL : "the scope is not a network interface of this host";
}

/* An IPv4-mapped address is the IPv4 address: one form, so that equal addresses compare equal. */
static void unmap(struct addr *addr)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = addr->in6.sin6_port};

	memcpy(&in.sin_addr, &addr->in6.sin6_addr.s6_addr[12], sizeof(in.sin_addr));
	memset(&addr->un, 0, sizeof(addr->un));
	addr->in = in;
	addr->len = sizeof(in);
}

static bool is_mapped(const struct addr *addr)
{
	return addr_family(addr) == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&addr->in6.sin6_addr);
}

static const char *parse_in6(const char *text, struct addr *ret)
{
	char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
	size_t len = strcspn(text + 1, "]");
	const char *error;
	char *scope;

	if (text[1 + len] != ']')
		return "the ']' after the IPv6 address is missing";
	if (len >= sizeof(host))
		return "not an IPv6 address";
	memcpy(host, text + 1, len);
	host[len] = '\0';
	scope = strchr(host, '%');
	if (scope)
		*scope++ = '\0';
	if (inet_pton(AF_INET6, host, &ret->in6.sin6_addr) != 1)
		return "not an IPv6 address";
	ret->in6.sin6_family = AF_INET6;
	ret->len = sizeof(ret->in6);
	error = scope ? parse_scope(scope, &ret->in6) : NULL;
	if (!error)
		error = parse_port(text + 1 + len + 1, &ret->in6.sin6_port);
	if (!error && is_mapped(ret))
		unmap(ret);
	return error;
}

int addr_parse(const char *text, struct addr *ret, const char **ret_error)
{
	struct addr addr;
	const char *error;

	memset(&addr, 0,
		sizeof(addr)); /* also the padding: some callers compare or hash the bytes */
	if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
		error = parse_unix(text + strlen(UNIX_PREFIX), &addr);
	else if (text[0] == '*')
		error = parse_any(text, &addr);
	else if (text[0] == '[')
		error = parse_in6(text, &addr);
	else
		error = parse_in(text, &addr);
	if (error) {
		*ret_error = error;
		return -EINVAL;
	}
	*ret = addr;
	return 0;
}

/* The bytes of a UNIX name: with its leading NUL where abstract, without the trailing one where a
 * path. */
static size_t unix_name_len(const struct addr *addr)
{
	size_t len = addr->len > SUN_PATH_OFFSET ? addr->len - SUN_PATH_OFFSET : 0;

	len = MIN(len, sizeof(addr->un.sun_path));
	if (len && addr->un.sun_path[0])
		len = strnlen(addr->un.sun_path, len);
	return len;
}

static void format_unix(const struct addr *addr, char *text, size_t size)
{
	char name[sizeof(addr->un.sun_path) + 1];
	size_t len = unix_name_len(addr);

	memcpy(name, addr->un.sun_path, len);
	name[len] = '\0';
	/* Abstract names of strangers hold any byte; the text goes into logs. */
	for (size_t i = 0; i < len; i++) {
		if (i == 0 && name[i] == '\0')
			name[i] = '@';
		else if ((unsigned char)name[i] <= ' ' || name[i] == 0x7f)
			name[i] = '?';
	}
	snprintf(text, size, UNIX_PREFIX "%s", name);
}

static void format_in6(const struct sockaddr_in6 *in6, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "", scope[16] = "";

	inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
	if (in6->sin6_scope_id)
		snprintf(scope, sizeof(scope), "%%%u", (unsigned int)in6->sin6_scope_id);
	snprintf(text, size, "[%s%s]:%u", host, scope, ntohs(in6->sin6_port));
}

static void format_in(const struct sockaddr_in *in, char *text, size_t size)
{
	char host[INET_ADDRSTRLEN] = "";

	inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
	snprintf(text, size, "%s:%u", host, ntohs(in->sin_port));
}

void addr_format(const struct addr *addr, char *text, size_t size)
{
	struct addr copy = *addr;

	if (is_mapped(&copy))
		unmap(&copy);
	switch (addr_family(&copy)) {
	case AF_UNIX:
		format_unix(&copy, text, size);
		break;
	case AF_INET:
		format_in(&copy.in, text, size);
		break;
	case AF_INET6:
		if (copy.dual_stack)
			snprintf(text, size, "*:%u", ntohs(copy.in6.sin6_port));
		else
			format_in6(&copy.in6, text, size);
		break;
	default:
		snprintf(text, size, "?");
	}
}

static bool in6_equal(const struct sockaddr_in6 *a, const struct sockaddr_in6 *b)
{
	return a->sin6_port == b->sin6_port && a->sin6_scope_id == b->sin6_scope_id &&
	       IN6_ARE_ADDR_EQUAL(&a->sin6_addr, &b->sin6_addr);
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	struct addr x = *a, y = *b;
	size_t len;

	if (is_mapped(&x))
		unmap(&x);
	if (is_mapped(&y))
		unmap(&y);
	if (addr_family(&x) != addr_family(&y) || x.dual_stack != y.dual_stack)
		return false;
	switch (addr_family(&x)) {
	case AF_UNIX:
		len = unix_name_len(&x);
		return len == unix_name_len(&y) && !memcmp(x.un.sun_path, y.un.sun_path, len);
	case AF_INET:
		return x.in.sin_port == y.in.sin_port &&
		       x.in.sin_addr.s_addr == y.in.sin_addr.s_addr;
	case AF_INET6:
		return in6_equal(&x.in6, &y.in6);
	default:
		return true;
	}
}

bool addr_is_unix(const struct addr *addr)
{
	return addr_family(addr) == AF_UNIX;
}

int addr_family(const struct addr *addr)
{
	return addr->len ? addr->sa.sa_family : AF_UNSPEC;
}
