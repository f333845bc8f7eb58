/* SPDX-License-Identifier: BSD-2-Clause */
/* The self-test tested: it passes on this kernel, and each countermeasure that is taken out is
 * noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../daemon/probe.h"

#define RUNS 20
#define BUDGET_US 300000
#define NOBODY 65534

static void need_root(void)
{
	if (geteuid() != 0)
		skip();
}

static unsigned int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void assert_all_ok(const struct probe_report *report)
{
	for (unsigned int i = 0; i < PROBE_CHECK_COUNT; i++)
		if (!report->checks[i].result.ok)
			fail_msg("%s: %s: %s", probe_capability_names[report->checks[i].capability],
				report->checks[i].name, report->checks[i].result.why);
	for (unsigned int i = 0; i < PROBE_COUNT; i++)
		assert_true(report->capabilities[i].ok);
}

static void test_all_checks_pass_every_time(void **state)
{
	struct probe_report report;

	(void)state;
	need_root();
	for (unsigned int i = 0; i < RUNS; i++) {
		probe_run(NULL, &report);
		assert_all_ok(&report);
	}
}

static void test_stays_within_its_time(void **state)
{
	unsigned int best = UINT32_MAX;

	(void)state;
	need_root();
	for (unsigned int i = 0; i < 3; i++) {
		struct probe_report report;

		probe_run(NULL, &report);
		best = MIN(best, report.us);
	}
	print_message("best of 3: %u us\n", best);
	assert_in_range(best, 1, BUDGET_US);
}

static void test_leaves_no_descriptor(void **state)
{
	unsigned int before;
	struct probe_report report;

	(void)state;
	need_root();
	before = count_fds();
	probe_run(NULL, &report);
	assert_int_equal(count_fds(), before);
}

static void test_without_privileges_every_capability_says_why(void **state)
{
	pid_t pid;
	int status;

	(void)state;
	need_root();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct probe_report report;
		int bad = setresuid(NOBODY, NOBODY, NOBODY);

		probe_run(NULL, &report);
		for (unsigned int i = 0; i < PROBE_COUNT; i++)
			bad |= report.capabilities[i].ok ||
			       !strstr(report.capabilities[i].why, "CAP_BPF");
		_exit(bad ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static struct probe_report *some_report(void)
{
	static struct probe_report report;

	memset(&report, 0, sizeof(report));
	strcpy(report.kernel, "6.18.0-test");
	for (unsigned int i = 0; i < PROBE_COUNT; i++)
		report.capabilities[i].ok = i != PROBE_SOCKMAP_PARSER;
	for (unsigned int i = 0; i < PROBE_CHECK_COUNT; i++) {
		report.checks[i].name = i == PROBE_CHECK_PARSER_KICK ? "kick" : "other";
		report.checks[i].capability =
			i == PROBE_CHECK_PARSER_KICK ? PROBE_SOCKMAP_PARSER : PROBE_SOCKMAP;
		report.checks[i].result.ok = i != PROBE_CHECK_PARSER_KICK;
	}
	strcpy(report.capabilities[PROBE_SOCKMAP_PARSER].why, "kick: stalled");
	strcpy(report.checks[PROBE_CHECK_PARSER_KICK].result.why, "stalled");
	return &report;
}

static char *print(const struct probe_report *report, bool json)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	probe_print(report, json, out);
	fclose(out);
	return text;
}

static void test_text_has_a_line_per_capability_and_check(void **state)
{
	char *text = print(some_report(), false);

	(void)state;
	assert_non_null(strstr(text, "sockmap: ok\n  other: ok\n"));
	assert_non_null(strstr(text, "\nsockmap-parser: no: kick: stalled\n  kick: no: stalled\n"));
	assert_non_null(strstr(text, "\nsock-stats: ok\n"));
	free(text);
}

static void test_json_has_capabilities_and_checks(void **state)
{
	char *text = print(some_report(), true);
	const char *kernel = NULL, *reason = NULL, *check_reason = NULL;
	int sockmap = 0, parser = 1, kick = 1;
	json_t *json = json_loads(text, 0, NULL);

	(void)state;
	assert_non_null(json);
	assert_int_equal(json_unpack(json, "{s:s, s:{s:{s:b}, s:{s:b, s:s, s:{s:{s:b, s:s}}}}}",
				 "kernel", &kernel, "capabilities", "sockmap", "ok", &sockmap,
				 "sockmap-parser", "ok", &parser, "reason", &reason, "checks",
				 "kick", "ok", &kick, "reason", &check_reason),
		0);
	assert_string_equal(kernel, "6.18.0-test");
	assert_true(sockmap);
	assert_false(parser);
	assert_false(kick);
	assert_string_equal(reason, "kick: stalled");
	assert_string_equal(check_reason, "stalled");
	json_decref(json);
	free(text);
}

#ifdef SHUNT_SABOTAGE
/* Without the countermeasure these checks must fail, and the reason must say this. */
static const struct expectation {
	enum sabotage sabotage;
	enum probe_check_id check;
	const char *why;
} expectations[] = {
	{SABOTAGE_TRIM, PROBE_CHECK_KICK, "lost, repeated or moved"},
	{SABOTAGE_TRIM, PROBE_CHECK_OVERLAP, "lost, repeated or moved"},
	{SABOTAGE_TRIM, PROBE_CHECK_OVERLAP_OOO, "lost, repeated or moved"},
	{SABOTAGE_EMPTY, PROBE_CHECK_FIN, "Broken pipe"},
	{SABOTAGE_FITS, PROBE_CHECK_SLOW_READER, "does not read"},
	{SABOTAGE_HANDBACK, PROBE_CHECK_HAND_BACK, "outdated offer"},
	{SABOTAGE_KICK, PROBE_CHECK_KICK, "came out in time"},
	{SABOTAGE_KICK, PROBE_CHECK_PARSER_KICK, "came out in time"},
	{SABOTAGE_DRAIN, PROBE_CHECK_DRAIN, "clean end of file"},
	{SABOTAGE_DRAIN, PROBE_CHECK_PARSER_DRAIN, "clean end of file"},
	{SABOTAGE_REDIRECT, PROBE_CHECK_REDIRECT, "were redirected"},
	{SABOTAGE_STORAGE, PROBE_CHECK_STORAGE, "accepted socket"},
	{SABOTAGE_ERRORS, PROBE_CHECK_RESET, "was not seen"},
	{SABOTAGE_ERRORS, PROBE_CHECK_PARSER_RESET, "was not seen"},
	{SABOTAGE_V6, PROBE_CHECK_IPV6, "were redirected"},
	{SABOTAGE_V6, PROBE_CHECK_PARSER_IPV6, "no redirect target"},
};

