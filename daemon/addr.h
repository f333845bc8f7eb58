/* SPDX-License-Identifier: BSD-2-Clause */
/* Socket addresses as the configuration writes them: "1.2.3.4:80", "[::1]:80", "*:80",
 * "unix:/path". Pure. */
#ifndef SHUNT_ADDR_H
#define SHUNT_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "util.h"

struct addr {
	socklen_t len; /* of the sockaddr; 0: empty */
	bool dual_stack; /* "*:port": IPv6 any, takes IPv4 too; binds IPv4 any where there is no
			    IPv6 */
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	};
};

/* Enough for any text that addr_format() makes. */
#define ADDR_TEXT_MAX 128

/* -EINVAL with *ret_error set to a static text that says what is wrong (never NULL then). Takes the
 * numeric forms only; "[fe80::1%eth0]:80" takes a scope. Port 0 is valid (the kernel chooses). */
MUST_CHECK int addr_parse(const char *text, struct addr *ret, const char **ret_error);

/* Always terminated; "unix:" alone for an unnamed UNIX socket. IPv4-mapped IPv6 is shown as IPv4.
 */
void addr_format(const struct addr *addr, char *text, size_t size);

bool addr_equal(const struct addr *a, const struct addr *b);
bool addr_is_unix(const struct addr *addr);
int addr_family(const struct addr *addr);

#endif
