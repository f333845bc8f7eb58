/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the look of the status page. Every text that is not ours goes through put_text(). */
#include "api_page.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "api_sessions.h"
#include "api_totals.h"
#include "conf.h"
#include "server_state.h"

#define SESSIONS_SHOWN 20

/* clang-format off */
static const char head[] =
	"<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
	"<meta name=viewport content=\"width=device-width\">"
	"<meta http-equiv=refresh content=5><title>shunt</title>\n<style>\n"
	":root{color-scheme:light dark;--line:#ccc;--good:#176b2c;--bad:#b3261e;--quiet:#666}\n"
	"@media(prefers-color-scheme:dark){"
	":root{--line:#444;--good:#7bd88f;--bad:#ff8a80;--quiet:#aaa}}\n"
	"body{font:15px/1.45 system-ui,sans-serif;margin:1.5em auto;max-width:75em;padding:0 1em}\n"
	"h1{font-size:1.5em;margin:0}h2{font-size:1.1em;margin:1.6em 0 .4em}\n"
	".wide{overflow-x:auto}table{border-collapse:collapse;width:100%}\n"
	"th,td{text-align:left;padding:.25em .8em .25em 0;border-bottom:1px solid var(--line);"
	"white-space:nowrap}\n"
	"th{font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums}\n"
	".good{color:var(--good)}.bad{color:var(--bad);font-weight:600}.quiet{color:var(--quiet)}\n"
	"</style></head><body>\n";
/* clang-format on */

/* Control characters are no text in HTML, and bytes that are not UTF-8 are shown as such by the
 * browser. */
static void put_text(FILE *out, const char *text)
{
	for (; text && *text; text++) {
		unsigned char c = (unsigned char)*text;

		switch (c) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		case '\'':
			fputs("&#39;", out);
			break;
		default:
			fputc(c < ' ' || c == 0x7f ? '?' : c, out);
		}
	}
}

static void put_cell(FILE *out, const char *text)
{
	fputs("<td>", out);
	put_text(out, text ? text : "-");
}

static void put_addr(FILE *out, const struct addr *addr)
{
	char text[ADDR_TEXT_MAX] = "-";

	if (addr->len)
		addr_format(addr, text, sizeof(text));
	put_cell(out, text);
}

static void put_number(FILE *out, uint64_t value)
{
	fprintf(out, "<td class=n>%llu", (unsigned long long)value);
}

static void put_bytes(FILE *out, uint64_t bytes)
{
	static const char units[] = "KMGTPE";
	double value = (double)bytes;
	int unit = -1;

	while (value >= 1024) {
		value /= 1024;
		unit++;
	}
	if (unit < 0)
		fprintf(out, "<td class=n>%llu B", (unsigned long long)bytes);
	else
		fprintf(out, "<td class=n>%.1f %ciB", value, units[unit]);
}

static void put_age(FILE *out, uint64_t seconds)
{
	unsigned long long s = seconds;

	if (s < 3600)
		fprintf(out, "%llum %02llus", s / 60, s % 60);
	else if (s < 86400)
		fprintf(out, "%lluh %02llum", s / 3600, s / 60 % 60);
	else
		fprintf(out, "%llud %02lluh", s / 86400, s / 3600 % 24);
}

/* columns: "name" or ">number", separated by '|'. */
static void begin_table(FILE *out, const char *title, const char *columns)
{
	fprintf(out, "<h2>%s</h2>\n<div class=wide><table><tr><th>", title);
	for (const char *at = columns; *at; at++) {
		if (*at == '|')
			fputs(at[1] == '>' ? "<th class=n>" : "<th>", out);
		else if (*at != '>')
			fputc(*at, out);
	}
	fputc('\n', out);
}

static void end_table(FILE *out)
{
	fputs("</table></div>\n", out);
}

static void put_summary(FILE *out, const struct api_page *page)
{
	const struct api_info *info = page->info;
	uint64_t now = (uint64_t)time(NULL), started = page->source->stats->start_time;

	fprintf(out, "<h1>shunt ");
	put_text(out, page->source->version);
	fprintf(out, "</h1>\n<p><span class=%s>", page->ready ? "good" : "bad");
	put_text(out, page->ready ? "ready" : page->ready_why);
	fprintf(out, "</span> &middot; up ");
	put_age(out, now > started ? now - started : 0);
	fprintf(out, " &middot; %u of %u sessions &middot; %u threads &middot; kernel path ",
		info->sessions, info->max_sessions, info->threads);
	put_text(out, info->kernel_path ? "on" : "off");
	if (!info->kernel_path && info->kernel_path_why) {
		fputs(" (", out);
		put_text(out, info->kernel_path_why);
		fputc(')', out);
	}
	fprintf(out,
		" &middot; configuration %u &middot; pid %d</p>\n<p class=quiet><a "
		"href=/metrics>metrics</a>"
		" <a href=/v1/info>info</a> <a href=/v1/listeners>listeners</a>"
		" <a href=/v1/backends>backends</a> <a href=/v1/sessions>sessions</a></p>\n",
		info->generation, (int)info->pid);
}

