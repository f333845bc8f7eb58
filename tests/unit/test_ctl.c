/* SPDX-License-Identifier: BSD-2-Clause */
/* shuntctl against a control socket: tables, JSON, messages and exit codes; and what is written
 * about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../ctl/ctl.h"
#include "../../ctl/format.h"
#include "../../ctl/table.h"
#include "../../ctl/top_rates.h"
#include "control_fixture.h"

#define ARGS_MAX 10
#define ODD_SHOWN "o\\d\"<b>&?[31m\xc3\xa9\xef\xbf\xbd"

struct result {
	enum ctl_exit status;
	char *out, *err;
};

static struct result run_words(char **argv, int argc)
{
	struct result result = {0};
	size_t out_len, err_len;
	FILE *out = open_memstream(&result.out, &out_len);
	FILE *err = open_memstream(&result.err, &err_len);

	result.status = ctl_run(argc, argv, out, err);
	fclose(out);
	fclose(err);
	return result;
}

/* "server|app/a|drain" with the socket of the daemon; NULL: none is given. */
static struct result run(const struct daemon *daemon, const char *words)
{
	char name[] = "shuntctl", option[] = "--socket", copy[512], *rest = copy, *word;
	char socket_path[108] = "";
	char *argv[ARGS_MAX + 5] = {name};
	int argc = 1;

	if (daemon) {
		snprintf(socket_path, sizeof(socket_path), "%s", daemon->socket.sun_path);
		argv[argc++] = option;
		argv[argc++] = socket_path;
	}
	snprintf(copy, sizeof(copy), "%s", words);
	while (*words && (word = strsep(&rest, "|")))
		argv[argc++] = word;
	assert_true(argc < (int)ARRAY_LEN(argv));
	return run_words(argv, argc);
}

static void done(struct result *result)
{
	free(result->out);
	free(result->err);
}

static void show(const char *words, const struct result *result)
{
	/* Not to stderr, which is the daemon's log now. */
	print_message("%s: %d\n%s---\n%s---\n", words, result->status, result->out, result->err);
}

static void expect(const struct daemon *daemon, const char *words, enum ctl_exit status,
	const char *out, const char *err)
{
	struct result result = run(daemon, words);

	if (result.status != status || strcmp(result.out, out) != 0 ||
		strcmp(result.err, err) != 0) {
		show(words, &result);
		fail();
	}
	done(&result);
}

static void test_changes_are_made_and_told(void **state)
{
	struct daemon *daemon = *state;

	expect(daemon, "server|app/a|drain", CTL_OK, "server app/a: state ready -> drain\n", "");
	assert_int_equal(
		daemon->world->stats->server_state[app_servers[0].slot].admin, SERVER_DRAIN);
	expect(daemon, "server|app/a|weight|7", CTL_OK,
		"server app/a: weight 2 (configured) -> 7\n", "");
	expect(daemon, "server|app/a|weight|default", CTL_OK,
		"server app/a: weight 7 -> 2 (configured)\n", "");
	expect(daemon, "server|a/b/unix:/run/x.sock|maint", CTL_OK,
		"server a/b/unix:/run/x.sock: state ready -> maint\n", "");
	expect(daemon, "server|app/" ODD "|drain", CTL_OK,
		"server app/o\\d\"<b>&?[31m\xc3\xa9\xef\xbf\xbd: state ready -> drain\n", "");
	expect(daemon, "close|1F", CTL_OK, "session 1f: closed\n", "");
	assert_string_equal(daemon->world->order, "close 31");
	expect(daemon, "reload", CTL_OK, "reload: configuration 1 -> 2\n", "");
	expect(daemon, "upgrade", CTL_OK, "upgrade: version 0.1.0 -> new binary\n", "");
	expect(daemon, "drain", CTL_OK, "drain: serving -> draining\n", "");
	expect(daemon, "not-ready", CTL_OK, "ready: ready -> not-ready\n", "");
	expect(daemon, "ready", CTL_OK, "ready: not-ready -> ready\n", "");
	expect(daemon, "log-level|debug", CTL_OK, "log level: info -> debug\n", "");
	assert_string_equal(daemon->world->order, "level 4");
}

