/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns struct conf: building it, the checks across keys, freeing it. Must not know the file format
 * but to write it. */
#include "conf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "conf_keys.h"

void conf_error_set(struct conf_error *error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error->text, sizeof(error->text), fmt, ap);
	va_end(ap);
}

struct conf *conf_new(void)
{
	struct conf *conf = calloc(1, sizeof(*conf));

	if (conf && conf_key_set_defaults(CONF_GLOBAL, conf) < 0) {
		conf_free(conf);
		return NULL;
	}
	return conf;
}

struct conf_listener *conf_listener_add(struct conf *conf, const char *name, unsigned int line)
{
	struct conf_listener *v = reallocarray(conf->listeners, conf->nlisteners + 1, sizeof(*v));
	struct conf_listener *listener;

	if (!v)
		return NULL;
	conf->listeners = v;
	listener = &v[conf->nlisteners];
	*listener = (struct conf_listener){.name = strdup(name), .line = line};
	if (!listener->name)
		return NULL;
	conf->nlisteners++; /* from here on conf_free() owns it */
	return conf_key_set_defaults(CONF_LISTENER, listener) < 0 ? NULL : listener;
}

struct conf_backend *conf_backend_add(struct conf *conf, const char *name, unsigned int line)
{
	struct conf_backend *v = reallocarray(conf->backends, conf->nbackends + 1, sizeof(*v));
	struct conf_backend *backend;

	if (!v)
		return NULL;
	conf->backends = v;
	backend = &v[conf->nbackends];
	*backend = (struct conf_backend){.name = strdup(name), .line = line};
	if (!backend->name)
		return NULL;
	conf->nbackends++;
	return conf_key_set_defaults(CONF_BACKEND, backend) < 0 ? NULL : backend;
}

