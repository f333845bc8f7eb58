/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "metrics_fixture.h"

/* A checker of the formats, line by line. It shares nothing with the writer. */

struct checker {
	bool openmetrics;
	char family[128], type[200];
	bool has_help;
	char series[4096][512]; /* seen so far */
	unsigned int nseries;
	/* Of the histogram series being read. */
	char histogram[512];
	unsigned long long cumulative;
	double bound;
	bool infinite;
};

static const char *take_name(const char *p, char *name, size_t size)
{
	size_t len = strspn(p, "abcdefghijklmnopqrstuvwxyz_0123456789");

	assert_in_range(len, 1, size - 1);
	assert_false(*p >= '0' && *p <= '9');
	snprintf(name, size, "%.*s", (int)len, p);
	return p + len;
}

static bool ends_with(const char *text, const char *end)
{
	return strlen(text) >= strlen(end) && !strcmp(text + strlen(text) - strlen(end), end);
}

static void check_type(struct checker *c, const char *name, const char *type)
{
	if (c->openmetrics) { /* TYPE opens the family */
		snprintf(c->family, sizeof(c->family), "%s", name);
		c->has_help = false;
		assert_false(ends_with(name, "_total") || ends_with(name, "_info"));
	} else {
		assert_string_equal(name, c->family);
		assert_true(c->has_help);
	}
	snprintf(c->type, sizeof(c->type), "%s", type);
	assert_true(!strcmp(type, "counter") || !strcmp(type, "gauge") ||
		    !strcmp(type, "histogram") || (c->openmetrics && !strcmp(type, "info")));
	assert_true(c->openmetrics || ends_with(name, "_total") == !strcmp(type, "counter"));
	/* A family must not come twice either. */
	snprintf(c->series[c->nseries++], sizeof(c->series[0]), "# %s", c->family);
}

static void check_comment(struct checker *c, const char *line)
{
	char word[8], name[128], rest[200];

	if (c->openmetrics && !strcmp(line, "# EOF"))
		return;
	assert_int_equal(sscanf(line, "# %7s %127s %199[^\n]", word, name, rest), 3);
	if (!strcmp(word, "TYPE")) {
		check_type(c, name, rest);
	} else if (!strcmp(word, "UNIT")) {
		char suffix[208];

		assert_true(c->openmetrics);
		assert_string_equal(name, c->family);
		snprintf(suffix, sizeof(suffix), "_%s", rest);
		assert_true(ends_with(name, suffix));
	} else {
		assert_string_equal(word, "HELP");
		if (!c->openmetrics) /* HELP opens the family */
			snprintf(c->family, sizeof(c->family), "%s", name);
		assert_string_equal(name, c->family);
		assert_null(strpbrk(rest, "\\\""));
		assert_true(ends_with(rest, "."));
		c->has_help = true;
	}
}

/* Copies le out and leaves the other labels in *others. */
static const char *check_labels(const char *p, char *le, size_t le_size, char *others, size_t size)
{
	size_t used = 0;

	le[0] = others[0] = '\0';
	if (*p != '{')
		return p;
	do {
		char name[64], value[128];
		size_t n = 0;

		p = take_name(p + 1, name, sizeof(name));
		assert_true(p[0] == '=' && p[1] == '"');
		for (p += 2; *p != '"'; p++) {
			assert_true((unsigned char)*p >= 0x20 && n < sizeof(value) - 2);
			if (*p == '\\') {
				assert_non_null(strchr("\\\"n", p[1]));
				value[n++] = *p++;
			}
			value[n++] = *p;
		}
		value[n] = '\0';
		p++;
		if (!strcmp(name, "le"))
			snprintf(le, le_size, "%s", value);
		else
			used += (size_t)snprintf(others + used, size - used, "%s=%s,", name, value);
	} while (*p == ',');
	assert_true(*p == '}');
	return p + 1;
}

static void check_histogram(
	struct checker *c, const char *part, const char *others, const char *le, const char *value)
{
	unsigned long long count = strtoull(value, NULL, 10);