static void test_a_refusal_is_exit_1_with_the_daemons_words(void **state)
{
	struct daemon *daemon = *state;

	expect(daemon, "server|app/none|drain", CTL_FAILED, "",
		"shuntctl: there is no server 'app/none' (status 404)\n");
	expect(daemon, "server|app/a|weight|257", CTL_FAILED, "",
		"shuntctl: member 'weight': the value must be 0 to 256, or null (status 400)\n");
	expect(daemon, "sessions|--limit|x", CTL_FAILED, "",
		"shuntctl: limit: 'x' is not allowed; allowed: 0 to 100000 (status 400)\n");
	expect(daemon, "--json|log-level|loud", CTL_FAILED, "",
		"shuntctl: member 'level': the value must be \"error\", \"warning\", \"notice\", "
		"\"info\" or \"debug\" (status 400)\n");
	daemon->world->error = -EINVAL;
	daemon->world->why = "shunt.conf:3: bad\n\x1b[2J";
	expect(daemon, "reload", CTL_FAILED, "", "shuntctl: shunt.conf:3: bad (status 422)\n");
	daemon->world->error = -ETIMEDOUT;
	expect(daemon, "sessions", CTL_FAILED, "", "shuntctl: Connection timed out (status 500)\n");
	daemon->world->control.ops = (struct control_ops){0};
	expect(daemon, "upgrade", CTL_FAILED, "", "shuntctl: not supported yet (status 501)\n");
}

static void test_a_wrong_command_line_is_exit_2_and_asks_nobody(void **state)
{
	static const char *const cases[] = {"", "nothing", "inf", "info|x", "server|app/a",
		"server|app/a|up", "server|app|drain", "server|/a|drain", "server|app/|drain",
		"server|app/a|weight", "server|app/a|weight|", "server|app/a|weight|x",
		"server|app/a|weight|1.5", "server|app/a|drain|now", "close", "close|", "close|0x1",
		"close|xyz", "close|12345678123456781", "reload|now", "log-level",
		"info|--listener|web", "--socket", "sessions|--limit", "--nothing|info", "-x",
		"close|-1", "top", "--json|top"};
	struct daemon *daemon = *state;

	for (unsigned int i = 0; i < ARRAY_LEN(cases); i++) {
		struct result result = run(daemon, cases[i]);

		if (result.status != CTL_USAGE || *result.out ||
			!strstr(result.err, "\nTry 'shuntctl --help'.\n")) {
			show(cases[i], &result);
			fail();
		}
		done(&result);
	}
	assert_int_equal(daemon->world->orders, 0);
}

static void test_without_a_daemon_it_is_exit_3(void **state)
{
	struct daemon *daemon = *state;
	char words[256];

	expect(NULL, "-s|/nonexistent/control|info", CTL_UNREACHABLE, "",
		"shuntctl: cannot connect to /nonexistent/control: No such file or directory\n");
	memset(words, 'x', sizeof(words));
	memcpy(words, "-s|/", 4);
	strcpy(words + 200, "|info");
	{
		struct result result = run(NULL, words);

		assert_int_equal(result.status, CTL_UNREACHABLE);
		done(&result);
	}
	http_stop(daemon->http);
	daemon->http = NULL;
	shutdown(daemon->listen_fd, SHUT_RDWR);
	snprintf(words, sizeof(words), "shuntctl: cannot connect to %s: Connection refused\n",
		daemon->socket.sun_path);
	expect(daemon, "info", CTL_UNREACHABLE, "", words);
}

