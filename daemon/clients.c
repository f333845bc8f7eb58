/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A table in shards, each with its mutex, so that threads seldom meet. The hash is keyed: addresses
 * are chosen by strangers. uthash never sees it as its own function, which would not be.
 */
#include "clients.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>

/* Without memory a client is not added, rather than the process ended. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(client) ((client)->shard = NULL)
#include <uthash.h>

#include "cidr.h"

#define SHARDS 64
#define IPV6_GROUP_BYTES 8
/* Clients looked at for one to forget. The longest idle come first, so the first one mostly will
 * do. */
#define LOOKS 32

struct client_key {
	uint32_t words[5]; /* the address, the scope */
};

struct client {
	struct client_key key;
	uint32_t sessions;
	struct shard *shard; /* NULL while it is not in the table */
	/* The rate as one time (GCRA): each session moves it on by period/count, and it must not be
	 * more than a period ahead of now. Once it is past, the whole rate is earned back. */
	uint64_t spent_until_ns;
	UT_hash_handle hh;
	TAILQ_ENTRY(client) idle; /* with no session; or free */
};

TAILQ_HEAD(client_list, client);

struct shard {
	pthread_mutex_t mutex;
	struct client *table;
	struct client_list idle, free;
	struct client *slots;
	unsigned int used, size; /* slots: those after used were never touched */
	_Atomic unsigned int count;
} __attribute__((aligned(64)));

struct clients {
	uint64_t secret[6];
	struct shard shards[SHARDS];
};

static bool fill_secret(struct clients *clients)
{
	ssize_t n = getrandom(clients->secret, sizeof(clients->secret), 0);

	return n == (ssize_t)sizeof(clients->secret);
}

struct clients *clients_new(unsigned int max)
{
	struct clients *clients = aligned_alloc(64, sizeof(*clients));

	if (!clients)
		return NULL;
	memset(clients, 0, sizeof(*clients));
	for (unsigned int i = 0; i < SHARDS; i++) {
		struct shard *shard = &clients->shards[i];

		pthread_mutex_init(&shard->mutex, NULL);
		TAILQ_INIT(&shard->idle);
		TAILQ_INIT(&shard->free);
		shard->size = max / SHARDS + 1;
		shard->slots = calloc(shard->size, sizeof(*shard->slots));
		if (!shard->slots) {
			clients_free(clients);
			return NULL;
		}
	}
	if (!fill_secret(clients)) {
		clients_free(clients);
		return NULL;
	}
	return clients;
}

void clients_free(struct clients *clients)
{
	if (!clients)
		return;
	for (unsigned int i = 0; i < SHARDS; i++) {
		HASH_CLEAR(hh, clients->shards[i].table);
		pthread_mutex_destroy(&clients->shards[i].mutex);
		free(clients->shards[i].slots);
	}
	free(clients);
}

static bool make_key(const struct addr *addr, uint32_t scope, struct client_key *ret)
{
	/* 64:ff9b::/96 (RFC 6052): a translator in front shows each IPv4 client as one address. */
	static const unsigned char translated[12] = {0x00, 0x64, 0xff, 0x9b};
	struct in6_addr ip;

	if (!cidr_ip(addr, &ip))
		return false;
	if (!IN6_IS_ADDR_V4MAPPED(&ip) && memcmp(&ip, translated, sizeof(translated)) != 0)
		memset(ip.s6_addr + IPV6_GROUP_BYTES, 0, sizeof(ip) - IPV6_GROUP_BYTES);
	memcpy(ret->words, &ip, sizeof(ip));
	ret->words[4] = scope;
	return true;
}

/* Multilinear hashing (Lemire and Kaser, 2014): strongly universal, so nobody who does not know the
 * secret finds keys that collide more often than by chance. It is linear, though, and leaves shards
 * empty when addresses follow each other; mixing one to one takes that away and keeps the rest. */
static uint32_t hash_key(const struct clients *clients, const struct client_key *key)
{
	uint64_t sum = clients->secret[0];
	uint32_t hash;

	for (unsigned int i = 0; i < 5; i++)
		sum += clients->secret[i + 1] * key->words[i];
	hash = (uint32_t)(sum >> 32);
	hash = (hash ^ hash >> 16) * 0x85ebca6b;
	hash = (hash ^ hash >> 13) * 0xc2b2ae35;
	return hash ^ hash >> 16;
}

static bool may_forget(const struct client *client, uint64_t now_ns)
{
	return client->sessions == 0 && client->spent_until_ns <= now_ns;
}

