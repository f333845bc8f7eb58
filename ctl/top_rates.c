/* SPDX-License-Identifier: BSD-2-Clause */
#include "top_rates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"

static void read_text(char *to, size_t size, const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	snprintf(to, size, "%s", text ? text : "-");
	format_safe(to);
}

static uint64_t read_number(const json_t *object, const char *name)
{
	json_int_t value = json_integer_value(json_object_get(object, name));

	return value > 0 ? (uint64_t)value : 0;
}

static void read_dir(struct top_dir *dir, const json_t *object)
{
	dir->bytes = read_number(object, "bytes");
	dir->overflow = json_is_true(json_object_get(object, "overflow"));
	dir->finished = json_is_true(json_object_get(object, "finished"));
	read_text(dir->path, sizeof(dir->path), object, "path");
}

static void read_session(struct top_session *session, const json_t *object)
{
	const char *id = json_string_value(json_object_get(object, "id"));

	session->id = id ? strtoull(id, NULL, 16) : 0;
	read_text(session->client, sizeof(session->client), object, "client");
	read_text(session->server, sizeof(session->server), object, "server");
	read_text(session->state, sizeof(session->state), object, "state");
	session->age_ms = read_number(object, "age_ms");
	read_dir(&session->dirs[0], json_object_get(object, "c2s"));
	read_dir(&session->dirs[1], json_object_get(object, "s2c"));
}

struct top_look top_look_read(const json_t *answer, uint64_t at_ns)
{
	const json_t *array = json_object_get(answer, "sessions");
	struct top_look look = {.at_ns = at_ns, .total = read_number(answer, "total")};
	size_t n = json_array_size(array);

	look.sessions = calloc(n + 1, sizeof(*look.sessions));
	if (!look.sessions)
		return look;
	look.n = n;
	for (size_t i = 0; i < n; i++)
		read_session(&look.sessions[i], json_array_get(array, i));
	return look;
}

void top_look_free(struct top_look *look)
{
	free(look->sessions);
	*look = (struct top_look){0};
}

static int by_id(const void *a, const void *b)
{
	const struct top_session *const *x = a, *const *y = b;

	return (*x)->id < (*y)->id ? -1 : (*x)->id > (*y)->id;
}

static uint64_t rate_of(uint64_t now, uint64_t before, uint64_t ns)
{
	/* Less than before: the daemon was replaced, and the number used again. */
	return now > before ? (uint64_t)((double)(now - before) * 1e9 / (double)ns) : 0;
}

void top_look_compare(struct top_look *look, const struct top_look *before)
{
	const struct top_session **sorted = calloc(before->n + 1, sizeof(const void *));
	uint64_t ns = look->at_ns - before->at_ns;

	for (size_t i = 0; sorted && i < before->n; i++)
		sorted[i] = &before->sessions[i];
	if (sorted && before->n)
		qsort(sorted, before->n, sizeof(*sorted), by_id);
	for (size_t i = 0; sorted && before->n && ns && i < look->n; i++) {
		struct top_session *session = &look->sessions[i];
		const struct top_session *key = session, **found;

		found = bsearch(&key, sorted, before->n, sizeof(*sorted), by_id);
		for (unsigned int d = 0; found && d < 2; d++)
			session->dirs[d].rate =
				rate_of(session->dirs[d].bytes, (*found)->dirs[d].bytes, ns);
	}
	free(sorted);
}

static int descending(uint64_t x, uint64_t y)
{
	return x < y ? 1 : -(x > y);
}

static int by_bytes(const void *a, const void *b)
{
	const struct top_session *x = a, *y = b;
	int order = descending(
		x->dirs[0].bytes + x->dirs[1].bytes, y->dirs[0].bytes + y->dirs[1].bytes);

	return order ? order : descending(y->id, x->id);
}

static int by_rate(const void *a, const void *b)
{
	const struct top_session *x = a, *y = b;
	int order =
		descending(x->dirs[0].rate + x->dirs[1].rate, y->dirs[0].rate + y->dirs[1].rate);

	return order ? order : by_bytes(a, b);
}

static int by_age(const void *a, const void *b)
{
	const struct top_session *x = a, *y = b;
	int order = descending(x->age_ms, y->age_ms);

	return order ? order : descending(y->id, x->id);
}

void top_look_sort(struct top_look *look, enum top_sort sort)
{
	static int (*const orders[TOP_SORT_COUNT])(const void *a, const void *b) = {
		[TOP_SORT_RATE] = by_rate,
		[TOP_SORT_BYTES] = by_bytes,
		[TOP_SORT_AGE] = by_age,
	};

	if (look->n)
		qsort(look->sessions, look->n, sizeof(*look->sessions), orders[sort]);
}