/* Blanks that align are one: the alignment has a test of its own. */
static void expect_table(const struct daemon *daemon, const char *words, const char *table)
{
	struct result result = run(daemon, words);
	char *to = result.out;

	assert_int_equal(result.status, CTL_OK);
	assert_string_equal(result.err, "");
	for (const char *from = result.out; *from; from++)
		if (*from != ' ' || from[1] != ' ')
			*to++ = *from;
	*to = '\0';
	if (strcmp(result.out, table) != 0) {
		show(words, &result);
		fail();
	}
	done(&result);
}

static void test_columns_are_aligned_whatever_the_bytes(void **state)
{
	struct table *table = table_new("A|>NUMBER|LAST");
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	table_add(table, "\xc3\xa9\xc3\xa9\xc3\xa9");
	table_add(table, "1");
	table_add(table, "long text");
	table_add(table, "x\ny\x1b");
	table_add(table, "12345678");
	table_add(table, NULL);
	table_print(table, out);
	fclose(out);
	assert_string_equal(text, "A       NUMBER  LAST\n"
				  "\xc3\xa9\xc3\xa9\xc3\xa9          1  long text\n"
				  "x?y?  12345678  -\n");
	free(text);
}

static void test_sessions_are_a_table(void **state)
{
	expect_table(*state, "sessions",
		"ID LISTENER CLIENT SERVER STATE C2S PATH S2C PATH AGE IDLE\n"
		"2 web 10.1.2.30:1 app/" ODD_SHOWN " open 5.0G shortcut 0 shortcut 0ms 0ms\n"
		"1f web 10.1.2.3:4444 app/a open 1.0K sockmap,overflow 7 relay,finished 1m01s "
		"250ms\n"
		"ffffffffffffffff " ODD_SHOWN
		" [2001:db8::1]:5 - queued 0 relay 0 relay 0ms 0ms\n");
}

static void test_sessions_take_filters_wherever_they_stand(void **state)
{
	static const struct {
		const char *words, *id, *err;
	} cases[] = {
		{"sessions|--listener|" ODD, "ffffffffffffffff ", ""},
		{"--listener=" ODD "|sessions", "ffffffffffffffff ", ""},
		{"sessions|--server|app/a", "1f ", ""},
		{"sessions|--path|shortcut|--backend|app", "2 ", ""},
		{"sessions|--client|[2001:", "ffffffffffffffff ", ""},
		{"sessions|--limit|1", "2 ", "1 of 3 sessions: --limit shows more\n"},
	};

	for (unsigned int i = 0; i < ARRAY_LEN(cases); i++) {
		struct result result = run(*state, cases[i].words);
		const char *row = strchr(result.out, '\n');

		if (!row || strncmp(row + 1, cases[i].id, strlen(cases[i].id)) != 0 ||
			strchr(row + 1, '\n')[1] || strcmp(result.err, cases[i].err) != 0) {
			show(cases[i].words, &result);
			fail();
		}
		done(&result);
	}
}

static void test_listeners_and_backends_are_tables(void **state)
{
	struct daemon *daemon = *state;
	struct stats_listener *row = stats_listener_of(daemon->world->stats, 1, listeners[0].slot);

	row->sessions = 3;
	row->ended[END_COMPLETE] = 1;
	row->bytes[DIR_C2S][PATH_RELAY] = 512;
	row->bytes[DIR_S2C][PATH_SOCKMAP] = 1536;
	expect_table(daemon, "listeners",
		"LISTENER ADDRESS BACKEND SESSIONS TOTAL REJECTED C2S S2C KERNEL OVERFLOWS\n"
		"web *:8080 +1 app 2 3 0 512 1.5K 75% 0\n" ODD_SHOWN " - a/b 0 0 0 0 0 - 0\n");
	daemon->world->stats->server_state[app_servers[0].slot].down = 1;
	daemon->world->stats->server_state[app_servers[0].slot].admin = SERVER_DRAIN;
	expect_table(daemon, "backends",
		"BACKEND SERVER ADDRESS STATE WEIGHT SESSIONS TOTAL C2S S2C FAILED\n"
		"app a 10.0.0.1:80 drain,down 2 0 0 0 0 0\n"
		"app " ODD_SHOWN " 10.0.0.2:80 up,backup 1 0 0 0 0 0\n"
		"a/b unix:/run/x.sock unix:/run/x.sock unchecked 1/0 0 0 0 0 0\n");
}

