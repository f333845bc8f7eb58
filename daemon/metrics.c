/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the list of metric families. Must not know who asks, or how the lines are written. Each
 * series is visited once: a page costs O(series x threads). */
#include "metrics.h"

#include <errno.h>
#include <stdlib.h>

#include "conf.h"
#include "metrics_text.h"
#include "server_state.h"
#include "stats.h"

struct page {
	struct metrics_text text;
	const struct metrics_view *view;
	const struct family *family;
};

struct family {
	const char *name; /* without "_total" or "_info"; ends in its unit, if it has one */
	enum metrics_type type;
	const char *help;
	void (*emit)(struct page *page);
	size_t offset; /* of the (first) counter or histogram in what emit visits */
	/* An array of counters, one for each value of a closed label set. */
	const char *label;
	const char *const *values;
	unsigned int nvalues;
};

/* One series, or one family's series for one listener or server. */
struct owner {
	void *(*row)(struct stats *stats, unsigned int thread, unsigned int index);
	unsigned int index;
	const char *listener;
	const char *backend, *server;
	const struct conf_server *conf;
};

static void *listener_row(struct stats *stats, unsigned int thread, unsigned int index)
{
	return stats_listener_of(stats, thread, index);
}

static void *server_row(struct stats *stats, unsigned int thread, unsigned int index)
{
	return stats_server_of(stats, thread, index);
}

static void *thread_row(struct stats *stats, unsigned int thread, unsigned int index)
{
	(void)index;
	return &stats->thread[thread];
}

/* The counter at `offset` of the owner's rows, added up over the threads. */
static uint64_t total(struct page *page, const struct owner *owner, size_t offset)
{
	struct stats *stats = page->view->stats;
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < stats->threads; i++) {
		char *row = owner->row(stats, i, owner->index);

		sum += stats_get((stats_counter *)(void *)(row + offset));
	}
	return sum;
}

static void write_owner(struct page *page, const struct owner *owner)
{
	if (owner->listener)
		metrics_text_label(&page->text, "listener", owner->listener);
	if (owner->backend)
		metrics_text_label(&page->text, "backend", owner->backend);
	if (owner->server)
		metrics_text_label(&page->text, "server", owner->server);
}

static void write_counters(struct page *page, const struct owner *owner)
{
	const struct family *family = page->family;
	unsigned int i, n = family->nvalues ? family->nvalues : 1;

	for (i = 0; i < n; i++) {
		metrics_text_begin(&page->text);
		write_owner(page, owner);
		if (family->nvalues)
			metrics_text_label(&page->text, family->label, family->values[i]);
		metrics_text_end(&page->text,
			total(page, owner, family->offset + i * sizeof(stats_counter)));
	}
}

/* _count is what was added up for +Inf, so the two agree whatever the writers do meanwhile. */
static void write_histogram(struct page *page, const struct owner *owner)
{
	size_t buckets = page->family->offset + offsetof(struct stats_histogram, buckets);
	size_t sum = page->family->offset + offsetof(struct stats_histogram, sum_us);
	struct metrics_text *text = &page->text;
	uint64_t count = 0;
	unsigned int i;

	for (i = 0; i < STATS_BUCKETS; i++) {
		count += total(page, owner, buckets + i * sizeof(stats_counter));
		metrics_text_begin_part(text, "_bucket");
		write_owner(page, owner);
		if (i < STATS_BUCKETS - 1)
			metrics_text_bound(text, stats_bucket_us[i]);
		else
			metrics_text_label(text, "le", "+Inf");
		metrics_text_end(text, count);
	}
	metrics_text_begin_part(text, "_sum");
	write_owner(page, owner);
	metrics_text_end_us(text, total(page, owner, sum));
	metrics_text_begin_part(text, "_count");
	write_owner(page, owner);
	metrics_text_end(text, count);
}

/* Takes the ends first: a session that ends between the two reads must not make it negative. */
static void write_active(
	struct page *page, const struct owner *owner, uint64_t ended, size_t sessions)
{
	uint64_t begun = total(page, owner, sessions);

	metrics_text_begin(&page->text);
	write_owner(page, owner);
	metrics_text_end(&page->text, begun > ended ? begun - ended : 0);
}

static void write_server_active(struct page *page, const struct owner *owner)
{
	uint64_t ended = total(page, owner, offsetof(struct stats_server, ended));

	write_active(page, owner, ended, offsetof(struct stats_server, sessions));
}

