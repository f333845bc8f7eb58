/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which backend serves a TLS server name. A pattern is a name, "*.example.org" for every name below
 * example.org at any depth but not example.org itself, or "*" for all that nothing else serves. The
 * name itself wins over a wildcard, the longest wildcard over a shorter one. Immutable once built,
 * so any thread may ask.
 */
#ifndef SHUNT_ROUTES_H
#define SHUNT_ROUTES_H

#include <stddef.h>

#include "util.h"

struct routes;

struct route_row {
	const char *pattern;
	unsigned int backend; /* the index that is found again; at most INT_MAX */
};

/* For one pattern: 0, or -EINVAL with *ret_error set to a static text. */
MUST_CHECK int routes_check(const char *pattern, const char **ret_error);

/* Copies the patterns. NULL with *ret_error set to a static text: the row *ret_row is wrong or
 * given twice, or memory is out. */
struct routes *routes_new(
	const struct route_row *rows, size_t n, size_t *ret_row, const char **ret_error);
void routes_free(struct routes *routes); /* NULL is fine */

/* The backend, -ENOENT where none serves the name. In any case of letters, with or without a dot at
 * the end; NULL, or what is no name: as with routes_default(). */
MUST_CHECK int routes_find(const struct routes *routes, const char *server_name);

/* The backend of "*", for clients without a name. -ENOENT: there is none. */
MUST_CHECK int routes_default(const struct routes *routes);

#endif