static void expect_failure(const struct probe_report *report, const struct expectation *expected)
{
	const struct probe_check_result *check = &report->checks[expected->check];

	if (check->result.ok)
		fail_msg("sabotage %#x: check %s passed", expected->sabotage, check->name);
	if (!strstr(check->result.why, expected->why))
		fail_msg("sabotage %#x: %s says \"%s\"", expected->sabotage, check->name,
			check->result.why);
	assert_false(report->capabilities[check->capability].ok);
	assert_non_null(strchr(report->capabilities[check->capability].why, ':'));
}

static void test_each_missing_countermeasure_is_noticed(void **state)
{
	unsigned int before;

	(void)state;
	need_root();
	before = count_fds();
	for (unsigned int bit = 0; bit < 10; bit++) {
		const struct bpf_obj_conf conf = {.sabotage = 1u << bit};
		struct probe_report report;
		unsigned int expected = 0;

		probe_run(&conf, &report);
		for (unsigned int i = 0; i < ARRAY_LEN(expectations); i++)
			if (expectations[i].sabotage == conf.sabotage) {
				expect_failure(&report, &expectations[i]);
				expected++;
			}
		assert_int_not_equal(expected, 0);
		assert_in_range(report.us, 1, 10000000);
	}
	assert_int_equal(count_fds(), before);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_checks_pass_every_time),
		cmocka_unit_test(test_stays_within_its_time),
		cmocka_unit_test(test_leaves_no_descriptor),
		cmocka_unit_test(test_without_privileges_every_capability_says_why),
		cmocka_unit_test(test_text_has_a_line_per_capability_and_check),
		cmocka_unit_test(test_json_has_capabilities_and_checks),
#ifdef SHUNT_SABOTAGE
		cmocka_unit_test(test_each_missing_countermeasure_is_noticed),
#endif
	};

	return cmocka_run_group_tests_name("probe", tests, NULL, NULL);
}