	if (!strcmp(part, "_bucket")) {
		double bound = strcmp(le, "+Inf") ? atof(le) : 1e300;

		if (strcmp(others, c->histogram) || c->infinite) {
			snprintf(c->histogram, sizeof(c->histogram), "%s", others);
			c->cumulative = 0;
			c->bound = 0;
			c->infinite = false;
		}
		assert_true(bound > c->bound && count >= c->cumulative);
		assert_true(strchr(le, '.') || !c->openmetrics || !strcmp(le, "+Inf"));
		c->bound = bound;
		c->cumulative = count;
		c->infinite = !strcmp(le, "+Inf");
		return;
	}
	assert_string_equal(others, c->histogram);
	assert_true(c->infinite);
	if (!strcmp(part, "_count"))
		assert_int_equal(count, c->cumulative);
	else
		assert_string_equal(part, "_sum");
}

static void check_sample(struct checker *c, const char *line)
{
	char name[128], le[128], others[400];
	const char *p, *suffix;

	p = take_name(line, name, sizeof(name));
	assert_true(!strncmp(name, c->family, strlen(c->family)));
	suffix = name + strlen(c->family);
	p = check_labels(p, le, sizeof(le), others, sizeof(others));
	snprintf(c->series[c->nseries++], sizeof(c->series[0]), "%.*s", (int)(p - line), line);
	assert_true(*p == ' ');
	assert_int_equal(strspn(p + 1, "0123456789."), strlen(p + 1));
	assert_true(p[1] >= '0' && p[1] <= '9');
	if (!strcmp(c->type, "histogram"))
		check_histogram(c, suffix, others, le, p + 1);
	else if (!c->openmetrics)
		assert_string_equal(suffix, "");
	else
		assert_string_equal(suffix, !strcmp(c->type, "counter") ? "_total"
					    : !strcmp(c->type, "info")	? "_info"
									: "");
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void check_page(char *page, bool openmetrics)
{
	struct checker *c = calloc(1, sizeof(*c));
	char *line, *save = NULL, *last = NULL;
	unsigned int i;

	assert_non_null(c);
	assert_true(ends_with(page, "\n"));
	assert_null(strstr(page, "\n\n"));
	assert_null(strchr(page, '\r'));
	c->openmetrics = openmetrics;
	for (line = strtok_r(page, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		assert_true(c->nseries < ARRAY_LEN(c->series));
		if (line[0] == '#')
			check_comment(c, line);
		else
			check_sample(c, line);
		last = line;
	}
	assert_int_equal(openmetrics, !strcmp(last, "# EOF"));
	qsort(c->series, c->nseries, sizeof(c->series[0]), by_text);
	for (i = 1; i < c->nseries; i++)
		assert_string_not_equal(c->series[i - 1], c->series[i]);
	free(c);
}

static void count_something_everywhere(struct stats *stats)
{
	unsigned int i, j;

	for (i = 0; i < THREADS; i++) {
		for (j = 0; j < stats->listeners; j++) {
			struct stats_listener *l = stats_listener_of(stats, i, j);

			stats_add(&l->sessions, 10 + j);
			stats_add(&l->ended[END_COMPLETE], 4);
			stats_observe(&l->session_duration, 2000000);
			stats_observe(&l->session_duration, 1ull << 40);
		}
		for (j = 0; j < stats->servers; j++) {
			struct stats_server *s = stats_server_of(stats, i, j);

			stats_add(&s->sessions, 7 + j);
			stats_add(&s->ended, 2);
			stats_observe(&s->connect_duration, 100 * (j + 1));
		}
		stats_observe(&stats->thread[i].overflow_duration, 50000);
	}
}

static void test_every_line_of_the_text_format_is_valid(void **state)
{
	struct metrics_view *view = *state;
	char *page = render(view, false);

	check_page(page, false);
	free(page);
	count_something_everywhere(view->stats);
	page = render(view, false);
	check_page(page, false);
	free(page);
}

static void test_every_line_of_openmetrics_is_valid(void **state)
{
	struct metrics_view *view = *state;
	char *page = render(view, true);

	check_page(page, true);
	free(page);
	count_something_everywhere(view->stats);
	page = render(view, true);
	check_page(page, true);
	free(page);
}

static void test_both_formats_have_the_same_samples(void **state)
{
	struct metrics_view *view = *state;
	char *text, *open, *line, *save = NULL;

	count_something_everywhere(view->stats);
	text = render(view, false);
	open = render(view, true);
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (line[0] != '#' && !strstr(line, "le="))
			assert_non_null(strstr(open, line));
	free(text);
	free(open);
}

static void test_the_formats_name_families_each_in_its_way(void **state)
{
	char *text = render(*state, false), *open = render(*state, true);

	assert_non_null(strstr(text, "# TYPE shunt_bytes_total counter\n"));
	assert_non_null(strstr(text, "# TYPE shunt_build_info gauge\n"));
	assert_null(strstr(text, "# UNIT"));
	assert_null(strstr(text, "# EOF"));
	assert_non_null(strstr(
		open, "# TYPE shunt_bytes counter\n# UNIT shunt_bytes bytes\n# HELP shunt_bytes "));
	assert_non_null(strstr(open, "# TYPE shunt_build info\n# HELP shunt_build "));
	assert_non_null(strstr(open, "# UNIT shunt_session_duration_seconds seconds\n"));
	assert_null(strstr(open, "# UNIT shunt_overflows"));
	free(text);
	free(open);
}

static void test_openmetrics_bounds_are_floats_and_text_bounds_are_not(void **state)
{
	char *text = render(*state, false), *open = render(*state, true);

	assert_non_null(strstr(text, "{le=\"1\"}"));
	assert_non_null(strstr(text, "{le=\"3600\"}"));
	assert_non_null(strstr(text, "{le=\"0.0001\"}"));
	assert_non_null(strstr(text, "{le=\"2.5\"}"));
	assert_non_null(strstr(open, "{le=\"1.0\"}"));
	assert_non_null(strstr(open, "{le=\"10.0\"}"));
	assert_non_null(strstr(open, "{le=\"3600.0\"}"));
	assert_non_null(strstr(open, "{le=\"0.0001\"}"));
	assert_non_null(strstr(open, "{le=\"2.5\"}"));
	free(text);
	free(open);
}

static void test_a_page_without_maps_and_process_is_valid(void **state)
{
	struct metrics_view view = *(struct metrics_view *)*state;
	char *page;

	view.nmaps = 0;
	view.process = NULL;
	page = render(&view, false);
	assert_null(strstr(page, "\nprocess_"));
	check_page(page, false);
	free(page);
	page = render(&view, true);
	check_page(page, true);
	free(page);
}

static void test_broken_utf8_never_reaches_the_page(void **state)
{
	static const char *const broken[] = {"\x80", "\xc0\xaf", "\xe0\x9f\x80", "\xed\xa0\x80",
		"\xf0\x8f\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3", "\xe2\x82",
		"\xf0\x9f\x98", "\x7f"};
	static const char *const sound[] = {
		"\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"};
	struct metrics_view *view = *state;
	struct metrics_view odd_view = *view;
	char series[128];
	unsigned int i;
	char *page;

	for (i = 0; i < ARRAY_LEN(broken) + ARRAY_LEN(sound); i++) {
		bool is_sound = i >= ARRAY_LEN(broken);

		odd_view.version = is_sound ? sound[i - ARRAY_LEN(broken)] : broken[i];
		snprintf(series, sizeof(series), "shunt_build_info{version=\"%s\"} 1\n",
			odd_view.version);
		page = render(&odd_view, false);
		assert_int_equal(strstr(page, series) != NULL, is_sound);
		free(page);
	}
}

/* 0: clean, 1: cannot be parsed, 3: lint problems; 127 (of execlp): not installed. */
static int run_promtool(const char *page)
{
	FILE *file = tmpfile();
	int status;
	pid_t pid;

	assert_non_null(file);
	assert_int_equal(fputs(page, file) >= 0 && fflush(file) == 0, 1);
	rewind(file);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(fileno(file), STDIN_FILENO);
		execlp("promtool", "promtool", "check", "metrics", (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	fclose(file);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_promtool_finds_nothing(void **state)
{
	struct metrics_view *view = *state;
	char *page;
	int status;

	count_something_everywhere(view->stats);
	page = render(view, false);
	status = run_promtool(page);
	free(page);
	if (status == 127)
		skip();
	assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_every_line_of_the_text_format_is_valid),
		TEST(test_every_line_of_openmetrics_is_valid),
		TEST(test_both_formats_have_the_same_samples),
		TEST(test_the_formats_name_families_each_in_its_way),
		TEST(test_openmetrics_bounds_are_floats_and_text_bounds_are_not),
		TEST(test_a_page_without_maps_and_process_is_valid),
		TEST(test_broken_utf8_never_reaches_the_page),
		TEST(test_promtool_finds_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
