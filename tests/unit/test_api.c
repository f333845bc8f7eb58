/* SPDX-License-Identifier: BSD-2-Clause */
/* What every address serves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api_fixture.h"

static struct http_response get(struct world *world, const char *path)
{
	struct http_request request = {.method = "GET", .path = path, .pid = -1};
	struct http_response response = {.status = 200};

	assert_int_equal(api_handle(&world->source, &request, &response), 0);
	assert_int_equal(world->held, 0);
	return response;
}

static void expect_text(
	struct world *world, const char *path, unsigned int status, const char *text)
{
	struct http_response response = get(world, path);

	assert_int_equal(response.status, status);
	assert_int_equal(response.len, strlen(text));
	assert_memory_equal(response.body, text, response.len);
	free(response.body);
}

static json_t *parse(struct http_response *response)
{
	json_error_t error;
	json_t *object = json_loadb(response->body, response->len, 0, &error);

	if (!object)
		fail_msg("%s: %.*s", error.text, (int)response->len, response->body);
	assert_string_equal(response->content_type, "application/json");
	free(response->body);
	return object;
}

static json_t *get_json(struct world *world, const char *path)
{
	struct http_response response = get(world, path);

	assert_int_equal(response.status, 200);
	return parse(&response);
}

/* "servers.1.name", down from `from`. */
static const json_t *at(const json_t *from, const char *path)
{
	char copy[128], *rest = copy, *word;

	snprintf(copy, sizeof(copy), "%s", path);
	while ((word = strsep(&rest, "."))) {
		from = json_is_array(from) ? json_array_get(from, (size_t)atoi(word))
					   : json_object_get(from, word);
		if (!from)
			fail_msg("no %s in %s", word, path);
	}
	return from;
}

static void check_int(const json_t *from, const char *path, json_int_t value)
{
	assert_true(json_is_integer(at(from, path)));
	if (json_integer_value(at(from, path)) != value)
		fail_msg("%s: %lld", path, (long long)json_integer_value(at(from, path)));
}

static void check_text(const json_t *from, const char *path, const char *value)
{
	const char *text = json_string_value(at(from, path));

	if (!text || strcmp(text, value) != 0)
		fail_msg("%s: %s, not %s", path, text ? text : "no string", value);
}

static void check_true(const json_t *from, const char *path)
{
	if (!json_is_true(at(from, path)))
		fail_msg("%s is not true", path);
}

static void check_false(const json_t *from, const char *path)
{
	if (!json_is_false(at(from, path)))
		fail_msg("%s is not false", path);
}

static void test_health_is_ok_whatever_readiness_says(void **state)
{
	struct world *world = *state;

	world->not_ready = "draining";
	expect_text(world, "/healthz", 200, "ok\n");
	expect_text(world, "/readyz", 503, "draining\n");
	world->not_ready = NULL;
	expect_text(world, "/readyz", 200, "ready\n");
}

static void test_readiness_needs_a_server_to_use_in_each_backend(void **state)
{
	struct world *world = *state;
	struct server_state *a = &world->stats->server_state[app_servers[0].slot];
	struct server_state *b = &world->stats->server_state[app_servers[1].slot];
	struct server_state *c = &world->stats->server_state[db_servers[0].slot];

	a->down = 1;
	expect_text(world, "/readyz", 200, "ready\n");
	b->admin = SERVER_DRAIN;
	expect_text(world, "/readyz", 503, "backend app has no server to use\n");
	a->down = 0;
	a->admin = SERVER_MAINT;
	expect_text(world, "/readyz", 503, "backend app has no server to use\n");
	b->admin = SERVER_READY;
	expect_text(world, "/readyz", 200, "ready\n");
	c->weight = SERVER_WEIGHT_CONFIGURED; /* which is 0 */
	expect_text(world, "/readyz", 503, "backend a/b has no server to use\n");
}