static void forget(struct shard *shard, struct client *client)
{
	TAILQ_REMOVE(&shard->idle, client, idle);
	HASH_DEL(shard->table, client);
	client->shard = NULL;
	atomic_fetch_sub_explicit(&shard->count, 1, memory_order_relaxed);
	TAILQ_INSERT_HEAD(&shard->free, client, idle);
}

/* Clients that cannot be forgotten yet go to the end, so that they do not hide others for long. */
static void forget_one(struct shard *shard, uint64_t now_ns)
{
	for (unsigned int i = 0; i < LOOKS; i++) {
		struct client *client = TAILQ_FIRST(&shard->idle);

		if (!client)
			return;
		if (may_forget(client, now_ns)) {
			forget(shard, client);
			return;
		}
		TAILQ_REMOVE(&shard->idle, client, idle);
		TAILQ_INSERT_TAIL(&shard->idle, client, idle);
	}
}

static struct client *take_slot(struct shard *shard, uint64_t now_ns)
{
	struct client *client;

	if (TAILQ_EMPTY(&shard->free) && shard->used == shard->size)
		forget_one(shard, now_ns);
	client = TAILQ_FIRST(&shard->free);
	if (client)
		TAILQ_REMOVE(&shard->free, client, idle);
	else if (shard->used < shard->size)
		client = &shard->slots[shard->used++];
	return client;
}

/* NULL: no room. The client is idle. */
static struct client *add(
	struct shard *shard, const struct client_key *key, uint32_t hash, uint64_t now_ns)
{
	struct client *client = take_slot(shard, now_ns);

	if (!client)
		return NULL;
	memset(client, 0, sizeof(*client));
	client->key = *key;
	client->shard = shard;
	HASH_ADD_BYHASHVALUE(hh, shard->table, key, sizeof(client->key), hash, client);
	if (!client->shard) {
		TAILQ_INSERT_HEAD(&shard->free, client, idle);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&shard->idle, client, idle);
	atomic_fetch_add_explicit(&shard->count, 1, memory_order_relaxed);
	return client;
}

static enum clients_verdict admit(
	struct client *client, const struct clients_limits *limits, uint64_t now_ns)
{
	uint64_t step, full = now_ns + limits->rate_period_ns;

	if (limits->max_sessions && client->sessions >= limits->max_sessions)
		return CLIENTS_TOO_MANY;
	if (limits->rate_count) {
		step = limits->rate_period_ns / limits->rate_count;
		/* It may stem from a longer period, of before a reload. */
		client->spent_until_ns = MIN(MAX(client->spent_until_ns, now_ns), full);
		if (client->spent_until_ns + step > full)
			return CLIENTS_TOO_FAST;
		client->spent_until_ns += step;
	}
	if (client->sessions++ == 0)
		TAILQ_REMOVE(&client->shard->idle, client, idle);
	return CLIENTS_OK;
}

enum clients_verdict clients_enter(struct clients *clients, uint32_t scope, const struct addr *addr,
	const struct clients_limits *limits, uint64_t now_ns, struct client **ret_client)
{
	enum clients_verdict verdict = CLIENTS_UNTRACKED;
	struct client *client = NULL;
	struct client_key key;
	struct shard *shard;
	uint32_t hash;

	*ret_client = NULL;
	if ((!limits->max_sessions && !limits->rate_count) || !make_key(addr, scope, &key))
		return CLIENTS_UNTRACKED;
	hash = hash_key(clients, &key);
	/* uthash takes the low bits for its buckets, the shards take the high ones. */
	shard = &clients->shards[hash >> 26];
	pthread_mutex_lock(&shard->mutex);
	HASH_FIND_BYHASHVALUE(hh, shard->table, &key, sizeof(key), hash, client);
	if (!client)
		client = add(shard, &key, hash, now_ns);
	if (client)
		verdict = admit(client, limits, now_ns);
	if (verdict == CLIENTS_OK)
		*ret_client = client;
	pthread_mutex_unlock(&shard->mutex);
	return verdict;
}

void clients_leave(struct client *client, uint64_t now_ns)
{
	struct shard *shard;

	if (!client)
		return;
	shard = client->shard; /* does not change while it has a session */
	pthread_mutex_lock(&shard->mutex);
	if (--client->sessions == 0) {
		TAILQ_INSERT_TAIL(&shard->idle, client, idle);
		/* Else it stays until the room is needed. */
		if (may_forget(client, now_ns))
			forget(shard, client);
	}
	pthread_mutex_unlock(&shard->mutex);
}

unsigned int clients_count(const struct clients *clients)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < SHARDS; i++)
		n += atomic_load_explicit(&clients->shards[i].count, memory_order_relaxed);
	return n;
}
