/* SPDX-License-Identifier: BSD-2-Clause */
/* Version 1, one line of text (section 2.1). Read strictly: what is not exactly the protocol ends
 * the connection. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proxy_proto.h"

#define PREFIX "PROXY "
#define PREFIX_LEN (sizeof(PREFIX) - 1)
#define UNKNOWN PREFIX "UNKNOWN"
#define SHORTEST (sizeof(UNKNOWN "\r\n") - 1)
#define TOO_LONG "PROXY v1: longer than 107 bytes"

enum word { WORD_FAMILY, WORD_SRC, WORD_DST, WORD_SRC_PORT, WORD_DST_PORT, WORDS };

/* As far as the bytes go, so that a stranger is sent away at once. */
static const char *check_start(const uint8_t *data, size_t len)
{
	static const char *const starts[] = {
		PREFIX "TCP4 ", PREFIX "TCP6 ", UNKNOWN " ", UNKNOWN "\r"};

	if (len && memcmp(data, PREFIX, MIN(len, PREFIX_LEN)) != 0)
		return "no PROXY header";
	for (size_t i = 0; len && i < ARRAY_LEN(starts); i++) {
		if (memcmp(data, starts[i], MIN(len, strlen(starts[i]))) == 0)
			return NULL;
	}
	return len ? "PROXY v1: not TCP4, TCP6 or UNKNOWN" : NULL;
}

/* The length of the line with its CRLF into *ret, 0 if there is none yet. A CR or LF alone does not
 * end a line, and no receiver may tolerate it. */
static const char *find_end(const uint8_t *data, size_t len, size_t *ret)
{
	size_t max = MIN(len, PROXY_V1_MAX);

	*ret = 0;
	for (size_t i = 0; i < max; i++) {
		if (data[i] == '\n')
			return "PROXY v1: an LF without a CR";
		if (data[i] != '\r')
			continue;
		if (i + 1 == len)
			return i + 2 <= PROXY_V1_MAX ? NULL : TOO_LONG;
		if (data[i + 1] != '\n')
			return "PROXY v1: a CR without an LF";
		*ret = i + 2;
		return *ret <= PROXY_V1_MAX ? NULL : TOO_LONG;
	}
	return len + 2 <= PROXY_V1_MAX ? NULL : TOO_LONG;
}

/* Exactly one space between two words: the empty word between two spaces is no address. */
static bool split(char *line, char *words[WORDS])
{
	for (unsigned int i = 0; i < WORDS; i++) {
		char *space = strchr(line, ' ');

		words[i] = line;
		if ((i < WORDS - 1) != (space != NULL))
			return false;
		if (space) {
			*space = '\0';
			line = space + 1;
		}
	}
	return true;
}

/* A leading zero is refused: some would read it as octal. */
static bool parse_port(const char *word, in_port_t *ret)
{
	unsigned int port = 0;

	if (!word[0] || (word[0] == '0' && word[1]))
		return false;
	for (; *word; word++) {
		if (*word < '0' || *word > '9')
			return false;
		port = port * 10 + (unsigned int)(*word - '0');
		if (port > 65535)
			return false;
	}
	*ret = htons((uint16_t)port);
	return true;
}

/* glibc's inet_pton() is as strict as 2.1: four decimal numbers without leading zeros; for IPv6 it
 * also takes the "::ffff:1.2.3.4" that every sender's inet_ntop() writes. */
static bool parse_ip(int family, const char *word, struct addr *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->sa.sa_family = (sa_family_t)family;
	if (family == AF_INET) {
		ret->len = sizeof(ret->in);
		return inet_pton(family, word, &ret->in.sin_addr) == 1;
	}
	ret->len = sizeof(ret->in6);
	return inet_pton(family, word, &ret->in6.sin6_addr) == 1;
}

static void set_port(struct addr *addr, in_port_t port)
{
	if (addr_family(addr) == AF_INET)
		addr->in.sin_port = port;
	else
		addr->in6.sin6_port = port;
	proxy_unmap(addr);
}

static const char *parse_words(char *words[WORDS], struct proxy_header *ret)
{
	int family = strcmp(words[WORD_FAMILY], "TCP4") == 0 ? AF_INET : AF_INET6;
	in_port_t src_port, dst_port;

	if (!parse_ip(family, words[WORD_SRC], &ret->src))
		return "PROXY v1: the source is no address of its family";
	if (!parse_ip(family, words[WORD_DST], &ret->dst))
		return "PROXY v1: the destination is no address of its family";
	if (!parse_port(words[WORD_SRC_PORT], &src_port))
		return "PROXY v1: the source port is not a number from 0 to 65535 without leading "
		       "zeros";
	if (!parse_port(words[WORD_DST_PORT], &dst_port))
		return "PROXY v1: the destination port is not a number from 0 to 65535 without "
		       "leading zeros";
	set_port(&ret->src, src_port);
	set_port(&ret->dst, dst_port);
	return NULL;
}

/* Without the prefix and the CRLF. */
static const char *parse_line(const uint8_t *data, size_t len, struct proxy_header *ret)
{
	char line[PROXY_V1_MAX + 1];
	char *words[WORDS];

	if (data[0] == 'U')
		return NULL; /* what follows UNKNOWN must be ignored, whatever it is */
	memcpy(line, data, len);
	line[len] = '\0';
	if (strlen(line) != len || !split(line, words))
		return "PROXY v1: not two addresses and two ports with single spaces";
	return parse_words(words, ret);
}

int proxy_parse_v1(
	const uint8_t *data, size_t len, struct proxy_header *ret, const char **ret_error)
{
	struct proxy_header header;
	const char *error = check_start(data, len);
	size_t end = 0;

	memset(&header, 0, sizeof(header));
	header.version = 1;
	if (!error)
		error = find_end(data, len, &end);
	if (!error && !end) {
		/* With a CR as the last byte only the LF is missing. */
		ret->need = MAX(len + (len && data[len - 1] == '\r' ? 1 : 2), SHORTEST);
		return 0;
	}
	if (!error)
		error = parse_line(data + PREFIX_LEN, end - PREFIX_LEN - 2, &header);
	if (error) {
		*ret_error = error;
		return -EINVAL;
	}
	*ret = header;
	return (int)end;
}

static in_port_t port_of(const struct addr *addr)
{
	return ntohs(addr_family(addr) == AF_INET ? addr->in.sin_port : addr->in6.sin6_port);
}

static const void *ip_of(const struct addr *addr)
{
	return addr_family(addr) == AF_INET ? (const void *)&addr->in.sin_addr
					    : &addr->in6.sin6_addr;
}

int proxy_build_v1(const struct addr *src, const struct addr *dst, void *out, size_t size)
{
	char line[PROXY_V1_MAX + 1], src_text[INET6_ADDRSTRLEN], dst_text[INET6_ADDRSTRLEN];
	struct addr a, b;
	int family = proxy_pair(src, dst, &a, &b), len;

	if (family != AF_INET && family != AF_INET6) {
		len = snprintf(line, sizeof(line), UNKNOWN "\r\n");
	} else {
		inet_ntop(family, ip_of(&a), src_text, sizeof(src_text));
		inet_ntop(family, ip_of(&b), dst_text, sizeof(dst_text));
		len = snprintf(line, sizeof(line), PREFIX "%s %s %s %u %u\r\n",
			family == AF_INET ? "TCP4" : "TCP6", src_text, dst_text, port_of(&a),
			port_of(&b));
	}
	if ((size_t)len > size)
		return -ENOSPC;
	memcpy(out, line, (size_t)len);
	return len;
}
