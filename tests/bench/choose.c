/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What it costs to choose a server among 1,000 and to look up a client in 5,000 networks. Prints ns
 * per call: the best of some runs, since others share the machine. Exit: 0, or 1 if any takes more
 * than 1 us.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../daemon/balance.h"
#include "../../daemon/cidr.h"
#include "../../daemon/clients.h"
#include "../../daemon/maglev.h"

#define SERVERS 1000
#define NETWORKS 5000
#define CALLS 200000
#define RUNS 5
#define LIMIT_NS 1000.
#define HELD 8192 /* sessions that are open at a time */

static struct server_state states[SERVERS];
static struct balance_server servers[SERVERS];
static bool too_slow;

static void report(const char *what, double ns)
{
	printf("%-44s %7.1f ns%s\n", what, ns, ns > LIMIT_NS ? "  over the limit" : "");
	too_slow |= ns > LIMIT_NS;
}

static void *must(void *memory)
{
	if (!memory) {
		fputs("choose: out of memory\n", stderr);
		exit(2);
	}
	return memory;
}

static void make_servers(void)
{
	static char names[SERVERS][16];

	for (unsigned int i = 0; i < SERVERS; i++) {
		snprintf(names[i], sizeof(names[i]), "server%u", i);
		states[i] = (struct server_state){.weight = SERVER_WEIGHT_CONFIGURED};
		servers[i] = (struct balance_server){
			.name = names[i], .state = &states[i], .weight = 1 + i % 10};
	}
}

/* The whole life of a session as far as it concerns the choice; some others stay open meanwhile.
 * With the real clock, so that looking at all servers now and then is included. */
static double time_picks(struct balance *balance, bool flap)
{
	static int held[HELD];
	uint64_t start = now_ns();

	memset(held, -1, sizeof(held));
	for (unsigned int k = 0; k < CALLS; k++) {
		int *slot = &held[k % HELD];

		if (*slot >= 0)
			balance_release(&states[*slot]);
		/* A server in a hundred changes its mind every few sessions. */
		if (flap && k % 8 == 0)
			states[k / 8 % 10 * 100].down ^= 1;
		*slot = balance_pick(balance, now_ns(), maglev_mix(k), NULL);
	}
	start = now_ns() - start;
	for (unsigned int k = 0; k < HELD; k++)
		if (held[k] >= 0)
			balance_release(&states[held[k]]);
	return (double)start / CALLS;
}

static double best_of_runs(struct balance *balance, bool flap)
{
	double best = time_picks(balance, flap);

	for (unsigned int run = 1; run < RUNS; run++) {
		double ns = time_picks(balance, flap);

		best = MIN(best, ns);
	}
	return best;
}

static void bench_mode(enum balance_mode mode, const char *name)
{
	static const struct {
		const char *what;
		uint64_t slow_start_ns;
		bool flap, capped;
	} cases[] = {
		{"", 0, false, false},
		{", half of them full", 0, false, true},
		{", servers come and go, slow start", 3600000000000ull, true, false},
	};

	for (unsigned int i = 0; i < ARRAY_LEN(cases); i++) {
		struct balance_conf conf = {.mode = mode, .slow_start_ns = cases[i].slow_start_ns};
		struct balance *balance;
		char text[64];

		make_servers();
		for (unsigned int k = 0; k < SERVERS; k += 2) {
			servers[k].max_sessions = cases[i].capped;
			states[k].active = cases[i].capped;
			states[k].up_since_ns =
				conf.slow_start_ns ? now_ns() - 3600000000ull * k : 0;
		}
		balance = must(balance_new(&conf, servers, SERVERS));
		snprintf(text, sizeof(text), "%s%s", name, cases[i].what);
		report(text, best_of_runs(balance, cases[i].flap));
		balance_free(balance);
	}
}

static struct conf_cidr random_network(int family)
{
	struct conf_cidr conf = {.family = family, .allow = random() % 2};
	unsigned int max = family == AF_INET ? 32 : 64;

	conf.prefix = 8 + (unsigned int)random() % (max - 7);
	for (unsigned int bit = 0; bit < conf.prefix; bit++)
		conf.ip[bit / 8] |= (unsigned char)(random() % 2 ? 0x80 >> bit % 8 : 0);
	return conf;
}

static void random_clients(struct addr *clients, unsigned int n)
{
	memset(clients, 0, n * sizeof(*clients));
	for (unsigned int i = 0; i < n; i++) {
		struct in6_addr ip;

		for (unsigned int k = 0; k < sizeof(ip); k++)
			ip.s6_addr[k] = (unsigned char)random();
		if (i % 2) {
			clients[i].in6.sin6_family = AF_INET6;
			clients[i].in6.sin6_addr = ip;
			clients[i].len = sizeof(clients[i].in6);
		} else {
			clients[i].in.sin_family = AF_INET;
			memcpy(&clients[i].in.sin_addr, &ip, sizeof(clients[i].in.sin_addr));
			clients[i].len = sizeof(clients[i].in);
		}
	}
}

#define CLIENTS 4096

static void bench_cidr(const struct addr *clients)
{
	struct conf_cidr *networks = must(calloc(NETWORKS, sizeof(*networks)));
	volatile unsigned int allowed = 0;
	struct cidr *cidr;
	double best = 1e9;

	for (unsigned int i = 0; i < NETWORKS; i++)
		networks[i] = random_network(i % 2 ? AF_INET6 : AF_INET);
	cidr = must(cidr_new(networks, NETWORKS));
	for (unsigned int run = 0; run < RUNS; run++) {
		uint64_t start = now_ns();

		for (unsigned int k = 0; k < CALLS; k++)
			allowed += cidr_allows(cidr, &clients[k % CLIENTS]);
		best = MIN(best, (double)(now_ns() - start) / CALLS);
	}
	report("allow and deny", best);
	cidr_free(cidr);
	free(networks);
}

static void bench_limits(const struct addr *addrs)
{
	static const struct clients_limits limits = {100, 1000000, 1000000000};
	struct clients *clients = must(clients_new(100000));
	double best = 1e9;

	for (unsigned int run = 0; run < RUNS; run++) {
		uint64_t start = now_ns();

		for (unsigned int k = 0; k < CALLS; k++) {
			struct client *client;

			(void)clients_enter(
				clients, 0, &addrs[k % CLIENTS], &limits, start, &client);
			clients_leave(client, start);
		}
		best = MIN(best, (double)(now_ns() - start) / CALLS);
	}
	report("limits of a client, in and out", best);
	clients_free(clients);
}

int main(void)
{
	static struct addr clients[CLIENTS];

	srandom(1);
	printf("%d servers, %d networks\n", SERVERS, NETWORKS);
	bench_mode(BALANCE_ROUND_ROBIN, "round_robin");
	bench_mode(BALANCE_LEAST_SESSIONS, "least_sessions");
	bench_mode(BALANCE_RANDOM_TWO, "random_two");
	bench_mode(BALANCE_SOURCE_HASH, "source_hash");
	random_clients(clients, CLIENTS);
	bench_cidr(clients);
	bench_limits(clients);
	return too_slow;
}
