/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "metrics_fixture.h"

/* The value on the line that starts with this series, as text in a static buffer; NULL: no such
 * line. */
static const char *value_of(const char *page, const char *series)
{
	static char value[64];
	size_t len = strlen(series);
	const char *line;

	for (line = page; line && *line; line = strchr(line, '\n') + 1)
		if (!strncmp(line, series, len) && line[len] == ' ') {
			snprintf(value, sizeof(value), "%.*s", (int)strcspn(line + len + 1, "\n"),
				line + len + 1);
			return value;
		}
	return NULL;
}

static void expect(const struct metrics_view *view, const char *series, const char *value)
{
	char *page = render(view, false);
	const char *found = value_of(page, series);

	if (!found)
		fail_msg("no series %s", series);
	assert_string_equal(found, value);
	free(page);
}

static void test_closed_label_sets_are_zero_from_the_start(void **state)
{
	char *page = render(*state, false);
	char series[256];
	unsigned int i, j;

	for (i = 0; i < END_REASON_COUNT; i++) {
		snprintf(series, sizeof(series),
			"shunt_sessions_ended_total{listener=\"web\",reason=\"%s\"}",
			end_reason_names[i]);
		assert_string_equal(value_of(page, series), "0");
	}
	for (i = 0; i < REJECT_REASON_COUNT; i++) {
		snprintf(series, sizeof(series),
			"shunt_listener_rejected_total{listener=\"web\",reason=\"%s\"}",
			reject_reason_names[i]);
		assert_string_equal(value_of(page, series), "0");
	}
	for (i = 0; i < FALLBACK_REASON_COUNT; i++) {
		snprintf(series, sizeof(series), "shunt_fallbacks_total{reason=\"%s\"}",
			fallback_reason_names[i]);
		assert_string_equal(value_of(page, series), "0");
	}
	for (i = 0; i < DIR_COUNT; i++)
		for (j = 0; j < PATH_COUNT; j++) {
			snprintf(series, sizeof(series),
				"shunt_bytes_total{listener=\"web\",direction=\"%s\",path=\"%s\"}",
				direction_names[i], path_names[j]);
			assert_string_equal(value_of(page, series), "0");
		}
	free(page);
}

static void test_only_connect_reasons_are_connect_failures(void **state)
{
	static const char prefix[] =
		"shunt_server_connect_failures_total{backend=\"app\",server=\"a\",reason=\"";
	char *page = render(*state, false);
	const char *at = page;
	unsigned int n = 0;

	while ((at = strstr(at, prefix))) {
		at += strlen(prefix);
		assert_true(!strncmp(at, "connect_", 8));
		n++;
	}
	assert_int_equal(n, 3);
	free(page);
}

static void test_counters_add_up_over_threads(void **state)
{
	struct metrics_view *view = *state;

	stats_add(&stats_listener_of(view->stats, 0, 0)->sessions, 3);
	stats_add(&stats_listener_of(view->stats, 1, 0)->sessions, 4);
	stats_add(&stats_listener_of(view->stats, 1, 0)->bytes[DIR_S2C][PATH_SOCKMAP], 1ull << 60);
	stats_add(&stats_listener_of(view->stats, 0, 0)->rejected[REJECT_NO_MEMORY], 2);
	stats_add(&stats_listener_of(view->stats, 1, 0)->overflows, 11);
	stats_add(&view->stats->thread[0].directions_active[PATH_RELAY], 5);
	stats_add(&view->stats->thread[1].directions_active[PATH_RELAY], 6);
	stats_add(&view->stats->thread[1].overflow_active, 9);
	stats_add(&view->stats->thread[1].fallbacks[FALLBACK_MAP_FULL], 8);
	expect(view, "shunt_listener_sessions_total{listener=\"web\"}", "7");
	expect(view, "shunt_bytes_total{listener=\"web\",direction=\"s2c\",path=\"sockmap\"}",
		"1152921504606846976");
	expect(view, "shunt_listener_rejected_total{listener=\"web\",reason=\"no_memory\"}", "2");
	expect(view, "shunt_overflows_total{listener=\"web\"}", "11");
	expect(view, "shunt_directions_active{path=\"relay\"}", "11");
	expect(view, "shunt_overflow_active", "9");
	expect(view, "shunt_fallbacks_total{reason=\"map_full\"}", "8");
}

static void test_servers_are_counted_in_configuration_order(void **state)
{
	struct metrics_view *view = *state;

	stats_add(&stats_server_of(view->stats, 1, 0)->sessions, 1);
	stats_add(&stats_server_of(view->stats, 1, 1)->sessions, 2);
	stats_add(&stats_server_of(view->stats, 0, 2)->sessions, 3);
	stats_add(&stats_server_of(view->stats, 0, 2)->bytes[DIR_C2S], 44);
	stats_add(&stats_server_of(view->stats, 0, 1)->connect_failures[END_CONNECT_TIMEOUT], 5);
	expect(view, "shunt_server_sessions_total{backend=\"app\",server=\"a\"}", "1");
	expect(view, "shunt_server_sessions_total{backend=\"app\",server=\"10.0.0.2:80\"}", "2");
	expect(view, "shunt_server_sessions_total{backend=\"db\",server=\"[::1]:80\"}", "3");
	expect(view,
		"shunt_server_bytes_total{backend=\"db\",server=\"[::1]:80\",direction=\"c2s\"}",
		"44");
	expect(view,
		"shunt_server_connect_failures_total{backend=\"app\",server=\"10.0.0.2:80\","
		"reason=\"connect_timeout\"}",
		"5");
}

