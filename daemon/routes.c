/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One hash table: a name stands there as it is, a wildcard without its star, so with a dot in
 * front. A lookup tries the name and then what is left of it at each dot, which is the longest
 * wildcard first. The keys come from the configuration, so nobody can make them collide.
 */
#include "routes.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Without memory a route is not added, rather than the process ended. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(route) ((route)->added = false)
#include <uthash.h>

#include "client_hello.h"

struct route {
	char key[1 + SERVER_NAME_MAX + 1]; /* "" for "*" */
	int backend;
	bool added;
	UT_hash_handle hh;
};

struct routes {
	struct route *table;
	const struct route *fallback; /* that of "*" */
	struct route slots[];
};

static const char *make_key(const char *pattern, char key[1 + SERVER_NAME_MAX + 1])
{
	const char *name = pattern, *error;
	bool wildcard = strncmp(pattern, "*.", 2) == 0;

	if (strcmp(pattern, "*") == 0) {
		key[0] = '\0';
		return NULL;
	}
	if (wildcard)
		name += 2;
	if (strchr(name, '*'))
		return "'*' stands for all names, or as '*.' in front of one, and nowhere else";
	if (wildcard && !*name)
		return "the name after '*.' is missing";
	error = server_name_normalize(name, strlen(name), key + wildcard);
	if (!error && wildcard)
		key[0] = '.';
	return error;
}

int routes_check(const char *pattern, const char **ret_error)
{
	char key[1 + SERVER_NAME_MAX + 1];
	const char *error = make_key(pattern, key);

	if (!error)
		return 0;
	*ret_error = error;
	return -EINVAL;
}

static struct route *find_key(const struct routes *routes, const char *key, size_t len)
{
	struct route *route;

	HASH_FIND(hh, routes->table, key, len, route);
	return route;
}

/* NULL, or what is wrong. */
static const char *add(struct routes *routes, struct route *slot, const struct route_row *row)
{
	const char *error = make_key(row->pattern, slot->key);
	size_t len;

	if (error)
		return error;
	len = strlen(slot->key);
	if (find_key(routes, slot->key, len))
		return "the pattern is given twice";
	slot->backend = (int)row->backend;
	slot->added = true;
	HASH_ADD_KEYPTR(hh, routes->table, slot->key, len, slot);
	if (!slot->added)
		return "out of memory";
	if (!len)
		routes->fallback = slot;
	return NULL;
}

struct routes *routes_new(
	const struct route_row *rows, size_t n, size_t *ret_row, const char **ret_error)
{
	struct routes *routes = NULL;

	if (n < (SIZE_MAX - sizeof(*routes)) / sizeof(routes->slots[0]))
		routes = calloc(1, sizeof(*routes) + n * sizeof(routes->slots[0]));
	if (!routes) {
		*ret_row = n;
		*ret_error = "out of memory";
		return NULL;
	}
	for (size_t i = 0; i < n; i++) {
		const char *error = add(routes, &routes->slots[i], &rows[i]);

		if (error) {
			*ret_row = i;
			*ret_error = error;
			routes_free(routes);
			return NULL;
		}
	}
	return routes;
}

void routes_free(struct routes *routes)
{
	if (!routes)
		return;
	HASH_CLEAR(hh, routes->table);
	free(routes);
}

int routes_find(const struct routes *routes, const char *server_name)
{
	char name[SERVER_NAME_MAX + 1];
	const struct route *route;
	const char *key = name;

	if (!server_name || server_name_normalize(server_name, strlen(server_name), name))
		return routes_default(routes);
	do {
		route = find_key(routes, key, strlen(key));
		if (route)
			return route->backend;
		/* The dot in front belongs to the next key: skip it to find the one after. */
		key = strchr(key + 1, '.');
	} while (key);
	return routes_default(routes);
}

int routes_default(const struct routes *routes)
{
	return routes->fallback ? routes->fallback->backend : -ENOENT;
}