static void test_metrics_follow_the_accept_header(void **state)
{
	struct world *world = *state;
	struct http_request request = {.method = "GET",
		.path = "/metrics",
		.accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"};
	struct http_response response = get(world, "/metrics");

	assert_string_equal(response.content_type, "text/plain; version=0.0.4; charset=utf-8");
	free(response.body);
	assert_int_equal(api_handle(&world->source, &request, &response), 0);
	assert_string_equal(response.content_type,
		"application/openmetrics-text; version=1.0.0; charset=utf-8");
	assert_string_equal(response.body, "# EOF\n");
	free(response.body);
	world->error = -ENOMEM;
	assert_int_equal(api_handle(&world->source, &request, &response), -ENOMEM);
}

static void test_unknown_pages_and_methods_are_refused_in_json(void **state)
{
	struct world *world = *state;
	struct http_request request = {.method = "POST", .path = "/v1/info"};
	struct http_response response = get(world, "/v1/info/");
	json_t *object;

	assert_int_equal(response.status, 404);
	object = parse(&response);
	check_text(object, "error", "not found");
	json_decref(object);
	assert_int_equal(api_handle(&world->source, &request, &response), 0);
	assert_int_equal(response.status, 405);
	assert_string_equal(response.allow, "GET, HEAD");
	json_decref(parse(&response));
}

static void test_info_says_what_runs(void **state)
{
	struct world *world = *state;
	json_t *object = get_json(world, "/v1/info");

	check_text(object, "version", "0.1.0");
	check_int(object, "pid", 77);
	check_int(object, "worker_pid", 78);
	check_int(object, "threads", THREADS);
	check_int(object, "generation", 1);
	check_true(object, "kernel_path");
	check_true(object, "ready");
	assert_true(json_is_null(at(object, "ready_why")));
	check_text(object, "config", "/etc/shunt/shunt.conf");
	json_decref(object);
	world->info.kernel_path = false;
	world->info.kernel_path_why = "no BPF\xff";
	world->not_ready = "draining";
	object = get_json(world, "/v1/info");
	check_text(object, "kernel_path_why", "no BPF\xef\xbf\xbd");
	check_text(object, "ready_why", "draining");
	json_decref(object);
}

static void test_listeners_add_up_their_threads(void **state)
{
	struct world *world = *state;
	json_t *object;

	for (unsigned int t = 0; t < THREADS; t++) {
		struct stats_listener *row = stats_listener_of(world->stats, t, listeners[0].slot);

		row->sessions = 10 + t;
		row->ended[END_COMPLETE] = 4;
		row->rejected[REJECT_MAX_SESSIONS] = 3;
		row->bytes[DIR_C2S][PATH_SOCKMAP] = 1ull << 40;
	}
	object = get_json(world, "/v1/listeners");
	check_text(object, "listeners.0.name", "web");
	check_text(object, "listeners.0.binds.0", "*:8080");
	check_text(object, "listeners.0.binds.1", "[::1]:81");
	check_text(object, "listeners.0.backend", "app");
	check_int(object, "listeners.0.sessions", 21);
	check_int(object, "listeners.0.active", 13);
	check_int(object, "listeners.0.ended.complete", 8);
	check_int(object, "listeners.0.rejected.max_sessions", 6);
	check_int(object, "listeners.0.bytes.c2s.sockmap", 2ll << 40);
	check_int(object, "listeners.0.bytes.s2c.relay", 0);
	check_text(object, "listeners.1.name", ODD_SAFE);
	check_int(object, "listeners.1.max_sessions", 7);
	json_decref(object);
}

static void fill_server(struct world *world)
{
	struct server_state *shared = &world->stats->server_state[app_servers[0].slot];

	for (unsigned int t = 0; t < THREADS; t++) {
		struct stats_server *row = stats_server_of(world->stats, t, app_servers[0].slot);

		row->sessions = 5;
		row->connect_failures[END_CONNECT_REFUSED] = 2;
		row->bytes[DIR_S2C] = 100;
	}
	shared->admin = SERVER_DRAIN;
	shared->weight = 9;
	shared->down = 1;
	shared->active = 4;
	shared->failures = 3;
	shared->ejected_until_ns = now_ns() + 10000000000ull;
	shared->check_successes = 11;
	shared->check_failures = 12;
}

static void test_servers_show_the_operators_word_and_the_checks(void **state)
{
	struct world *world = *state;
	json_t *object;

	fill_server(world);
	object = get_json(world, "/v1/backends");
	check_text(object, "backends.0.servers.0.name", "a");
	check_text(object, "backends.0.servers.0.state", "drain");
	check_int(object, "backends.0.servers.0.weight", 9);
	check_int(object, "backends.0.servers.0.weight_configured", 2);
	check_false(object, "backends.0.servers.0.up");
	check_false(object, "backends.0.servers.0.usable");
	check_true(object, "backends.0.servers.0.ejected");
	assert_in_range(
		json_integer_value(at(object, "backends.0.servers.0.ejected_ms")), 1, 10000);
	check_int(object, "backends.0.servers.0.active", 4);
	check_int(object, "backends.0.servers.0.failures_in_row", 3);
	check_int(object, "backends.0.servers.0.check.successes", 11);
	check_int(object, "backends.0.servers.0.check.failures", 12);
	check_int(object, "backends.0.servers.0.sessions", 10);
	check_int(object, "backends.0.servers.0.connect_failures.refused", 4);
	check_int(object, "backends.0.servers.0.bytes.s2c", 200);
	check_true(object, "backends.0.servers.1.usable");
	check_true(object, "backends.0.servers.1.backup");
	check_text(object, "backends.0.servers.1.name", ODD_SAFE);
	check_text(object, "backends.1.balance", "source_hash");
	assert_true(json_is_null(at(object, "backends.1.servers.0.check")));
	check_text(object, "backends.1.servers.0.address", "unix:/run/x.sock");
	json_decref(object);
}

static void test_sessions_are_sorted_by_bytes_and_complete(void **state)
{
	json_t *object = get_json(*state, "/v1/sessions");

	check_int(object, "total", 3);
	check_int(object, "matched", 3);
	check_text(object, "sessions.0.id", "2");
	check_text(object, "sessions.1.id", "1f");
	check_text(object, "sessions.2.id", "ffffffffffffffff");
	check_text(object, "sessions.1.client", "10.1.2.3:4444");
	check_text(object, "sessions.1.server_address", "10.0.0.1:80");
	check_text(object, "sessions.1.state", "open");
	check_int(object, "sessions.1.age_ms", 61000);
	check_int(object, "sessions.1.idle_ms", 250);
	check_text(object, "sessions.1.c2s.path", "sockmap");
	check_true(object, "sessions.1.c2s.overflow");
	check_int(object, "sessions.1.c2s.bytes", 1005);
	check_int(object, "sessions.1.c2s.bytes_by_path.sockmap", 1000);
	check_true(object, "sessions.1.s2c.finished");
	assert_true(json_is_null(at(object, "sessions.2.server")));
	assert_true(json_is_null(at(object, "sessions.2.server_address")));
	check_text(object, "sessions.2.state", "queued");
	json_decref(object);
}

static void test_sessions_pass_every_filter_that_is_given(void **state)
{
	static const struct {
		struct http_parameter query[2];
		unsigned int n;
		json_int_t matched;
		size_t shown;
	} cases[] = {
		{{{"listener", "web"}}, 1, 2, 2},
		{{{"listener", "we"}}, 1, 0, 0},
		{{{"listener", ODD}}, 1, 1, 1},
		{{{"backend", "app"}}, 1, 2, 2},
		{{{"server", "a"}}, 1, 1, 1},
		{{{"server", "app/a"}}, 1, 1, 1},
		{{{"server", "app/" ODD}}, 1, 1, 1},
		{{{"server", "ap/a"}}, 1, 0, 0},
		{{{"path", "sockmap"}}, 1, 1, 1},
		{{{"path", "relay"}}, 1, 2, 2},
		{{{"client", "10.1.2.3"}}, 1, 2, 2},
		{{{"client", "10.1.2.3:"}}, 1, 1, 1},
		{{{"client", "[2001:db8:"}}, 1, 1, 1},
		{{{"limit", "1"}}, 1, 3, 1},
		{{{"limit", "0"}}, 1, 3, 0},
		{{{"limit", "100000"}}, 1, 3, 3},
		{{{"listener", "web"}, {"path", "shortcut"}}, 2, 1, 1},
	};
	struct world *world = *state;

	for (unsigned int i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_request request = {
			.method = "GET", .path = "/v1/sessions", .nquery = cases[i].n};
		struct http_response response = {.status = 200};
		json_t *object;

		memcpy(request.query, cases[i].query, sizeof(cases[i].query));
		assert_int_equal(api_handle(&world->source, &request, &response), 0);
		object = parse(&response);
		check_int(object, "matched", cases[i].matched);
		check_int(object, "total", 3);
		assert_int_equal(json_array_size(at(object, "sessions")), cases[i].shown);
		json_decref(object);
	}
}

static void test_a_bad_filter_is_refused_with_the_parameter(void **state)
{
	static const struct {
		struct http_parameter query[2];
		unsigned int n;
		const char *error;
	} cases[] = {
		{{{"limit", "-1"}}, 1, "limit: '-1' is not allowed; allowed: 0 to 100000"},
		{{{"limit", ""}}, 1, "limit: '' is not allowed; allowed: 0 to 100000"},
		{{{"limit", "100001"}}, 1, "limit: '100001' is not allowed; allowed: 0 to 100000"},
		{{{"limit", "1x"}}, 1, "limit: '1x' is not allowed; allowed: 0 to 100000"},
		{{{"path", "\xff"}}, 1,
			"path: '\xef\xbf\xbd' is not allowed; allowed: relay, sockmap, shortcut"},
		{{{"Limit", "1"}}, 1,
			"unknown parameter 'Limit'; known: listener, backend, server, client, "
			"path, limit"},
		{{{"limit", "1"}, {"limit", "2"}}, 2, "parameter 'limit' is given twice"},
	};
	struct world *world = *state;

	for (unsigned int i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_request request = {
			.method = "GET", .path = "/v1/sessions", .nquery = cases[i].n};
		struct http_response response = {.status = 200};
		json_t *object;

		memcpy(request.query, cases[i].query, sizeof(cases[i].query));
		assert_int_equal(api_handle(&world->source, &request, &response), 0);
		assert_int_equal(response.status, 400);
		object = parse(&response);
		check_text(object, "error", cases[i].error);
		json_decref(object);
	}
}

static void test_no_sessions_and_no_snapshot_are_different(void **state)
{
	struct world *world = *state;
	struct http_request request = {.method = "GET", .path = "/v1/sessions"};
	struct http_response response = {.status = 200};
	json_t *object;

	world->nsessions = 0;
	object = get_json(world, "/v1/sessions");
	check_int(object, "total", 0);
	assert_true(json_is_array(at(object, "sessions")));
	json_decref(object);
	world->error = -ETIMEDOUT;
	assert_int_equal(api_handle(&world->source, &request, &response), -ETIMEDOUT);
	assert_null(response.body);
}

static void test_the_page_shows_everything_and_escapes_it(void **state)
{
	struct world *world = *state;
	struct http_response response;

	fill_server(world);
	response = get(world, "/");
	assert_string_equal(response.content_type, "text/html; charset=utf-8");
	assert_int_equal(strlen(response.body), response.len);
	assert_non_null(strstr(response.body, "<td>web<td>*:8080 <span class=quiet>+1</span>"));
	assert_non_null(strstr(response.body, "<td class=bad>drain<td class=n>9"));
	assert_non_null(strstr(response.body, "<td>ffffffffffffffff"));
	assert_non_null(strstr(response.body, "<td class=n>5.0 GiB"));
	assert_non_null(strstr(response.body, "o\\d&quot;&lt;b&gt;&amp;?[31m"));
	assert_null(strstr(response.body, "<b>"));
	assert_null(strchr(response.body, '\x1b'));
	assert_null(strstr(response.body, "<script"));
	assert_null(strstr(response.body, "http://"));
	assert_null(strstr(response.body, "https://"));
	free(response.body);
	world->error = -ETIMEDOUT; /* no sessions: the rest is shown */
	response = get(world, "/");
	assert_int_equal(response.status, 200);
	assert_non_null(strstr(response.body, "<td>web"));
	free(response.body);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_health_is_ok_whatever_readiness_says),
		TEST(test_readiness_needs_a_server_to_use_in_each_backend),
		TEST(test_metrics_follow_the_accept_header),
		TEST(test_unknown_pages_and_methods_are_refused_in_json),
		TEST(test_info_says_what_runs),
		TEST(test_listeners_add_up_their_threads),
		TEST(test_servers_show_the_operators_word_and_the_checks),
		TEST(test_sessions_are_sorted_by_bytes_and_complete),
		TEST(test_sessions_pass_every_filter_that_is_given),
		TEST(test_a_bad_filter_is_refused_with_the_parameter),
		TEST(test_no_sessions_and_no_snapshot_are_different),
		TEST(test_the_page_shows_everything_and_escapes_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