static void test_info_is_one_line_for_each_thing(void **state)
{
	struct daemon *daemon = *state;
	struct result result;

	daemon->world->info.kernel_path = false;
	daemon->world->info.kernel_path_why = "no BPF";
	daemon->world->not_ready = "draining";
	result = run(daemon, "info");
	assert_int_equal(result.status, CTL_OK);
	assert_non_null(strstr(result.out, "version          0.1.0\n"));
	assert_non_null(strstr(result.out, "kernel path      off: no BPF\n"));
	assert_non_null(strstr(result.out, "ready            no: draining\n"));
	assert_non_null(strstr(result.out, "configuration    /etc/shunt/shunt.conf\n"));
	assert_non_null(strstr(result.out, "pid              77\n"));
	done(&result);
}

static void test_json_is_the_daemons_own(void **state)
{
	static const struct {
		const char *words, *member;
	} cases[] = {{"--json|info", "version"}, {"listeners|-j", "listeners"},
		{"-j|backends", "backends"}, {"sessions|--json|--limit|1", "sessions"},
		{"--json|reload", "result"}};

	for (unsigned int i = 0; i < ARRAY_LEN(cases); i++) {
		struct result result = run(*state, cases[i].words);
		json_t *object = json_loads(result.out, 0, NULL);

		assert_int_equal(result.status, CTL_OK);
		assert_non_null(json_object_get(object, cases[i].member));
		assert_string_equal(strchr(result.out, '\n'), "\n");
		json_decref(object);
		done(&result);
	}
}

static void test_numbers_are_for_people(void **state)
{
	(void)state;
	assert_string_equal(format_bytes(0).text, "0");
	assert_string_equal(format_bytes(999).text, "999");
	assert_string_equal(format_bytes(1000).text, "1.0K");
	assert_string_equal(format_bytes(1023948).text, "999.9K");
	assert_string_equal(format_bytes(1023999).text, "1.0M");
	assert_string_equal(format_bytes(5ull << 40).text, "5.0T");
	assert_string_equal(format_bytes(UINT64_MAX).text, "16.0E");
	assert_string_equal(format_age(999).text, "999ms");
	assert_string_equal(format_age(59999).text, "59s");
	assert_string_equal(format_age(60000).text, "1m00s");
	assert_string_equal(format_age(7505000).text, "2h05m");
	assert_string_equal(format_age(273600000).text, "3d04h");
	assert_string_equal(format_percent(1, 0).text, "-");
}

static struct top_look look_at(const char *text, uint64_t at_ns)
{
	json_t *answer = json_loads(text, 0, NULL);
	struct top_look look = top_look_read(answer, at_ns);

	assert_non_null(answer);
	json_decref(answer);
	return look;
}

#define SESSION(id, c2s, s2c, age)                                               \
	"{\"id\":\"" id "\",\"c2s\":{\"bytes\":" c2s "},\"s2c\":{\"bytes\":" s2c \
	"},\"age_ms\":" age "}"