static void put_listeners(FILE *out, const struct api_page *page)
{
	begin_table(out, "Listeners",
		"listener|address|backend|>sessions|>total|>c2s|>s2c|>kernel|>overflows");
	for (unsigned int i = 0; i < page->conf->nlisteners; i++) {
		const struct conf_listener *listener = &page->conf->listeners[i];
		struct listener_totals totals =
			api_listener_totals(page->source->stats, listener->slot);
		uint64_t sums[DIR_COUNT] = {0}, kernel = 0;

		for (unsigned int d = 0; d < DIR_COUNT; d++)
			for (unsigned int p = 0; p < PATH_COUNT; p++) {
				sums[d] += totals.bytes[d][p];
				kernel += p == PATH_RELAY ? 0 : totals.bytes[d][p];
			}
		fputs("<tr>", out);
		put_cell(out, listener->name);
		if (listener->binds.n)
			put_addr(out, &listener->binds.v[0]);
		else
			put_cell(out, NULL);
		if (listener->binds.n > 1)
			fprintf(out, " <span class=quiet>+%u</span>", listener->binds.n - 1);
		put_cell(out, listener->backend ? listener->backend->name : listener->backend_name);
		put_number(out, totals.active);
		put_number(out, totals.sessions);
		put_bytes(out, sums[DIR_C2S]);
		put_bytes(out, sums[DIR_S2C]);
		put_bytes(out, kernel);
		put_number(out, totals.overflows);
		fputc('\n', out);
	}
	end_table(out);
}

static void put_state(FILE *out, const struct conf_backend *backend, const struct server_view *view)
{
	const char *text = "up";
	bool good = view->usable && !view->ejected;

	if (view->admin != SERVER_READY)
		text = server_admin_names[MIN(view->admin, (unsigned int)SERVER_MAINT)];
	else if (!view->up)
		text = "down";
	else if (view->ejected)
		text = "ejected";
	else if (!view->weight)
		text = "weight 0";
	else if (backend->check == CHECK_OFF)
		text = "not checked";
	fprintf(out, "<td class=%s>%s", good ? "good" : "bad", text);
}

static void put_server(FILE *out, const struct api_page *page, const struct conf_backend *backend,
	const struct conf_server *server)
{
	struct server_view view = api_server_view(page->source->stats, server);
	struct server_totals totals = api_server_totals(page->source->stats, server->slot);
	uint64_t failures = 0;

	for (unsigned int i = 0; i < END_REASON_COUNT; i++)
		failures += totals.connect_failures[i];
	fputs("<tr>", out);
	put_cell(out, backend->name);
	put_cell(out, server->name);
	put_addr(out, &server->addr);
	put_state(out, backend, &view);
	put_number(out, view.weight);
	if (view.weight_is_operators)
		fprintf(out, " <span class=quiet>(of %u)</span>", server->weight);
	put_number(out, view.active);
	put_number(out, totals.sessions);
	put_bytes(out, totals.bytes[DIR_C2S]);
	put_bytes(out, totals.bytes[DIR_S2C]);
	put_number(out, failures);
	fputc('\n', out);
}

static void put_backends(FILE *out, const struct api_page *page)
{
	begin_table(out, "Servers",
		"backend|server|address|state|>weight|>sessions|>total|>c2s|>s2c|>failed connects");
	for (unsigned int i = 0; i < page->conf->nbackends; i++)
		for (unsigned int j = 0; j < page->conf->backends[i].nservers; j++)
			put_server(out, page, &page->conf->backends[i],
				&page->conf->backends[i].servers[j]);
	end_table(out);
}

static void put_session(FILE *out, const struct api_session *session)
{
	fprintf(out, "<tr><td>%" API_SESSION_ID, session->id);
	put_cell(out, session->listener);
	put_addr(out, &session->client_addr);
	put_cell(out, session->server);
	put_cell(out, api_session_state_names[session->state]);
	for (unsigned int d = 0; d < DIR_COUNT; d++) {
		put_bytes(out, api_session_bytes(session, d));
		put_cell(out, path_names[session->dirs[d].path]);
		fputs(session->dirs[d].overflow ? " <span class=quiet>overflow</span>" : "", out);
		fputs(session->dirs[d].finished ? " <span class=quiet>finished</span>" : "", out);
	}
	fputs("<td class=n>", out);
	put_age(out, session->age_ms / 1000);
	fputc('\n', out);
}

static void put_sessions(FILE *out, const struct api_page *page)
{
	size_t shown = MIN(page->nsessions, (size_t)SESSIONS_SHOWN);

	begin_table(out, "Busiest sessions",
		"id|listener|client|server|state|>c2s|path|>s2c|path|>age");
	for (size_t i = 0; i < shown; i++)
		put_session(out, &page->sessions[i]);
	end_table(out);
	if (shown < page->nsessions)
		fprintf(out, "<p class=quiet>%zu of %zu</p>\n", shown, page->nsessions);
}

int api_page_render(const struct api_page *page, char **ret_body, size_t *ret_len)
{
	char *body = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&body, &len);
	bool failed;

	if (!out)
		return -ENOMEM;
	fputs(head, out);
	put_summary(out, page);
	put_listeners(out, page);
	put_backends(out, page);
	put_sessions(out, page);
	fputs("</body></html>\n", out);
	failed = ferror(out);
	if (fclose(out) || failed) {
		free(body);
		return -EIO;
	}
	*ret_body = body;
	*ret_len = len;
	return 0;
}
