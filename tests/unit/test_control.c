/* SPDX-License-Identifier: BSD-2-Clause */
/* Changes over the control socket: what is taken, what is refused and why, and what is logged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control_fixture.h"

/* The status; the answer's body in `body`. */
static int ask(const struct daemon *daemon, const char *method, const char *path, const char *json,
	char *body, size_t size)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status = 0;
	char text[16384], *start;
	size_t len = 0;
	ssize_t n;

	assert_int_equal(
		connect(fd, (const struct sockaddr *)&daemon->socket, sizeof(daemon->socket)), 0);
	n = snprintf(text, sizeof(text),
		"%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", method, path,
		strlen(json), json);
	assert_int_equal(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
	while ((n = recv(fd, text + len, sizeof(text) - 1 - len, 0)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	close(fd);
	assert_int_equal(sscanf(text, "HTTP/1.1 %d ", &status), 1);
	start = strstr(text, "\r\n\r\n");
	assert_non_null(start);
	snprintf(body, size, "%s", start + 4);
	return status;
}

static void expect(const struct daemon *daemon, const char *path, const char *json, int status,
	const char *body)
{
	char text[4096];
	int got = ask(daemon, "POST", path, json, text, sizeof(text));

	if (got != status || strcmp(text, body) != 0) {
		/* Not to stderr, which is the daemon's log now. */
		print_message("%s %s: %d %s\n", path, json, got, text);
		fail();
	}
}

static struct server_state *state_of(const struct daemon *daemon, const struct conf_server *server)
{
	return &daemon->world->stats->server_state[server->slot];
}

static void test_a_servers_state_and_weight_are_set_and_told(void **state)
{
	struct daemon *daemon = *state;
	struct server_state *a = state_of(daemon, &app_servers[0]);
	char order[32];

	expect(daemon, "/v1/servers/app/a", "{\"state\":\"drain\"}", 200,
		"{\"result\":\"server app/a: state ready -> drain\"}");
	assert_int_equal(a->admin, SERVER_DRAIN);
	snprintf(order, sizeof(order), "changed %u", app_servers[0].slot);
	assert_string_equal(daemon->world->order, order);
	expect(daemon, "/v1/servers/app/a", "{\"weight\":0, \"state\":\"maint\"}", 200,
		"{\"result\":\"server app/a: state drain -> maint, weight 2 (configured) -> 0\"}");
	assert_int_equal(a->admin, SERVER_MAINT);
	assert_int_equal(a->weight, 0);
	expect(daemon, "/v1/servers/app/a", "{\"weight\":256}", 200,
		"{\"result\":\"server app/a: weight 0 -> 256\"}");
	expect(daemon, "/v1/servers/app/a", "{\"weight\":null,\"state\":\"ready\"}", 200,
		"{\"result\":\"server app/a: state maint -> ready, weight 256 -> 2 "
		"(configured)\"}");
	assert_int_equal(a->weight, SERVER_WEIGHT_CONFIGURED);
	assert_int_equal(a->admin, SERVER_READY);
	assert_int_equal(daemon->world->orders, 4);
}

static void test_odd_names_can_be_addressed(void **state)
{
	struct daemon *daemon = *state;

	expect(daemon, "/v1/servers/a/b/unix:/run/x.sock", "{\"state\":\"drain\"}", 200,
		"{\"result\":\"server a/b/unix:/run/x.sock: state ready -> drain\"}");
	expect(daemon, "/v1/servers/a%2Fb%2funix:/run/x.sock", "{\"state\":\"ready\"}", 200,
		"{\"result\":\"server a/b/unix:/run/x.sock: state drain -> ready\"}");
	expect(daemon, "/v1/servers/app/o%5Cd%22%3Cb%3E&%1b%5B31m%C3%A9%ff",
		"{\"state\":\"drain\"}", 200,
		"{\"result\":\"server app/o\\\\d\\\"<b>&?[31m\\u00E9\\uFFFD: state ready -> "
		"drain\"}");
	assert_int_equal(state_of(daemon, &app_servers[1])->admin, SERVER_DRAIN);
	/* What a terminal would obey is not in the log either. */
	assert_int_equal(count_in_log(daemon, "\x1b"), 0);
}

static void test_a_name_that_fits_two_servers_changes_none(void **state)
{
	struct daemon *daemon = *state;
	char *kept = backends[1].name;
	static char both[] = "app/a", name[] = "app";

	app_servers[1].name = both;
	backends[1].name = name;
	db_servers[0].name = both;
	expect(daemon, "/v1/servers/app/app/a", "{\"weight\":1}", 409,
		"{\"error\":\"'app/app/a' is the name of more than one server\"}");
	app_servers[1].name = odd;
	backends[1].name = kept;
	db_servers[0].name = unix_name;
	assert_int_equal(daemon->world->orders, 0);
}

static void test_what_is_wrong_with_a_request_is_said(void **state)
{
	static const struct {
		const char *path, *json;
		int status;
		const char *error;
	} cases[] = {
		{"servers/app/a", "", 400, "the body must say 'state' or 'weight'"},
		{"servers/app/a", "{}", 400, "the body must say 'state' or 'weight'"},
		{"servers/app/a", "[]", 400, "the body must be a JSON object"},
		{"servers/app/a", "1", 400, "the body must be a JSON object"},
		{"servers/app/a", "{\"state\":\"up\"}", 400,
			"member 'state': the value must be \\\"ready\\\", \\\"drain\\\" or "
			"\\\"maint\\\""},
		{"servers/app/a", "{\"state\":null}", 400,
			"member 'state': the value must be \\\"ready\\\", \\\"drain\\\" or "
			"\\\"maint\\\""},
		{"servers/app/a", "{\"weight\":-1}", 400,
			"member 'weight': the value must be 0 to 256, or null"},
		{"servers/app/a", "{\"weight\":257}", 400,
			"member 'weight': the value must be 0 to 256, or null"},
		{"servers/app/a", "{\"weight\":4294967297}", 400,
			"member 'weight': the value must be 0 to 256, or null"},
		{"servers/app/a", "{\"weight\":1.0}", 400,
			"member 'weight': the value must be 0 to 256, or null"},
		{"servers/app/a", "{\"weight\":\"1\"}", 400,
			"member 'weight': the value must be 0 to 256, or null"},
		{"servers/app/a", "{\"State\":\"drain\"}", 400,
			"unknown member 'State'; expected: 'state' or 'weight'"},
		{"servers/app/a", "{\"weight\":1,\"weight\":2}", 400,
			"body, line 1, column 20: duplicate object key near '\\\"weight\\\"'"},
		{"servers/app/a", "{\"weight\":1}\n x", 400,
			"body, line 2, column 2: end of file expected near 'x'"},
		{"servers/app/a", "{\"weight\":1} {}", 400,
			"body, line 1, column 14: end of file expected near '{'"},
		{"servers/app/a", "{\"weight\":", 400,
			"body, line 1, column 10: unexpected token near end of file"},
		{"servers/app/b", "{\"weight\":1}", 404, "there is no server 'app/b'"},
		{"servers/ap/a", "{\"weight\":1}", 404, "there is no server 'ap/a'"},
		{"servers/app", "{\"weight\":1}", 404, "not a server: BACKEND/NAME is expected"},
		{"servers/app/", "{\"weight\":1}", 404, "not a server: BACKEND/NAME is expected"},
		{"servers/", "{\"weight\":1}", 404, "not a server: BACKEND/NAME is expected"},
		{"servers/app/a%0", "{\"weight\":1}", 400, "the path has a broken escape"},
		{"servers/app/a%00", "{\"weight\":1}", 400, "the path has a broken escape"},
		{"sessions//close", "", 404, "not a session: an id is expected"},
		{"sessions/0x1/close", "", 400,
			"not a session: 1 to 16 hexadecimal digits are expected"},
		{"sessions/12345678123456781/close", "", 400,
			"not a session: 1 to 16 hexadecimal digits are expected"},
		{"sessions/1/close", "{\"a\":1}", 400, "unknown member 'a': none is expected"},
		{"sessions/1", "", 405, "this is a change: DELETE is expected"},
		{"reload", "{\"file\":\"x\"}", 400, "unknown member 'file': none is expected"},
		{"reload/", "", 404, "not found"},
		{"ready", "{\"ready\":1}", 400, "member 'ready': the value must be true or false"},
		{"ready", "", 400, "the body must say 'ready'"},
		{"log-level", "{\"level\":\"loud\"}", 400,
			"member 'level': the value must be \\\"error\\\", \\\"warning\\\", "
			"\\\"notice\\\", \\\"info\\\" or \\\"debug\\\""},
		{"info", "", 405, "this page can only be read: GET"},
		{"nothing", "", 404, "not found"},
	};
	struct daemon *daemon = *state;
	char path[64], body[256];

	for (unsigned int i = 0; i < ARRAY_LEN(cases); i++) {
		snprintf(path, sizeof(path), "/v1/%s", cases[i].path);
		snprintf(body, sizeof(body), "{\"error\":\"%s\"}", cases[i].error);
		expect(daemon, path, cases[i].json, cases[i].status, body);
	}
	assert_int_equal(daemon->world->orders, 0);
	assert_int_equal(state_of(daemon, &app_servers[0])->weight, SERVER_WEIGHT_CONFIGURED);
	assert_int_equal(count_in_log(daemon, "notice"), 0);
}

static void test_a_half_good_request_changes_nothing(void **state)
{
	struct daemon *daemon = *state;

	expect(daemon, "/v1/servers/app/a", "{\"state\":\"drain\",\"weight\":-1}", 400,
		"{\"error\":\"member 'weight': the value must be 0 to 256, or null\"}");
	assert_int_equal(state_of(daemon, &app_servers[0])->admin, SERVER_READY);
}

static void test_changes_need_their_method_and_pages_are_served_beside_them(void **state)
{
	struct daemon *daemon = *state;
	char body[8192];

	assert_int_equal(ask(daemon, "GET", "/v1/reload", "", body, sizeof(body)), 405);
	assert_string_equal(body, "{\"error\":\"this is a change: POST is expected\"}");
	assert_int_equal(ask(daemon, "PUT", "/v1/reload", "", body, sizeof(body)), 405);
	assert_int_equal(ask(daemon, "DELETE", "/v1/reload", "", body, sizeof(body)), 405);
	assert_int_equal(ask(daemon, "GET", "/v1/servers/app/a", "", body, sizeof(body)), 405);
	assert_int_equal(daemon->world->orders, 0);
	assert_int_equal(ask(daemon, "GET", "/healthz", "", body, sizeof(body)), 200);
	assert_int_equal(ask(daemon, "GET", "/v1/sessions?limit=1", "", body, sizeof(body)), 200);
	assert_non_null(strstr(body, "\"matched\":3"));
	assert_int_equal(ask(daemon, "GET", "/v1/sessions?limit=x", "", body, sizeof(body)), 400);
}

static void test_orders_reach_the_daemon_and_are_answered(void **state)
{
	static const struct {
		const char *path, *json, *order, *result;
	} cases[] = {
		{"sessions/1F/close", "", "close 31", "session 1f: closed"},
		{"sessions/ffffffffffffffff/close", "{}", "close 18446744073709551615",
			"session ffffffffffffffff: closed"},
		{"reload", "", "reload", "reload: configuration 1 -> 2"},
		{"upgrade", "{}", "upgrade", "upgrade: version 0.1.0 -> new binary"},
		{"drain", "", "drain", "drain: serving -> draining"},
		{"ready", "{\"ready\":false}", "ready 0", "ready: ready -> not-ready"},
		{"ready", "{\"ready\":true}", "ready 1", "ready: not-ready -> ready"},
		{"log-level", "{\"level\":\"debug\"}", "level 4", "log level: info -> debug"},
	};
	struct daemon *daemon = *state;
	char path[64], body[256];

	for (unsigned int i = 0; i < ARRAY_LEN(cases); i++) {
		snprintf(path, sizeof(path), "/v1/%s", cases[i].path);
		snprintf(body, sizeof(body), "{\"result\":\"%s\"}", cases[i].result);
		expect(daemon, path, cases[i].json, 200, body);
		assert_string_equal(daemon->world->order, cases[i].order);
	}
	assert_int_equal(ask(daemon, "DELETE", "/v1/sessions/a", "", body, sizeof(body)), 200);
	assert_string_equal(daemon->world->order, "close 10");
}

static void test_each_change_is_logged_once_with_who_made_it(void **state)
{
	struct daemon *daemon = *state;
	char line[128];

	expect(daemon, "/v1/servers/app/a", "{\"state\":\"drain\"}", 200,
		"{\"result\":\"server app/a: state ready -> drain\"}");
	snprintf(line, sizeof(line),
		"notice: control: uid %d, pid %d: server app/a: state ready -> drain\n",
		(int)getuid(), (int)getpid());
	assert_int_equal(count_in_log(daemon, line), 1);
	assert_int_equal(count_in_log(daemon, "\n"), 1);
}

static void test_what_the_daemon_refuses_is_an_error_and_no_change(void **state)
{
	static const struct {
		int error, status;
		const char *why, *text;
	} cases[] = {
		{-EINVAL, 422, "shunt.conf:3: unknown key", "shunt.conf:3: unknown key"},
		{-EBUSY, 409, "a reload is under way", "a reload is under way"},
		{-ETIMEDOUT, 504, NULL, "Connection timed out"},
		{-EOPNOTSUPP, 501, "not supported yet", "not supported yet"},
		{-EIO, 500, "line\n\x1b[2J", "line\\n\\u001B[2J"},
	};
	struct daemon *daemon = *state;
	char body[256];

	for (unsigned int i = 0; i < ARRAY_LEN(cases); i++) {
		daemon->world->error = cases[i].error;
		daemon->world->why = cases[i].why;
		snprintf(body, sizeof(body), "{\"error\":\"%s\"}", cases[i].text);
		expect(daemon, "/v1/reload", "", cases[i].status, body);
	}
	assert_int_equal(count_in_log(daemon, "notice"), 0);
	assert_int_equal(count_in_log(daemon, "POST /v1/reload refused: "), 5);
	assert_int_equal(count_in_log(daemon, "\x1b"), 0);
	assert_int_equal(count_in_log(daemon, "\n"), 5);
}

static void test_a_session_that_is_gone_is_a_404_that_names_it(void **state)
{
	struct daemon *daemon = *state;

	daemon->world->error = -ENOENT;
	expect(daemon, "/v1/sessions/ab/close", "", 404, "{\"error\":\"there is no session ab\"}");
}

static void test_an_order_that_is_not_built_is_a_501(void **state)
{
	static const char *const paths[] = {
		"/v1/sessions/1/close", "/v1/reload", "/v1/upgrade", "/v1/drain"};
	struct daemon *daemon = *state;

	daemon->world->control.ops = (struct control_ops){0};
	for (unsigned int i = 0; i < ARRAY_LEN(paths); i++)
		expect(daemon, paths[i], "", 501, "{\"error\":\"not supported yet\"}");
	expect(daemon, "/v1/ready", "{\"ready\":true}", 501, "{\"error\":\"not supported yet\"}");
	expect(daemon, "/v1/log-level", "{\"level\":\"info\"}", 501,
		"{\"error\":\"not supported yet\"}");
	/* This one needs nobody. */
	expect(daemon, "/v1/servers/app/a", "{\"weight\":3}", 200,
		"{\"result\":\"server app/a: weight 2 (configured) -> 3\"}");
}

static void test_deep_and_large_bodies_are_refused(void **state)
{
	struct control_request request;
	size_t len = HTTP_BODY_MAX;
	char *body = malloc(len), err[256];

	(void)state;
	assert_non_null(body);
	memset(body, '[', len);
	assert_int_equal(
		control_parse("POST", "/v1/reload", body, len, &request, err, sizeof(err)), 400);
	memset(body, '\0', len);
	assert_int_equal(
		control_parse("POST", "/v1/reload", body, len, &request, err, sizeof(err)), 400);
	memset(body, '"', len);
	assert_int_equal(control_parse("POST", "/v1/reload", body, len, &request, err, 1), 400);
	assert_int_equal(err[0], '\0');
	free(body);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, daemon_new, daemon_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_servers_state_and_weight_are_set_and_told),
		TEST(test_odd_names_can_be_addressed),
		TEST(test_a_name_that_fits_two_servers_changes_none),
		TEST(test_what_is_wrong_with_a_request_is_said),
		TEST(test_a_half_good_request_changes_nothing),
		TEST(test_changes_need_their_method_and_pages_are_served_beside_them),
		TEST(test_orders_reach_the_daemon_and_are_answered),
		TEST(test_each_change_is_logged_once_with_who_made_it),
		TEST(test_what_the_daemon_refuses_is_an_error_and_no_change),
		TEST(test_a_session_that_is_gone_is_a_404_that_names_it),
		TEST(test_an_order_that_is_not_built_is_a_501),
		cmocka_unit_test(test_deep_and_large_bodies_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