int conf_addrs_add(struct conf_addrs *addrs, const struct addr *addr, unsigned int line)
{
	unsigned int *lines = reallocarray(addrs->lines, addrs->n + 1, sizeof(*lines));
	struct addr *v;

	if (!lines)
		return -ENOMEM;
	addrs->lines = lines;
	v = reallocarray(addrs->v, addrs->n + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	addrs->v = v;
	lines[addrs->n] = line;
	v[addrs->n++] = *addr;
	return 0;
}

int conf_add_pair(struct conf *conf, const char *listen, const char *to, struct conf_error *error)
{
	const struct conf_key *bind_key = conf_key_find(CONF_LISTENER, "bind");
	const struct conf_key *backend_key = conf_key_find(CONF_LISTENER, "backend");
	char listener_name[32], backend_name[32];
	struct conf_listener *listener;
	struct conf_backend *backend;
	struct conf_error why;
	int err;

	snprintf(listener_name, sizeof(listener_name), "listener%u", conf->nlisteners + 1);
	snprintf(backend_name, sizeof(backend_name), "backend%u", conf->nbackends + 1);
	listener = conf_listener_add(conf, listener_name, 0);
	backend = listener ? conf_backend_add(conf, backend_name, 0) : NULL;
	if (!backend) {
		conf_error_set(error, "out of memory");
		return -ENOMEM;
	}
	err = conf_key_set(bind_key, listener, listen, 0, &why);
	if (err) {
		conf_error_set(error, "--listen %.400s", why.text);
		return err;
	}
	/* Server options belong to files: with them the address alone would not be valid. */
	if (strpbrk(to, " \t")) {
		conf_error_set(error, "--to '%.112s': an address takes no spaces", to);
		return -EINVAL;
	}
	err = conf_server_add(backend, to, 0, &why);
	if (err) {
		conf_error_set(error, "--to %.400s", why.text);
		return err;
	}
	return conf_key_set(backend_key, listener, backend_name, 0, error);
}

/* Cross-checks of the file-less form have no place to point at. */
static int finish_error(
	const struct conf *conf, unsigned int line, struct conf_error *error, const char *text)
{
	if (conf->source)
		conf_error_set(error, "%.200s:%u: %.300s", conf->source, MAX(line, 1u), text);
	else
		conf_error_set(error, "%s", text);
	return -EINVAL;
}

/* One address that is going to be bound, and who asked for it. */
struct bind_ref {
	const struct addr *given;
	struct addr addr; /* the same, but for v6only */
	const char *interface, *key, *section, *name;
	unsigned int line;
};

/* With SO_REUSEPORT the kernel would let both sockets live, and share connections out between them.
 */
static bool addrs_clash(const struct addr *a, const struct addr *b)
{
	const struct addr *any = a->dual_stack ? a : b, *other = any == a ? b : a;

	if (!any->dual_stack || other->dual_stack)
		return addr_equal(a, b);
	if (addr_family(other) == AF_INET)
		return other->in.sin_port == any->in6.sin6_port &&
		       other->in.sin_addr.s_addr == htonl(INADDR_ANY);
	return addr_family(other) == AF_INET6 && other->in6.sin6_port == any->in6.sin6_port &&
	       IN6_IS_ADDR_UNSPECIFIED(&other->in6.sin6_addr);
}

static bool binds_clash(const struct bind_ref *a, const struct bind_ref *b)
{
	/* The port is at the same place for both families; port 0 is another one each time. */
	if (!addr_is_unix(&a->addr) && !a->addr.in.sin_port)
		return false;
	/* Each interface has its own sockets; those of no interface get what the others leave. */
	if (!addr_is_unix(&a->addr) && strcmp(a->interface, b->interface) != 0)
		return false;
	return addrs_clash(&a->addr, &b->addr);
}

static unsigned int add_refs(
	struct bind_ref *refs, const struct conf_addrs *addrs, const struct bind_ref *owner)
{
	for (unsigned int i = 0; i < addrs->n; i++) {
		refs[i] = *owner;
		refs[i].given = &addrs->v[i];
		refs[i].addr = addrs->v[i];
		refs[i].line = addrs->lines[i];
	}
	return addrs->n;
}

static unsigned int add_listener_refs(struct bind_ref *refs, const struct conf_listener *listener)
{
	const struct bind_ref owner = {.interface = listener->bind_options.interface,
		.key = "bind",
		.section = "listener ",
		.name = listener->name};
	unsigned int n = add_refs(refs, &listener->binds, &owner);

	for (unsigned int i = 0; i < n && listener->bind_options.v6only; i++)
		refs[i].addr.dual_stack = false;
	return n;
}

static int clash_error(const struct conf *conf, const struct bind_ref *first,
	const struct bind_ref *second, struct conf_error *error)
{
	char text[300], addr[ADDR_TEXT_MAX], first_addr[ADDR_TEXT_MAX], where[32] = "";

	/* By line: the control address has none of its own here, and is looked at first. */
	if (first->line > second->line)
		return clash_error(conf, second, first, error);
	addr_format(second->given, addr, sizeof(addr));
	addr_format(first->given, first_addr, sizeof(first_addr));
	if (first->line)
		snprintf(where, sizeof(where), " (line %u)", first->line);
	snprintf(text, sizeof(text), "key '%s' in [%s%s]: '%.80s' is taken: %s = %.80s in [%s%s]%s",
		second->key, second->section, second->name, addr, first->key, first_addr,
		first->section, first->name, where);
	return finish_error(conf, second->line, error, text);
}

static int check_binds(const struct conf *conf, struct conf_error *error)
{
	struct conf_addrs control = {(struct addr[]){conf->control}, (unsigned int[]){0}, 1};
	const struct bind_ref owners[] = {
		{.interface = "", .key = "control", .section = "global", .name = ""},
		{.interface = "", .key = "stats", .section = "global", .name = ""},
	};
	unsigned int total = conf->stats.n + 1, n = 0;
	struct bind_ref *refs;
	int err = 0;

	for (unsigned int i = 0; i < conf->nlisteners; i++)
		total += conf->listeners[i].binds.n;
	refs = calloc(total, sizeof(*refs));
	if (!refs) {
		conf_error_set(error, "out of memory");
		return -ENOMEM;
	}
	if (conf->control.len)
		n += add_refs(refs + n, &control, &owners[0]);
	n += add_refs(refs + n, &conf->stats, &owners[1]);
	for (unsigned int i = 0; i < conf->nlisteners; i++)
		n += add_listener_refs(refs + n, &conf->listeners[i]);
	for (unsigned int i = 1; i < n && !err; i++) {
		for (unsigned int k = 0; k < i && !err; k++) {
			if (binds_clash(&refs[k], &refs[i]))
				err = clash_error(conf, &refs[k], &refs[i], error);
		}
	}
	free(refs);
	return err;
}

struct conf_listener *conf_find_listener(const struct conf *conf, const char *name)
{
	for (unsigned int i = 0; i < conf->nlisteners; i++) {
		if (strcmp(conf->listeners[i].name, name) == 0)
			return &conf->listeners[i];
	}
	return NULL;
}

struct conf_backend *conf_find_backend(const struct conf *conf, const char *name)
{
	for (unsigned int i = 0; i < conf->nbackends; i++) {
		if (strcmp(conf->backends[i].name, name) == 0)
			return &conf->backends[i];
	}
	return NULL;
}

struct conf_server *conf_find_server(const struct conf_backend *backend, const char *name)
{
	for (unsigned int i = 0; i < backend->nservers; i++) {
		if (strcmp(backend->servers[i].name, name) == 0)
			return &backend->servers[i];
	}
	return NULL;
}

int conf_find_addr(const struct conf_addrs *addrs, const struct addr *addr)
{
	for (unsigned int i = 0; i < addrs->n; i++) {
		if (addr_equal(&addrs->v[i], addr))
			return (int)i;
	}
	return -1;
}

bool conf_listener_same_binds(const struct conf_listener *a, const struct conf_listener *b)
{
	const struct conf_bind_options *x = &a->bind_options, *y = &b->bind_options;

	if (a->binds.n != b->binds.n || x->v6only != y->v6only || x->freebind != y->freebind ||
		x->backlog != y->backlog || strcmp(x->interface, y->interface) != 0)
		return false;
	/* An address may be there twice where its port is 0: look both ways. */
	for (unsigned int i = 0; i < a->binds.n; i++) {
		if (conf_find_addr(&b->binds, &a->binds.v[i]) < 0 ||
			conf_find_addr(&a->binds, &b->binds.v[i]) < 0)
			return false;
	}
	return true;
}

static bool has_family(const struct conf_addrs *addrs, int family)
{
	for (unsigned int i = 0; i < addrs->n; i++) {
		if (addr_family(&addrs->v[i]) == family)
			return true;
	}
	return false;
}

/* An option that no socket of the listener can have would be ignored without a word. */
static int check_bind_options(
	const struct conf *conf, const struct conf_listener *listener, struct conf_error *error)
{
	const struct conf_bind_options *options = &listener->bind_options;
	bool in6 = has_family(&listener->binds, AF_INET6);
	bool in = in6 || has_family(&listener->binds, AF_INET);
	const char *what = NULL;
	char text[300];

	if (options->v6only && !in6)
		what = "v6only, but no IPv6 address or '*'";
	else if (options->freebind && !in)
		what = "freebind, but only UNIX sockets";
	else if (options->interface[0] && !in)
		what = "interface, but only UNIX sockets";
	if (!what)
		return 0;
	snprintf(text, sizeof(text), "key 'bind_options' in [listener %s]: %s", listener->name,
		what);
	return finish_error(conf, options->line, error, text);
}

static int finish_listener(
	const struct conf *conf, struct conf_listener *listener, struct conf_error *error)
{
	struct conf_error why;
	unsigned int line;
	char text[300];

	listener->backend = conf_find_backend(conf, listener->backend_name);
	if (!listener->backend) {
		snprintf(text, sizeof(text),
			"key 'backend' in [listener %s]: '%.64s': there is no such backend",
			listener->name, listener->backend_name);
		return finish_error(conf, listener->backend_line, error, text);
	}
	if (conf_routes_finish(conf, listener, &line, &why) < 0) {
		snprintf(text, sizeof(text), "key 'route' in [listener %s]: %.200s", listener->name,
			why.text);
		return finish_error(conf, line, error, text);
	}
	if (!listener->path_is_own)
		listener->path = conf->path;
	return check_bind_options(conf, listener, error);
}

static void finish_backend(struct conf_backend *backend)
{
	for (unsigned int i = 0; i < backend->nservers; i++) {
		if (!backend->servers[i].max_sessions_is_own)
			backend->servers[i].max_sessions = backend->server_max_sessions;
	}
}

int conf_finish(struct conf *conf, struct conf_error *error)
{
	int err = 0;

	if (!conf->nlisteners)
		return finish_error(conf, 1, error, "there is no listener");
	for (unsigned int i = 0; i < conf->nlisteners && !err; i++)
		err = finish_listener(conf, &conf->listeners[i], error);
	for (unsigned int i = 0; i < conf->nbackends; i++)
		finish_backend(&conf->backends[i]);
	return err ? err : check_binds(conf, error);
}

void conf_dump(const struct conf *conf, FILE *out)
{
	fputs("[global]\n", out);
	conf_key_dump(CONF_GLOBAL, conf, out);
	for (unsigned int i = 0; i < conf->nlisteners; i++) {
		fprintf(out, "\n[listener %s]\n", conf->listeners[i].name);
		conf_key_dump(CONF_LISTENER, &conf->listeners[i], out);
	}
	for (unsigned int i = 0; i < conf->nbackends; i++) {
		fprintf(out, "\n[backend %s]\n", conf->backends[i].name);
		conf_key_dump(CONF_BACKEND, &conf->backends[i], out);
	}
}

static void free_addrs(struct conf_addrs *addrs)
{
	free(addrs->v);
	free(addrs->lines);
}

static void free_listener(struct conf_listener *listener)
{
	free(listener->name);
	free(listener->backend_name);
	free_addrs(&listener->binds);
	free(listener->access.v);
	free(listener->accept_proxy_from.v);
	conf_routes_free(listener);
}

static void free_backend(struct conf_backend *backend)
{
	for (unsigned int i = 0; i < backend->nservers; i++)
		free(backend->servers[i].name);
	free(backend->servers);
	free(backend->check_send);
	free(backend->check_expect);
	free(backend->name);
}

void conf_free(struct conf *conf)
{
	if (!conf)
		return;
	for (unsigned int i = 0; i < conf->nlisteners; i++)
		free_listener(&conf->listeners[i]);
	for (unsigned int i = 0; i < conf->nbackends; i++)
		free_backend(&conf->backends[i]);
	free(conf->listeners);
	free(conf->backends);
	free_addrs(&conf->stats);
	free(conf->user);
	free(conf->source);
	free(conf);
}