static void test_active_is_what_began_and_did_not_end(void **state)
{
	struct metrics_view *view = *state;
	struct stats_listener *listener = stats_listener_of(view->stats, 0, 0);
	struct stats_server *server = stats_server_of(view->stats, 0, 0);

	stats_add(&listener->sessions, 10);
	stats_add(&listener->ended[END_COMPLETE], 3);
	stats_add(&stats_listener_of(view->stats, 1, 0)->ended[END_DRAIN], 1);
	stats_add(&server->sessions, 5);
	stats_add(&server->ended, 2);
	expect(view, "shunt_listener_sessions_active{listener=\"web\"}", "6");
	expect(view, "shunt_server_sessions_active{backend=\"app\",server=\"a\"}", "3");
	stats_add(&listener->ended[END_COMPLETE], 20);
	stats_add(&server->ended, 20);
	expect(view, "shunt_listener_sessions_active{listener=\"web\"}", "0");
	expect(view, "shunt_server_sessions_active{backend=\"app\",server=\"a\"}", "0");
}

static void test_a_histogram_is_cumulative_and_ends_with_its_count(void **state)
{
	struct metrics_view *view = *state;
	struct stats *stats = view->stats;

	stats_observe(&stats_server_of(stats, 0, 0)->connect_duration, 90);
	stats_observe(&stats_server_of(stats, 1, 0)->connect_duration, 100);
	stats_observe(&stats_server_of(stats, 1, 0)->connect_duration, 240);
	stats_observe(&stats_server_of(stats, 1, 0)->connect_duration, 7200000000ull);
#define CONNECT "shunt_server_connect_duration_seconds"
#define OF "backend=\"app\",server=\"a\""
	expect(view, CONNECT "_bucket{" OF ",le=\"0.0001\"}", "2");
	expect(view, CONNECT "_bucket{" OF ",le=\"0.00025\"}", "3");
	expect(view, CONNECT "_bucket{" OF ",le=\"3600\"}", "3");
	expect(view, CONNECT "_bucket{" OF ",le=\"+Inf\"}", "4");
	expect(view, CONNECT "_sum{" OF "}", "7200.000430");
	expect(view, CONNECT "_count{" OF "}", "4");
}

static void test_names_are_escaped(void **state)
{
	struct metrics_view *view = *state;

	/* A broken byte and a control character are shown, for they would spoil the whole page. */
	expect(view,
		"shunt_listener_sessions_total{listener="
		"\"o\\\\d\\\"d\\nname\\\\x0d\\\\x09\xc3\xa9\\\\xff\"}",
		"0");
}

static void test_the_values_of_the_caller_are_exported(void **state)
{
	struct metrics_view *view = *state;
	char text[32];

	stats_add(&view->stats->worker_restarts, 2);
	stats_add(&view->stats->config_reloads_error, 3);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)view->stats->start_time);
	expect(view, "shunt_build_info{version=\"0.1.0\"}", "1");
	expect(view, "shunt_start_time_seconds", text);
	expect(view, "shunt_worker_restarts_total", "2");
	expect(view, "shunt_config_reloads_total{result=\"ok\"}", "0");
	expect(view, "shunt_config_reloads_total{result=\"error\"}", "3");
	expect(view, "shunt_map_entries{map=\"redir_targets\"}", "12");
	expect(view, "shunt_map_capacity{map=\"flows\"}", "8192");
	expect(view, "process_cpu_seconds_total", "1.500000");
	expect(view, "process_resident_memory_bytes", "8388608");
	expect(view, "process_open_fds", "31");
	expect(view, "process_max_fds", "65536");
	expect(view, "process_start_time_seconds", "1700000000.250000");
}

static void test_a_listener_keeps_its_counts_when_the_others_change(void **state)
{
	struct metrics_view view = *(struct metrics_view *)*state;
	struct conf other = conf;
	struct conf_listener kept[] = {listeners[0]};

	stats_add(&stats_listener_of(view.stats, 0, listeners[0].slot)->overflows, 7);
	other.listeners = kept;
	other.nlisteners = 1;
	assert_int_equal(stats_assign(view.stats, &other), 0);
	assert_int_equal(kept[0].slot, listeners[0].slot);
	view.conf = &other;
	expect(&view, "shunt_overflows_total{listener=\"web\"}", "7");
}

static void test_a_file_that_cannot_be_written_is_an_error(void **state)
{
	FILE *full = fopen("/dev/full", "w");

	if (!full)
		skip();
	setvbuf(full, NULL, _IONBF, 0);
	assert_int_equal(metrics_write(*state, false, full), -EIO);
	fclose(full);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_closed_label_sets_are_zero_from_the_start),
		TEST(test_only_connect_reasons_are_connect_failures),
		TEST(test_counters_add_up_over_threads),
		TEST(test_servers_are_counted_in_configuration_order),
		TEST(test_active_is_what_began_and_did_not_end),
		TEST(test_a_histogram_is_cumulative_and_ends_with_its_count),
		TEST(test_names_are_escaped),
		TEST(test_the_values_of_the_caller_are_exported),
		TEST(test_a_listener_keeps_its_counts_when_the_others_change),
		TEST(test_a_file_that_cannot_be_written_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