static void write_listener_active(struct page *page, const struct owner *owner)
{
	uint64_t ended = 0;
	unsigned int i;

	for (i = 0; i < END_REASON_COUNT; i++)
		ended += total(page, owner,
			offsetof(struct stats_listener, ended) + i * sizeof(stats_counter));
	write_active(page, owner, ended, offsetof(struct stats_listener, sessions));
}

static void write_listener_bytes(struct page *page, const struct owner *owner)
{
	unsigned int i, j;

	for (i = 0; i < DIR_COUNT; i++)
		for (j = 0; j < PATH_COUNT; j++) {
			size_t at = (i * PATH_COUNT + j) * sizeof(stats_counter);

			metrics_text_begin(&page->text);
			write_owner(page, owner);
			metrics_text_label(&page->text, "direction", direction_names[i]);
			metrics_text_label(&page->text, "path", path_names[j]);
			metrics_text_end(
				&page->text, total(page, owner, page->family->offset + at));
		}
}

static void each_listener(struct page *page, void (*write)(struct page *, const struct owner *))
{
	const struct conf *conf = page->view->conf;

	for (unsigned int i = 0; i < conf->nlisteners; i++)
		write(page, &(struct owner){
				    .row = listener_row,
				    .index = conf->listeners[i].slot,
				    .listener = conf->listeners[i].name,
			    });
}

static void each_server(struct page *page, void (*write)(struct page *, const struct owner *))
{
	const struct conf *conf = page->view->conf;

	for (unsigned int i = 0; i < conf->nbackends; i++)
		for (unsigned int j = 0; j < conf->backends[i].nservers; j++)
			write(page, &(struct owner){
					    .row = server_row,
					    .index = conf->backends[i].servers[j].slot,
					    .backend = conf->backends[i].name,
					    .server = conf->backends[i].servers[j].name,
					    .conf = &conf->backends[i].servers[j],
				    });
}

static void emit_threads(struct page *page)
{
	write_counters(page, &(struct owner){.row = thread_row});
}

static void emit_threads_histogram(struct page *page)
{
	write_histogram(page, &(struct owner){.row = thread_row});
}

static void emit_listeners(struct page *page)
{
	each_listener(page, write_counters);
}

static void emit_listeners_active(struct page *page)
{
	each_listener(page, write_listener_active);
}

static void emit_listeners_bytes(struct page *page)
{
	each_listener(page, write_listener_bytes);
}

static void emit_listeners_histogram(struct page *page)
{
	each_listener(page, write_histogram);
}

static void emit_servers(struct page *page)
{
	each_server(page, write_counters);
}

static void emit_servers_active(struct page *page)
{
	each_server(page, write_server_active);
}

static void emit_servers_histogram(struct page *page)
{
	each_server(page, write_histogram);
}

static const struct server_state *state_of(const struct page *page, const struct owner *owner)
{
	return &page->view->stats->server_state[owner->index];
}

static void write_value(struct page *page, const struct owner *owner, uint64_t value)
{
	metrics_text_begin(&page->text);
	write_owner(page, owner);
	metrics_text_end(&page->text, value);
}

static void write_up(struct page *page, const struct owner *owner)
{
	const struct server_state *state = state_of(page, owner);

	write_value(page, owner, !state->down && state->admin != SERVER_MAINT);
}

static void write_weight(struct page *page, const struct owner *owner)
{
	int32_t weight = state_of(page, owner)->weight;

	write_value(page, owner, weight < 0 ? owner->conf->weight : (uint64_t)weight);
}

static void write_admin(struct page *page, const struct owner *owner)
{
	static const char *const names[] = {
		[SERVER_READY] = "ready", [SERVER_DRAIN] = "drain", [SERVER_MAINT] = "maint"};

	for (unsigned int i = 0; i < ARRAY_LEN(names); i++) {
		metrics_text_begin(&page->text);
		write_owner(page, owner);
		metrics_text_label(&page->text, "state", names[i]);
		metrics_text_end(&page->text, state_of(page, owner)->admin == i);
	}
}

static void write_ejected(struct page *page, const struct owner *owner)
{
	write_value(page, owner, state_of(page, owner)->ejected_until_ns > page->view->now_ns);
}

static void write_checks(struct page *page, const struct owner *owner)
{
	const struct server_state *state = state_of(page, owner);

	metrics_text_begin(&page->text);
	write_owner(page, owner);
	metrics_text_label(&page->text, "result", "ok");
	metrics_text_end(&page->text, state->check_successes);
	metrics_text_begin(&page->text);
	write_owner(page, owner);
	metrics_text_label(&page->text, "result", "failed");
	metrics_text_end(&page->text, state->check_failures);
}

