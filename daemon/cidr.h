/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who may connect: networks that are allowed or denied. Immutable once built, so any thread may
 * ask. The longest prefix decides, deny where the same network is given to both; an address in none
 * of them may connect unless any network is allowed. IPv4-mapped addresses are the IPv4 ones, and
 * no IPv6 network holds them, not even ::/0. The text of networks belongs to the configuration.
 */
#ifndef SHUNT_CIDR_H
#define SHUNT_CIDR_H

#include <netinet/in.h>
#include <stdbool.h>

#include "addr.h"
#include "conf.h"

struct cidr;

/* Copies the networks. NULL: out of memory. */
struct cidr *cidr_new(const struct conf_cidr *networks, unsigned int n);
void cidr_free(struct cidr *cidr); /* NULL is fine */

/* Clients without an IP address (UNIX sockets) may always connect. NULL: no networks. */
bool cidr_allows(const struct cidr *cidr, const struct addr *client);

/* The IP address in one form: IPv4 as IPv4-mapped. False: it has none. */
bool cidr_ip(const struct addr *addr, struct in6_addr *ret);

#endif
