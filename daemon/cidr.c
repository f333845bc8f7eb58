/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The networks are cut into ranges that do not overlap, each with its verdict: a lookup is one
 * binary search in a sorted array, 14 steps for 5,000 networks, and no node is chased through
 * memory.
 */
#include "cidr.h"

#include <stdlib.h>
#include <string.h>

typedef unsigned __int128 ip_t; /* both families: IPv4 sits in ::ffff:0:0/96 */

struct cidr {
	unsigned int n;
	ip_t *firsts; /* sorted, [0] is 0: each range ends where the next begins */
	bool *verdicts; /* true: allow */
};

/* Where the same network is given twice, the higher one decides. */
enum rank { RANK_BARRIER, RANK_ALLOW, RANK_DENY };

struct network {
	ip_t first, last;
	unsigned int prefix;
	enum rank rank;
};

#define DEPTH_MAX 130 /* one per prefix length, and the ground */

struct sweep {
	struct cidr *cidr;
	bool fallback; /* what holds where no network does */
	struct network open[DEPTH_MAX];
	unsigned int depth;
};

static ip_t load_ip(const unsigned char *bytes)
{
	ip_t ip = 0;

	for (unsigned int i = 0; i < 16; i++)
		ip = ip << 8 | bytes[i];
	return ip;
}

static struct network network_of(const struct conf_cidr *conf)
{
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
	struct network network = {.prefix = conf->prefix};
	unsigned char ip[16];
	ip_t mask;

	memcpy(ip, conf->ip, sizeof(ip));
	if (conf->family == AF_INET) {
		memcpy(ip, mapped, sizeof(mapped));
		memcpy(ip + sizeof(mapped), conf->ip, 4);
		network.prefix += 96;
	}
	mask = network.prefix ? ~(ip_t)0 << (128 - network.prefix) : 0;
	network.first = load_ip(ip) & mask;
	network.last = network.first | ~mask;
	network.rank = conf->allow ? RANK_ALLOW : RANK_DENY;
	return network;
}

/* Outer networks before those within them. */
static int by_first(const void *a, const void *b)
{
	const struct network *x = a, *y = b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	if (x->prefix != y->prefix)
		return x->prefix < y->prefix ? -1 : 1;
	return (x->rank > y->rank) - (x->rank < y->rank);
}

/* From here on the innermost open network holds. */
static void cut(struct sweep *sweep, ip_t first)
{
	struct cidr *cidr = sweep->cidr;
	enum rank rank = sweep->open[sweep->depth - 1].rank;
	bool verdict = rank == RANK_BARRIER ? sweep->fallback : rank == RANK_ALLOW;

	if (cidr->n && cidr->firsts[cidr->n - 1] == first)
		cidr->n--;
	if (cidr->n && cidr->verdicts[cidr->n - 1] == verdict)
		return;
	cidr->firsts[cidr->n] = first;
	cidr->verdicts[cidr->n++] = verdict;
}

static void close_innermost(struct sweep *sweep)
{
	ip_t last = sweep->open[--sweep->depth].last;

	if (last != ~(ip_t)0)
		cut(sweep, last + 1);
}

static void open_network(struct sweep *sweep, const struct network *network)
{
	while (sweep->open[sweep->depth - 1].last < network->first)
		close_innermost(sweep);
	/* The same network again, and of a higher rank. The ground (depth 1) stays. */
	if (sweep->depth > 1 && sweep->open[sweep->depth - 1].first == network->first &&
		sweep->open[sweep->depth - 1].prefix == network->prefix)
		sweep->depth--;
	sweep->open[sweep->depth++] = *network;
	cut(sweep, network->first);
}

static void build(struct cidr *cidr, const struct network *networks, unsigned int n, bool fallback)
{
	struct sweep sweep = {.cidr = cidr, .fallback = fallback};

	sweep.open[sweep.depth++] = (struct network){.last = ~(ip_t)0, .rank = RANK_BARRIER};
	cut(&sweep, 0);
	for (unsigned int i = 0; i < n; i++)
		open_network(&sweep, &networks[i]);
	while (sweep.depth > 1)
		close_innermost(&sweep);
}

struct cidr *cidr_new(const struct conf_cidr *conf, unsigned int n)
{
	struct cidr *cidr = calloc(1, sizeof(*cidr));
	struct network *networks = calloc(n + 1, sizeof(*networks));
	size_t max = 2 * ((size_t)n + 1) + 1; /* a network begins once and ends once */
	bool fallback = true;

	if (cidr) {
		cidr->firsts = calloc(max, sizeof(*cidr->firsts));
		cidr->verdicts = calloc(max, sizeof(*cidr->verdicts));
	}
	if (!cidr || !networks || !cidr->firsts || !cidr->verdicts) {
		free(networks);
		cidr_free(cidr);
		return NULL;
	}
	for (unsigned int i = 0; i < n; i++) {
		networks[i] = network_of(&conf[i]);
		fallback &= !conf[i].allow;
	}
	/* Keeps IPv6 networks such as ::/0 off the IPv4 addresses. */
	networks[n] = network_of(&(struct conf_cidr){.family = AF_INET});
	networks[n].rank = RANK_BARRIER;
	qsort(networks, n + 1, sizeof(*networks), by_first);
	build(cidr, networks, n + 1, fallback);
	free(networks);
	return cidr;
}

void cidr_free(struct cidr *cidr)
{
	if (!cidr)
		return;
	free(cidr->firsts);
	free(cidr->verdicts);
	free(cidr);
}

bool cidr_ip(const struct addr *addr, struct in6_addr *ret)
{
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (!addr->len)
		return false;
	if (addr->sa.sa_family == AF_INET6) {
		*ret = addr->in6.sin6_addr;
		return true;
	}
	if (addr->sa.sa_family != AF_INET)
		return false;
	memcpy(ret->s6_addr, mapped, sizeof(mapped));
	memcpy(ret->s6_addr + sizeof(mapped), &addr->in.sin_addr, 4);
	return true;
}

bool cidr_allows(const struct cidr *cidr, const struct addr *client)
{
	struct in6_addr bytes;
	const ip_t *base;
	ip_t ip;

	if (!cidr || !cidr_ip(client, &bytes))
		return true;
	ip = load_ip(bytes.s6_addr);
	base = cidr->firsts;
	/* The last range that begins at ip or before it; firsts[0] does. */
	for (unsigned int n = cidr->n; n > 1; n -= n / 2)
		base += base[n / 2] <= ip ? n / 2 : 0;
	return cidr->verdicts[base - cidr->firsts];
}
