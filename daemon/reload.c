/* SPDX-License-Identifier: BSD-2-Clause */
#include "reload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#define CONF_BYTES_MAX (16u * 1024 * 1024)

/* The text is kept: the worker must parse what we parsed, not what the file says by then. */
static int read_text(const char *path, struct reload *ret, char *why, size_t size)
{
	FILE *file = fopen(path, "re");
	size_t n;

	if (!file) {
		snprintf(why, size, "%s: %s", path, strerror(errno));
		return -1;
	}
	ret->text = malloc(CONF_BYTES_MAX + 1);
	n = ret->text ? fread(ret->text, 1, CONF_BYTES_MAX + 1, file) : 0;
	if (!ret->text || ferror(file) || n > CONF_BYTES_MAX) {
		snprintf(why, size, "%s: %s", path,
			ret->text ? "cannot be read, or too large" : "no memory");
		fclose(file);
		return -1;
	}
	fclose(file);
	ret->len = n;
	return 0;
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

static bool same_addrs(const struct conf_addrs *a, const struct conf_addrs *b)
{
	if (a->n != b->n)
		return false;
	for (unsigned int i = 0; i < a->n; i++)
		if (!addr_equal(&a->v[i], &b->v[i]))
			return false;
	return true;
}

static void warn_fixed(const char *key, bool same)
{
	if (!same)
		log_warning("reload: a change of '%s' needs a restart: the old value stands", key);
}

/* What was set up once, before the worker lost its privileges. */
static void warn_about_fixed(const struct conf *old, const struct conf *new)
{
	warn_fixed("threads", old->threads == new->threads);
	warn_fixed("user", same_text(old->user, new->user));
	warn_fixed("stats", same_addrs(&old->stats, &new->stats));
	warn_fixed("control", addr_equal(&old->control, &new->control));
	warn_fixed("parser", old->parser == new->parser);
	warn_fixed("max_sessions (global)", old->max_sessions == new->max_sessions);
}

int reload_prepare(const struct conf *old, unsigned int threads, struct bounds *old_bounds,
	struct reload *ret, char *why, size_t size)
{
	struct reload reload = {0};
	struct conf_error error;

	if (!old->source) {
		snprintf(why, size,
			"started without a configuration file: there is nothing to reload");
		return -1;
	}
	if (read_text(old->source, &reload, why, size)) {
		free(reload.text);
		return -1;
	}
	reload.conf = conf_read_text(reload.text, reload.len, old->source, &error);
	if (!reload.conf) {
		snprintf(why, size, "%s", error.text);
		free(reload.text);
		return -1;
	}
	if (bind_listeners(reload.conf, threads, old_bounds, &reload.bounds)) {
		snprintf(why, size, "a listener cannot be bound; the log says which");
		conf_free(reload.conf);
		free(reload.text);
		return -1;
	}
	warn_about_fixed(old, reload.conf);
	*ret = reload;
	return 0;
}

void reload_abandon(struct reload *reload)
{
	bind_close_replaced(&reload->bounds);
	conf_free(reload->conf);
	free(reload->text);
	*reload = (struct reload){0};
}
