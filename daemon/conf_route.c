/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the value of the key "route": a pattern and the name of a backend. Must not know files, nor
 * what a pattern may be: routes.c does. */
#include "conf_keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "routes.h"

#define TEXT_MAX (CONF_LINE_MAX - 8) /* "route = " */

static int refuse(struct conf_error *why, const char *word, const char *what)
{
	conf_error_set(why, "'%.64s': %s", word, what);
	return -EINVAL;
}

static int no_memory(struct conf_error *why)
{
	conf_error_set(why, "out of memory");
	return -ENOMEM;
}

static void free_route(struct conf_route *route)
{
	free(route->pattern);
	free(route->backend_name);
}

static int parse_words(struct conf_route *route, char *text, struct conf_error *why)
{
	char *save = NULL, *pattern = strtok_r(text, " \t", &save);
	char *backend = strtok_r(NULL, " \t", &save), *more = strtok_r(NULL, " \t", &save);
	const char *error;

	if (!backend || more)
		return refuse(why,
			more	  ? more
			: pattern ? pattern
				  : "",
			"not a route; allowed: PATTERN BACKEND");
	if (routes_check(pattern, &error) < 0)
		return refuse(why, pattern, error);
	if (!conf_name_is_valid(backend))
		return refuse(why, backend, "not a name; allowed: text without spaces");
	route->pattern = strdup(pattern);
	route->backend_name = strdup(backend);
	return route->pattern && route->backend_name ? 0 : no_memory(why);
}

static int append(
	struct conf_listener *listener, const struct conf_route *route, struct conf_error *why)
{
	struct conf_route *v = reallocarray(listener->routes, listener->nroutes + 1, sizeof(*v));

	if (!v)
		return no_memory(why);
	listener->routes = v;
	v[listener->nroutes++] = *route;
	return 0;
}

int conf_route_add(
	struct conf_listener *listener, const char *text, unsigned int line, struct conf_error *why)
{
	struct conf_route route = {.line = line};
	char *copy;
	int err;

	if (strlen(text) > TEXT_MAX)
		return refuse(why, text, "too long (at most 189 characters)");
	copy = strdup(text);
	if (!copy)
		return no_memory(why);
	err = parse_words(&route, copy, why);
	if (!err)
		err = append(listener, &route, why);
	if (err)
		free_route(&route);
	free(copy);
	return err;
}

void conf_routes_dump(const struct conf_listener *listener, FILE *out)
{
	for (unsigned int i = 0; i < listener->nroutes; i++)
		fprintf(out, "route = %s %s\n", listener->routes[i].pattern,
			listener->routes[i].backend_name);
}

static int find_backends(const struct conf *conf, struct conf_listener *listener,
	unsigned int *ret_line, struct conf_error *why)
{
	for (unsigned int i = 0; i < listener->nroutes; i++) {
		struct conf_route *route = &listener->routes[i];

		route->backend = conf_find_backend(conf, route->backend_name);
		if (!route->backend) {
			*ret_line = route->line;
			return refuse(why, route->backend_name, "there is no such backend");
		}
	}
	return 0;
}

/* The table that the sessions ask knows best which patterns are the same. */
static int find_twins(
	const struct conf_listener *listener, unsigned int *ret_line, struct conf_error *why)
{
	struct route_row *rows = calloc(listener->nroutes, sizeof(*rows));
	size_t row = listener->nroutes;
	struct routes *routes = NULL;
	const char *error;
	int err = 0;

	for (unsigned int i = 0; rows && i < listener->nroutes; i++)
		rows[i].pattern = listener->routes[i].pattern;
	if (rows)
		routes = routes_new(rows, listener->nroutes, &row, &error);
	if (!routes) {
		*ret_line = listener->routes[MIN(row, listener->nroutes - 1)].line;
		err = row < listener->nroutes ? refuse(why, listener->routes[row].pattern, error)
					      : no_memory(why);
	}
	routes_free(routes);
	free(rows);
	return err;
}

int conf_routes_finish(const struct conf *conf, struct conf_listener *listener,
	unsigned int *ret_line, struct conf_error *why)
{
	int err = find_backends(conf, listener, ret_line, why);

	return err || !listener->nroutes ? err : find_twins(listener, ret_line, why);
}

void conf_routes_free(struct conf_listener *listener)
{
	for (unsigned int i = 0; i < listener->nroutes; i++)
		free_route(&listener->routes[i]);
	free(listener->routes);
}