static void test_top_knows_rates_by_the_id(void **state)
{
	struct top_look a =
		look_at("{\"total\":7,\"sessions\":[" SESSION("1", "10", "0", "1") "," SESSION(
				"ff", "1000", "5", "9") "," SESSION("3", "50", "0", "1") "]}",
			1000000000);
	struct top_look b = look_at("{\"sessions\":[" SESSION("ff", "2000", "6", "9") "," SESSION(
					    "1", "9010", "0", "2") "," SESSION("4", "70000", "0",
					    "3") "," SESSION("3", "49", "0", "1") "]}",
		3000000000);
	struct top_look none = {0};

	(void)state;
	assert_int_equal(a.total, 7);
	top_look_compare(&a, &none);
	top_look_compare(&b, &a);
	top_look_sort(&b, TOP_SORT_RATE);
	assert_int_equal(b.sessions[0].id, 1);
	assert_int_equal(b.sessions[0].dirs[0].rate, 4500);
	assert_int_equal(b.sessions[1].id, 0xff);
	assert_int_equal(b.sessions[1].dirs[0].rate, 500);
	assert_int_equal(b.sessions[2].id, 4); /* new: no rate yet */
	assert_int_equal(b.sessions[2].dirs[0].rate, 0);
	assert_int_equal(b.sessions[3].dirs[0].rate, 0);
	top_look_sort(&b, TOP_SORT_BYTES);
	assert_int_equal(b.sessions[0].id, 4);
	top_look_sort(&b, TOP_SORT_AGE);
	assert_int_equal(b.sessions[0].id, 0xff);
	top_look_free(&a);
	top_look_free(&b);
}

static char *read_text(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = calloc(1, 1 << 16);

	if (!file)
		fail_msg("%s: %s (run from the top of the tree)", path, strerror(errno));
	assert_non_null(text);
	assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
	fclose(file);
	return text;
}

static unsigned int count(const char *text, const char *what)
{
	unsigned int n = 0;

	for (; (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

static void test_help_manual_and_completions_name_every_command(void **state)
{
	char *manual = read_text("man/shuntctl.1");
	char *bash = read_text("conf/completion/shuntctl.bash");
	char *zsh = read_text("conf/completion/_shuntctl");
	struct result help = run(NULL, "--help");

	(void)state;
	assert_int_equal(help.status, CTL_OK);
	/* Not one more, either. */
	assert_int_equal(count(manual, "\n.It Cm "), ctl_ncommands);
	assert_int_equal(count(zsh, "\n\t\t'"), ctl_ncommands);
	for (unsigned int i = 0; i < ctl_ncommands; i++) {
		const char *name = ctl_commands[i].name;
		char text[256];

		snprintf(text, sizeof(text), "\n.It Cm %s", name);
		assert_int_equal(text[strlen(text)], '\0');
		if (!strstr(manual, text))
			fail_msg("the manual has no command %s", name);
		snprintf(text, sizeof(text), "\n\t\t'%s:%s'\n", name, ctl_commands[i].help);
		if (!strstr(zsh, text))
			fail_msg("_shuntctl has no%s", text);
		snprintf(text, sizeof(text), "\n\t%s\n", name);
		if (count(bash, text) != 1)
			fail_msg("shuntctl.bash does not have %s once", name);
		snprintf(text, sizeof(text), "\n  %s ", name);
		assert_non_null(strstr(help.out, text));
	}
	free(manual);
	free(bash);
	free(zsh);
	done(&help);
}

static void test_the_version_is_told(void **state)
{
	(void)state;
	expect(NULL, "--version", CTL_OK, "shuntctl " SHUNT_VERSION "\n", "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, daemon_new, daemon_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_changes_are_made_and_told),
		TEST(test_a_refusal_is_exit_1_with_the_daemons_words),
		TEST(test_a_wrong_command_line_is_exit_2_and_asks_nobody),
		TEST(test_without_a_daemon_it_is_exit_3),
		cmocka_unit_test(test_columns_are_aligned_whatever_the_bytes),
		TEST(test_sessions_are_a_table),
		TEST(test_sessions_take_filters_wherever_they_stand),
		TEST(test_listeners_and_backends_are_tables),
		TEST(test_info_is_one_line_for_each_thing),
		TEST(test_json_is_the_daemons_own),
		cmocka_unit_test(test_numbers_are_for_people),
		cmocka_unit_test(test_top_knows_rates_by_the_id),
		cmocka_unit_test(test_help_manual_and_completions_name_every_command),
		cmocka_unit_test(test_the_version_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
