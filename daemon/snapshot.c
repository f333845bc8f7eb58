/* SPDX-License-Identifier: BSD-2-Clause */
#include "snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS 2000

/* Names are kept as offsets while the arrays grow. */
struct row {
	struct api_session session;
	size_t listener, backend, server; /* in text[]; 0: none */
};

struct rows {
	struct row *v;
	size_t n, max;
	char *text;
	size_t len, text_max;
	bool failed;
};

static size_t add_text(struct rows *rows, const char *text)
{
	size_t len = strlen(text) + 1, at = rows->len;

	if (rows->len + len > rows->text_max) {
		size_t max = (rows->text_max + len) * 2 + 4096;
		char *grown = realloc(rows->text, max);

		if (!grown) {
			rows->failed = true;
			return 0;
		}
		rows->text = grown;
		rows->text_max = max;
	}
	memcpy(rows->text + at, text, len);
	rows->len += len;
	return at;
}

static struct row *add_row(struct rows *rows)
{
	if (rows->n == rows->max) {
		size_t max = rows->max * 2 + 64;
		struct row *grown = realloc(rows->v, max * sizeof(*grown));

		if (!grown) {
			rows->failed = true;
			return NULL;
		}
		rows->v = grown;
		rows->max = max;
	}
	memset(&rows->v[rows->n], 0, sizeof(*rows->v));
	return &rows->v[rows->n++];
}

static void fill_dir(const struct session *session, unsigned int dir, struct api_session_dir *ret)
{
	const struct session_dir *d = &session->dirs[dir];
	enum flow_state flow = dir == DIR_C2S ? session->fsm.c2s : session->fsm.s2c;

	ret->path = d->path == DIR_RELAY ? PATH_RELAY : PATH_SOCKMAP;
	ret->overflow = d->path == DIR_SETTLING || d->path == DIR_OVERFLOW;
	ret->finished = flow != FLOW_OPEN;
	ret->bytes[PATH_RELAY] = d->reported_relay;
	ret->bytes[PATH_SOCKMAP] = d->reported_sockmap;
}

static void fill_names(struct rows *rows, struct row *row, const struct session *session)
{
	row->listener = add_text(rows, session->conf->name);
	row->backend = add_text(rows, session->backend->conf->name);
	if (!session->server)
		return;
	row->server = add_text(rows, session->server->name);
	row->session.server_addr = session->server->addr;
}

static void add_session(struct rows *rows, const struct session *session, uint64_t now)
{
	struct row *row = add_row(rows);

	if (!row)
		return;
	row->session.id = session->id;
	row->session.age_ms = (now - session->started_ns) / 1000000;
	row->session.idle_ms = (now - session->activity_ns) / 1000000;
	row->session.state = session->fsm.state == SESSION_OPEN ? API_SESSION_OPEN
			     : session->ticket			? API_SESSION_QUEUED
								: API_SESSION_CONNECTING;
	session_client_addr(session, &row->session.client_addr);
	for (unsigned int dir = 0; dir < DIR_COUNT; dir++)
		fill_dir(session, dir, &row->session.dirs[dir]);
	fill_names(rows, row, session);
}

static void collect(struct thread *thread, void *arg)
{
	uint64_t now = now_ns();

	session_sweep(&thread->home, now);
	for (const struct session *s = thread->home.sessions; s; s = s->next)
		add_session(arg, s, now);
}

static void rows_free(void *arg)
{
	struct rows *rows = arg;

	free(rows->v);
	free(rows->text);
	free(rows);
}

static int pack(const struct rows *rows, struct api_session **ret, size_t *ret_n)
{
	struct api_session *block = malloc(rows->n * sizeof(*block) + rows->len + 1);
	char *text;

	if (!block || rows->failed) {
		free(block);
		return -ENOMEM;
	}
	text = (char *)(block + rows->n);
	if (rows->len)
		memcpy(text, rows->text, rows->len);
	for (size_t i = 0; i < rows->n; i++) {
		const struct row *row = &rows->v[i];

		block[i] = row->session;
		block[i].listener = text + row->listener;
		block[i].backend = text + row->backend;
		block[i].server = row->server ? text + row->server : NULL;
	}
	*ret = block;
	*ret_n = rows->n;
	return 0;
}

int snapshot_take(struct thread_shared *shared, struct api_session **ret, size_t *ret_n)
{
	struct rows *rows = calloc(1, sizeof(*rows));
	struct thread_call *call;
	int err;

	if (!rows)
		return -ENOMEM;
	(void)add_text(rows, ""); /* offset 0 means none */
	call = thread_call(shared, collect, rows, rows_free);
	if (!call)
		return -ENOMEM;
	err = thread_call_wait(call, TIMEOUT_MS) ? pack(rows, ret, ret_n) : -ETIMEDOUT;
	thread_call_done(call);
	return err;
}
