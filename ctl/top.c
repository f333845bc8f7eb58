/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the screen of `top`; the only file with ncurses. */
#include "top.h"

#include <curses.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../daemon/util.h"
#include "client.h"
#include "format.h"
#include "top_rates.h"

#define PERIOD_MS 1000
#define LOOK_PATH "/v1/sessions?limit=1000"

static const char *const sort_names[TOP_SORT_COUNT] = {
	[TOP_SORT_RATE] = "rate",
	[TOP_SORT_BYTES] = "bytes",
	[TOP_SORT_AGE] = "age",
};

struct top {
	struct ctl ctl; /* its messages are kept until the screen is given back */
	json_t *info;
	struct top_look look;
	enum top_sort sort;
};

static volatile sig_atomic_t stopped;

static void stop_cb(int number)
{
	(void)number;
	stopped = 1;
}

/* One look at the daemon. */
static enum ctl_exit look_again(struct top *top)
{
	json_t *info = NULL, *answer = NULL;
	struct top_look look;
	enum ctl_exit status = client_call(&top->ctl, "GET", "/v1/info", NULL, &info);

	if (status == CTL_OK)
		status = client_call(&top->ctl, "GET", LOOK_PATH, NULL, &answer);
	if (status != CTL_OK) {
		json_decref(info);
		return status;
	}
	look = top_look_read(answer, now_ns());
	json_decref(answer);
	top_look_compare(&look, &top->look);
	top_look_free(&top->look);
	top->look = look;
	json_decref(top->info);
	top->info = info;
	return CTL_OK;
}

static const char *path_text(const struct top_dir *dir)
{
	if (dir->overflow)
		return "overflow";
	return dir->finished ? "finished" : dir->path;
}

static void draw_head(const struct top *top)
{
	const char *version = json_string_value(json_object_get(top->info, "version"));
	const char *why = json_string_value(json_object_get(top->info, "ready_why"));
	json_int_t uptime = json_integer_value(json_object_get(top->info, "uptime_seconds"));
	uint64_t rates[2] = {0};
	size_t overflows = 0;
	char text[512];

	for (size_t i = 0; i < top->look.n; i++)
		for (unsigned int d = 0; d < 2; d++) {
			rates[d] += top->look.sessions[i].dirs[d].rate;
			overflows += top->look.sessions[i].dirs[d].overflow;
		}
	snprintf(text, sizeof(text), "shunt %s  up %s  %s", version ? version : "-",
		format_age((uint64_t)uptime * 1000).text, why ? why : "ready");
	format_safe(text);
	mvaddnstr(0, 0, text, COLS);
	snprintf(text, sizeof(text),
		"sessions %s  c2s %s/s  s2c %s/s  overflows %zu  sort %s   (s: sort, q: quit)",
		format_count(top->look.total).text, format_bytes(rates[0]).text,
		format_bytes(rates[1]).text, overflows, sort_names[top->sort]);
	mvaddnstr(1, 0, text, COLS);
}

/* printf pads bytes; a name may have fewer characters than those. */
static int pad(const char *text, int width)
{
	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) == 0x80;
	return width;
}

static void draw_row(int y, const struct top_session *session)
{
	const struct top_dir *c2s = &session->dirs[0], *s2c = &session->dirs[1];
	char text[512];

	snprintf(text, sizeof(text), "%-16llx %-22s %-*s %-10s %8s %8s %-8s %8s %8s %-8s %7s",
		(unsigned long long)session->id, session->client, pad(session->server, 18),
		session->server, session->state, format_bytes(c2s->rate).text,
		format_bytes(c2s->bytes).text, path_text(c2s), format_bytes(s2c->rate).text,
		format_bytes(s2c->bytes).text, path_text(s2c), format_age(session->age_ms).text);
	if (c2s->overflow || s2c->overflow)
		attron(A_BOLD);
	mvaddnstr(y, 0, text, -1);
	attroff(A_BOLD);
}

static void draw(const struct top *top)
{
	char text[512];
	int y = 4;

	erase();
	draw_head(top);
	snprintf(text, sizeof(text), "%-16s %-22s %-18s %-10s %8s %8s %-8s %8s %8s %-8s %7s", "ID",
		"CLIENT", "SERVER", "STATE", "C2S/s", "C2S", "PATH", "S2C/s", "S2C", "PATH", "AGE");
	attron(A_REVERSE);
	mvhline(3, 0, ' ', COLS);
	mvaddnstr(3, 0, text, COLS);
	attroff(A_REVERSE);
	for (size_t i = 0; i < top->look.n && y < LINES; i++)
		draw_row(y++, &top->look.sessions[i]);
	refresh();
}

/* Until the next look is due; a key or a new size is answered at once. */
static bool wait_for_keys(struct top *top, uint64_t until_ns)
{
	for (uint64_t now = now_ns(); now < until_ns && !stopped; now = now_ns()) {
		int key;

		timeout((int)((until_ns - now) / 1000000) + 1);
		key = getch();
		if (key == 'q' || key == 'Q')
			return false;
		if (key == 's')
			top->sort = (top->sort + 1) % TOP_SORT_COUNT;
		else if (key != KEY_RESIZE)
			continue;
		top_look_sort(&top->look, top->sort);
		draw(top);
	}
	return !stopped;
}

static enum ctl_exit watch(struct top *top)
{
	enum ctl_exit status = CTL_OK;
	bool go_on = true;

	while (go_on && status == CTL_OK) {
		uint64_t until_ns = now_ns() + PERIOD_MS * 1000000ull;

		top_look_sort(&top->look, top->sort);
		draw(top);
		go_on = wait_for_keys(top, until_ns);
		if (go_on)
			status = look_again(top);
	}
	return status;
}

static enum ctl_exit on_screen(struct top *top, const struct ctl *ctl)
{
	struct sigaction stop = {.sa_handler = stop_cb};
	enum ctl_exit status;
	SCREEN *screen = newterm(NULL, ctl->out, stdin);

	if (!screen)
		return ctl_usage(ctl, "top: this terminal is not known (TERM)");
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	curs_set(0);
	status = watch(top);
	endwin();
	delscreen(screen);
	return status;
}

enum ctl_exit top_run(const struct ctl *ctl, char **args)
{
	struct top top = {.ctl = *ctl};
	enum ctl_exit status;
	char *messages = NULL;
	size_t len;

	(void)args;
	if (ctl->json || !isatty(fileno(ctl->out)) || !isatty(STDIN_FILENO))
		return ctl_usage(ctl, "top needs a terminal; for programs: --json sessions");
	top.ctl.err = open_memstream(&messages, &len);
	if (!top.ctl.err)
		return CTL_FAILED;
	/* The first look before the screen is taken: a refusal is a message as ever. */
	status = look_again(&top);
	if (status == CTL_OK)
		status = on_screen(&top, ctl);
	fclose(top.ctl.err);
	fputs(messages, ctl->err);
	free(messages);
	json_decref(top.info);
	top_look_free(&top.look);
	return status;
}