static void emit_servers_up(struct page *page)
{
	each_server(page, write_up);
}

static void emit_servers_weight(struct page *page)
{
	each_server(page, write_weight);
}

static void emit_servers_admin(struct page *page)
{
	each_server(page, write_admin);
}

static void emit_servers_ejected(struct page *page)
{
	each_server(page, write_ejected);
}

static void emit_servers_checks(struct page *page)
{
	each_server(page, write_checks);
}

static void emit_build(struct page *page)
{
	metrics_text_begin(&page->text);
	metrics_text_label(&page->text, "version", page->view->version);
	metrics_text_end(&page->text, 1);
}

static void emit_start_time(struct page *page)
{
	metrics_text_begin(&page->text);
	metrics_text_end(&page->text, page->view->stats->start_time);
}

static void emit_worker_restarts(struct page *page)
{
	metrics_text_begin(&page->text);
	metrics_text_end(&page->text, stats_get(&page->view->stats->worker_restarts));
}

static void emit_config_reloads(struct page *page)
{
	const struct stats *stats = page->view->stats;

	metrics_text_begin(&page->text);
	metrics_text_label(&page->text, "result", "ok");
	metrics_text_end(&page->text, stats_get(&stats->config_reloads_ok));
	metrics_text_begin(&page->text);
	metrics_text_label(&page->text, "result", "error");
	metrics_text_end(&page->text, stats_get(&stats->config_reloads_error));
}

/* A uint64_t of a plain struct, at the family's offset. */
static uint64_t field(const struct page *page, const void *object)
{
	return *(const uint64_t *)(const void *)((const char *)object + page->family->offset);
}

static void emit_maps(struct page *page)
{
	unsigned int i;

	for (i = 0; i < page->view->nmaps; i++) {
		metrics_text_begin(&page->text);
		metrics_text_label(&page->text, "map", page->view->maps[i].name);
		metrics_text_end(&page->text, field(page, &page->view->maps[i]));
	}
}

static void emit_process(struct page *page)
{
	if (!page->view->process)
		return;
	metrics_text_begin(&page->text);
	metrics_text_end(&page->text, field(page, page->view->process));
}

static void emit_process_us(struct page *page)
{
	if (!page->view->process)
		return;
	metrics_text_begin(&page->text);
	metrics_text_end_us(&page->text, field(page, page->view->process));
}

#define LISTENER(field) offsetof(struct stats_listener, field)
#define SERVER(field) offsetof(struct stats_server, field)
#define THREAD(field) offsetof(struct stats_thread, field)
#define MAP(field) offsetof(struct metrics_map, field)
#define PROCESS(field) offsetof(struct metrics_process, field)
#define BY(label, values, n) label, values, n
#define ONE BY(NULL, NULL, 0)

/* Of the connect failures only END_CONNECT_* may be counted: one stretch of the list. */
#define CONNECT_REASONS (END_CONNECT_FAILED - END_CONNECT_REFUSED + 1)
_Static_assert(CONNECT_REASONS == 3, "end_reasons.def keeps the connect reasons together");

static const struct family families[] = {
#define METRIC(name, type, help, emit, offset, by) {name, METRICS_##type, help, emit, offset, by},
#include "metrics.def"
#undef METRIC
};

int metrics_write(const struct metrics_view *view, bool openmetrics, FILE *file)
{
	struct page page = {
		.text = {.file = file, .openmetrics = openmetrics},
		.view = view,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(families); i++) {
		page.family = &families[i];
		metrics_text_family(
			&page.text, families[i].name, families[i].type, families[i].help);
		families[i].emit(&page);
	}
	metrics_text_finish(&page.text);
	return ferror(file) ? -EIO : 0;
}

int metrics_render(
	const struct metrics_view *view, bool openmetrics, char **ret_body, size_t *ret_len)
{
	char *body = NULL;
	size_t len = 0;
	FILE *file = open_memstream(&body, &len);
	int r;

	if (!file)
		return -ENOMEM;
	r = metrics_write(view, openmetrics, file);
	if (fclose(file) != 0 && !r)
		r = -ENOMEM;
	if (r < 0) {
		free(body);
		return r;
	}
	*ret_body = body;
	*ret_len = len;
	return 0;
}
