/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf_check.h"
#include "options.h"

#define ARGS_MAX 160

/* Splits at spaces, parses, and keeps what went to stderr. The result points into the static text.
 */
static int parse(const char *line, struct options *ret, char *said, size_t size)
{
	static char text[4096], *argv[ARGS_MAX + 1];
	int argc = 0, err, saved = dup(STDERR_FILENO), fd = memfd_create("stderr", MFD_CLOEXEC);
	ssize_t len;

	snprintf(text, sizeof(text), "shuntd %s", line);
	for (char *word = strtok(text, " "); word && argc < ARGS_MAX; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	fflush(stderr);
	dup2(fd, STDERR_FILENO);
	err = options_parse(argc, argv, ret);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	len = pread(fd, said, size - 1, 0);
	said[MAX(len, 0)] = '\0';
	close(fd);
	close(saved);
	return err;
}

static struct options taken(const char *line)
{
	struct options options;
	char said[1024];

	if (parse(line, &options, said, sizeof(said)) != 0)
		fail_msg("'%s' was refused: %s", line, said);
	assert_string_equal(said, "");
	return options;
}

static void refused(const char *line, const char *words)
{
	struct options options;
	char said[1024];

	if (parse(line, &options, said, sizeof(said)) != -EINVAL)
		fail_msg("'%s' was taken", line);
	if (!strstr(said, words))
		fail_msg("'%s': '%s' does not say '%s'", line, said, words);
	assert_non_null(strstr(said, "--help"));
	if (strchr(strchr(said, '\n') + 1, '\n') != strrchr(said, '\n'))
		fail_msg("'%s': more than one message: %s", line, said);
}

static void no_option_means_run_with_the_default_file(void **state)
{
	struct options options = taken("");

	(void)state;
	assert_int_equal(options.action, OPTIONS_RUN);
	assert_string_equal(options.config, "/etc/shunt/shunt.conf");
	assert_int_equal(options.npairs, 0);
}

static void actions_and_files_are_taken(void **state)
{
	struct options options;

	(void)state;
	options = taken("-tc x.conf");
	assert_int_equal(options.action, OPTIONS_CHECK);
	assert_string_equal(options.config, "x.conf");
	options = taken("--config=x.conf --check -t");
	assert_int_equal(options.action, OPTIONS_CHECK);
	assert_int_equal(taken("--dump-config").action, OPTIONS_DUMP);
	assert_int_equal(taken("--probe").action, OPTIONS_PROBE);
	assert_false(taken("--probe").json);
	assert_true(taken("--json --probe").json);
	assert_int_equal(taken("-V").action, OPTIONS_VERSION);
	assert_int_equal(taken("--version").action, OPTIONS_VERSION);
	assert_int_equal(taken("-h").action, OPTIONS_HELP);
	assert_int_equal(taken("--help --nonsense").action, OPTIONS_HELP);
}

static void pairs_become_a_configuration(void **state)
{
	struct options options =
		taken("--listen 127.0.0.1:0 --to 127.0.0.1:81 --listen *:1 --to unix:/a "
		      "--path relay --parser none --threads 3 --stats unix:/s --stats 127.0.0.1:1 "
		      "--control unix:/c --user nobody");
	struct conf_error error = {""};
	struct conf *conf = options_conf(&options, &error);

	(void)state;
	assert_null(options.config);
	assert_int_equal(options.npairs, 2);
	assert_non_null(conf);
	assert_int_equal(conf->nlisteners, 2);
	assert_true(conf->listeners[1].binds.v[0].dual_stack);
	assert_true(addr_is_unix(&conf->listeners[1].backend->servers[0].addr));
	assert_int_equal(conf->listeners[0].path, PATH_MODE_RELAY);
	assert_int_equal(conf->parser, PARSER_NONE);
	assert_int_equal(conf->threads, 3);
	assert_int_equal(conf->stats.n, 2);
	assert_true(addr_is_unix(&conf->control));
	assert_string_equal(conf->user, "nobody");
	survives_its_dump(conf);
}

static void file_errors_are_not_usage_errors(void **state)
{
	struct options options = taken("-c no/such.conf");
	struct conf_error error = {""};

	(void)state;
	assert_null(options_conf(&options, &error));
	assert_non_null(strstr(error.text, "no/such.conf: No such file"));
}

static void half_a_pair_is_a_usage_error(void **state)
{
	(void)state;
	refused("--to 1.2.3.4:5", "pairs");
	refused("--listen *:1", "pairs");
	refused("--listen *:1 --listen *:2 --to 1.2.3.4:5", "pairs: 2 and 1");
	refused("--check --to 1.2.3.4:5", "pairs");
}

static void forms_do_not_mix(void **state)
{
	(void)state;
	refused("--listen *:1 --to 1.2.3.4:5 --config x", "--listen and --config");
	refused("-c x --threads 2", "--threads goes with --listen");
	refused("--stats *:1", "--stats goes with --listen");
	refused("--json", "--json goes with --probe");
	refused("--json --check", "--json goes with --probe");
	refused("--probe -c x", "--probe needs no configuration");
	refused("--probe --check", "--probe and --check do not go together");
	refused("-t --dump-config", "--check and --dump-config");
	refused("-c a -c b", "--config is given twice");
	refused("--listen *:1 --to 1.2.3.4:5 --path auto --path relay", "--path is given twice");
}

static void values_are_checked(void **state)
{
	static const char *const cases[][2] = {
		{"--threads 0", "--threads: '0' is out of range; allowed: auto, or 1 to 1024"},
		{"--threads 2x", "not a number"},
		{"--path kernel", "--path: 'kernel' is not one of 'auto', 'sockmap', 'relay'"},
		{"--parser yes", "--parser: 'yes'"},
		{"--stats 1.2.3.4", "port is missing"},
		{"--control 1.2.3.4:5", "UNIX socket"},
		{"--user -x", "not an account name"},
		{"--listen *:1 --to 1.2.3.4:6", "'*:1' is taken"},
		{"--listen *:x --to 1.2.3.4:6", "--listen '*:x': the port"},
		{"--listen *:2 --to host:6", "--to 'host:6': names are not supported yet"},
		{"--listen *:2 --to *:6", "--to '*:6'"},
	};
	char line[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		snprintf(line, sizeof(line), "--listen *:1 --to 1.2.3.4:5 %s", cases[i][0]);
		refused(line, cases[i][1]);
	}
}

static void unknown_options_are_named(void **state)
{
	(void)state;
	refused("-x", "unknown option '-x'");
	refused("-tx", "unknown option '-x'");
	refused("--nonsense", "'--nonsense'");
	refused("--nonsense=1", "'--nonsense=1'");
	refused("--c", "'--c'"); /* ambiguous */
	refused("--check=1", "takes no value");
	refused("-c", "'-c' needs a value");
	refused("--listen", "'--listen' needs a value");
	refused("shunt.conf", "unexpected argument 'shunt.conf'");
	refused("-t -- x", "unexpected argument 'x'");
	refused("--overflow-limit 1M", "'--overflow-limit'");
	refused("--shortcut", "not supported yet");
}

static void too_many_pairs_are_refused(void **state)
{
	char line[4096] = "";
	size_t used = 0;

	(void)state;
	for (int i = 0; i < OPTIONS_PAIRS_MAX; i++)
		used += (size_t)snprintf(
			line + used, sizeof(line) - used, "--listen=*:%d --to=1.1.1.1:1 ", i + 1);
	assert_int_equal(taken(line).npairs, OPTIONS_PAIRS_MAX);
	snprintf(line + used, sizeof(line) - used, "--listen=*:900 --to=1.1.1.1:1");
	refused(line, "at most 64");
}

static void help_and_version_are_printed(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	options_print_version(out);
	options_print_help(out);
	fclose(out);
	assert_memory_equal(
		text, "shuntd " SHUNT_VERSION "\n", strlen("shuntd " SHUNT_VERSION "\n"));
	assert_non_null(strstr(text, "--dump-config"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_option_means_run_with_the_default_file),
		cmocka_unit_test(actions_and_files_are_taken),
		cmocka_unit_test(pairs_become_a_configuration),
		cmocka_unit_test(file_errors_are_not_usage_errors),
		cmocka_unit_test(half_a_pair_is_a_usage_error),
		cmocka_unit_test(forms_do_not_mix),
		cmocka_unit_test(values_are_checked),
		cmocka_unit_test(unknown_options_are_named),
		cmocka_unit_test(too_many_pairs_are_refused),
		cmocka_unit_test(help_and_version_are_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
