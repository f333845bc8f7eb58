/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the schedule of the checks and what follows from their results. Must not know sessions, nor
 * how an attempt is made. */
#include "check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "check_conn.h"
#include "log.h"
#include "proxy_proto.h"

#define FIRST_MAX_MS 100 /* the first checks are spread over this time */
#define FAST_DIVISOR 4 /* while the state is changing ... */
#define FAST_MIN_MS 100 /* ... but not more often than this, or check_interval */

/* A PROXY header without addresses. */
#define GREETING_MAX 64

struct check {
	struct checker *checker;
	struct check *next_waiting;
	struct check_conn conn;
	ev_timer timer; /* the next attempt */
	ev_tstamp started;
	bool waiting, keeps_verdict;
	enum send_proxy_mode send_proxy;
	size_t greeting_len; /* in front of the text to send */
	char *backend, *server, *texts; /* texts: what conn sends and expects */
	enum check_mode mode; /* as configured, and so on */
	uint64_t interval_ms;
	unsigned int rise, fall;
	unsigned int in_row; /* results in a row that speak against the verdict */
	struct server_state *state;
	unsigned int slot;
};

struct checker {
	struct ev_loop *loop;
	void (*on_change)(void *arg, unsigned int slot, bool up, const char *why);
	void *arg;
	struct check **checks;
	unsigned int n;
	unsigned int running; /* attempts */
	struct check *waiting, **waiting_end;
	uint64_t random;
	struct log_limit no_resources;
	bool is_set; /* checker_set() has been called */
};

/* --- verdicts --- */

static bool is_down(const struct server_state *state)
{
	return atomic_load_explicit(&state->down, memory_order_relaxed);
}

static bool is_maint(const struct check *check)
{
	return atomic_load_explicit(&check->state->admin, memory_order_relaxed) == SERVER_MAINT;
}

static void turn(struct checker *checker, const char *backend, const char *server,
	unsigned int slot, struct server_state *state, bool up, const char *why)
{
	if (up)
		atomic_store_explicit(&state->up_since_ns, now_ns(), memory_order_relaxed);
	atomic_store_explicit(&state->down, !up, memory_order_release);
	if (up)
		log_notice("backend %s: server %s is up: %s", backend, server, why);
	else
		log_warning("backend %s: server %s is down: %s", backend, server, why);
	if (checker->on_change)
		checker->on_change(checker->arg, slot, up, why);
}

static void count(struct check *check, bool ok, const char *why)
{
	struct server_state *state = check->state;
	bool down = is_down(state);

	atomic_fetch_add_explicit(
		ok ? &state->check_successes : &state->check_failures, 1, memory_order_relaxed);
	check->in_row = ok == down ? check->in_row + 1 : 0;
	if (check->in_row < (down ? check->rise : check->fall))
		return;
	check->in_row = 0;
	turn(check->checker, check->backend, check->server, check->slot, state, down, why);
}

/* --- schedule --- */

/* xorshift64*: the jitter need not be unpredictable. In [0, 1). */
static double draw(struct checker *checker)
{
	checker->random ^= checker->random >> 12;
	checker->random ^= checker->random << 25;
	checker->random ^= checker->random >> 27;
	return (double)(checker->random * 2685821657736338717ull >> 11) / 9007199254740992.0;
}

static void schedule(struct check *check, double after)
{
	ev_timer_stop(check->checker->loop, &check->timer);
	ev_timer_set(&check->timer, after > 0. ? after : 0., 0.);
	ev_timer_start(check->checker->loop, &check->timer);
}

/* From start to start; an attempt that took longer is followed at once. */
static void schedule_next(struct check *check)
{
	uint64_t ms = check->interval_ms;
	double jitter = 0.9 + 0.2 * draw(check->checker);

	if (check->in_row)
		ms = MIN(ms, MAX(ms / FAST_DIVISOR, (uint64_t)FAST_MIN_MS));
	schedule(
		check, check->started + (double)ms / 1000. * jitter - ev_now(check->checker->loop));
}

static void start(struct check *check)
{
	check->started = ev_now(check->checker->loop);
	if (is_maint(check)) {
		check->in_row = 0;
		schedule_next(check);
		return;
	}
	check->checker->running++;
	check_conn_start(&check->conn);
}

static void wait_for_turn(struct check *check)
{
	struct checker *checker = check->checker;

	check->waiting = true;
	check->next_waiting = NULL;
	*checker->waiting_end = check;
	checker->waiting_end = &check->next_waiting;
}

/* By their timers rather than here: an attempt may end within its start, and this is called at its
 * end. */
static void start_waiting(struct checker *checker)
{
	struct check *check = checker->waiting;

	if (!check || checker->running >= CHECKER_CONNS_MAX)
		return;
	checker->waiting = check->next_waiting;
	if (!checker->waiting)
		checker->waiting_end = &checker->waiting;
	check->waiting = false;
	schedule(check, 0.);
}

static void timer_cb(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct check *check = timer->data;

	(void)loop;
	(void)revents;
	if (check->checker->running < CHECKER_CONNS_MAX)
		start(check);
	else
		wait_for_turn(check);
}

static void log_no_resources(struct check *check, const char *why)
{
	unsigned int held_back;

	if (log_limit_pass(&check->checker->no_resources, &held_back))
		log_error(
			"backend %s: server %s cannot be checked: %s (%u more in the last second)",
			check->backend, check->server, why, held_back);
}

static void done(struct check_conn *conn, enum check_conn_result result, const char *why)
{
	struct check *check = container_of(conn, struct check, conn);

	check->checker->running--;
	if (result == CHECK_CONN_NO_RESOURCES)
		log_no_resources(check, why);
	else if (!is_maint(check)) /* since it began */
		count(check, result == CHECK_CONN_OK, why);
	schedule_next(check);
	start_waiting(check->checker);
}

/* --- configuration --- */

static void leave_queue(struct check *check)
{
	struct check **p = &check->checker->waiting;

	while (*p != check)
		p = &(*p)->next_waiting;
	*p = check->next_waiting;
	if (!*p)
		check->checker->waiting_end = p;
}

static void check_free(struct check *check)
{
	if (!check)
		return;
	ev_timer_stop(check->checker->loop, &check->timer);
	if (check->conn.fd >= 0)
		check->checker->running--;
	check_conn_cancel(&check->conn);
	if (check->waiting)
		leave_queue(check);
	free(check->backend);
	free(check->server);
	free(check->texts);
	free(check);
}

static uint64_t timeout_of(const struct conf_backend *backend)
{
	return MIN(backend->check_interval_ms, backend->connect_timeout_ms);
}

/* A server that wants a PROXY header wants it of a check too: one that names no client. */
static size_t greeting(const struct conf_backend *backend, char ret[GREETING_MAX])
{
	static const struct addr none;
	int len = 0;

	if (backend->check != CHECK_SEND_EXPECT)
		return 0; /* nothing is sent at all */
	if (backend->send_proxy == SEND_PROXY_V1)
		len = proxy_build_v1(&none, &none, ret, GREETING_MAX);
	else if (backend->send_proxy == SEND_PROXY_V2)
		len = proxy_build_v2(NULL, NULL, NULL, 0, true, true, ret, GREETING_MAX);
	return len > 0 ? (size_t)len : 0;
}

static void set_conn(struct check *check, const char *greet, const struct conf_backend *backend,
	const struct conf_server *server)
{
	struct check_conn *conn = &check->conn;
	char *texts = check->texts;

	conn->addr = server->addr;
	conn->timeout_ms = timeout_of(backend);
	conn->done = done;
	if (backend->check != CHECK_SEND_EXPECT)
		return;
	conn->send_len = check->greeting_len + backend->check_send_len;
	conn->expect_len = backend->check_expect_len;
	conn->send = texts;
	conn->expect = texts + conn->send_len;
	memcpy(texts, greet, check->greeting_len);
	memcpy(texts + check->greeting_len, backend->check_send, backend->check_send_len);
	memcpy(texts + conn->send_len, backend->check_expect, conn->expect_len);
}

static struct check *check_new(struct checker *checker, const struct conf_backend *backend,
	const struct conf_server *server)
{
	struct check *check = calloc(1, sizeof(*check));
	char greet[GREETING_MAX];

	if (!check)
		return NULL;
	check->greeting_len = greeting(backend, greet);
	check->send_proxy = backend->send_proxy;
	check->checker = checker;
	check_conn_init(&check->conn, checker->loop);
	ev_timer_init(&check->timer, timer_cb, 0., 0.);
	check->timer.data = check;
	check->backend = strdup(backend->name);
	check->server = strdup(server->name);
	check->texts = malloc(
		check->greeting_len + backend->check_send_len + backend->check_expect_len + 1);
	if (!check->backend || !check->server || !check->texts) {
		check_free(check);
		return NULL;
	}
	check->mode = backend->check;
	check->interval_ms = backend->check_interval_ms;
	check->rise = backend->check_rise;
	check->fall = backend->check_fall;
	set_conn(check, greet, backend, server);
	return check;
}

static bool has_text(const char *text, size_t len, const char *other, size_t other_len)
{
	return len == other_len && (!len || memcmp(text, other, len) == 0);
}

static bool is_same_check(const struct check *check, const struct conf_backend *backend,
	const struct conf_server *server)
{
	const struct check_conn *conn = &check->conn;

	return check->mode == backend->check && check->interval_ms == backend->check_interval_ms &&
	       check->rise == backend->check_rise && check->fall == backend->check_fall &&
	       conn->timeout_ms == timeout_of(backend) && addr_equal(&conn->addr, &server->addr) &&
	       check->send_proxy == backend->send_proxy &&
	       has_text(conn->send + check->greeting_len, conn->send_len - check->greeting_len,
		       backend->check_send, backend->check_send_len) &&
	       has_text(conn->expect, conn->expect_len, backend->check_expect,
		       backend->check_expect_len);
}

static int compare(const void *a, const void *b)
{
	const struct check *x = *(struct check *const *)a, *y = *(struct check *const *)b;
	int order = strcmp(x->backend, y->backend);

	return order ? order : strcmp(x->server, y->server);
}

/* checks are sorted by name. */
static struct check *find(
	const struct checker *checker, struct conf_backend *backend, struct conf_server *server)
{
	struct check key = {.backend = backend->name, .server = server->name}, *p = &key, **found;

	if (!checker->n)
		return NULL;
	found = bsearch(&p, checker->checks, checker->n, sizeof(struct check *), compare);
	return found ? *found : NULL;
}

/* One server of the new configuration, and its check unless it has none. */
struct plan {
	struct conf_backend *backend;
	struct conf_server *server;
	struct check *check;
};

static unsigned int count_servers(const struct conf *conf)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < conf->nbackends; i++)
		n += conf->backends[i].nservers;
	return n;
}

/* Nothing of the checks of before is touched, so that it can be given up. */
static int plan_check(struct checker *checker, struct plan *plan)
{
	struct check *before = find(checker, plan->backend, plan->server);

	if (plan->backend->check == CHECK_OFF)
		return 0;
	if (before && is_same_check(before, plan->backend, plan->server)) {
		plan->check = before;
		return 0;
	}
	plan->check = check_new(checker, plan->backend, plan->server);
	if (!plan->check)
		return -ENOMEM;
	plan->check->keeps_verdict =
		!checker->is_set || (before && addr_equal(&before->conn.addr, &plan->server->addr));
	return 0;
}

static int make_plans(struct checker *checker, const struct conf *conf, struct plan *plans)
{
	unsigned int n = 0;
	int err = 0;

	for (unsigned int i = 0; i < conf->nbackends && !err; i++) {
		struct conf_backend *backend = &conf->backends[i];

		for (unsigned int k = 0; k < backend->nservers && !err; k++) {
			plans[n] = (struct plan){backend, &backend->servers[k], NULL};
			err = plan_check(checker, &plans[n++]);
		}
	}
	return err;
}

/* New ones have no state yet. */
static void give_up(const struct plan *plans, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		if (plans[i].check && !plans[i].check->state)
			check_free(plans[i].check);
	}
}

static void apply(struct checker *checker, const struct plan *plan, struct server_state *states)
{
	unsigned int slot = plan->server->slot;
	struct server_state *state = &states[slot];
	struct check *check = plan->check;
	bool is_new = check && !check->state;

	if (check) {
		check->slot = slot;
		check->state = state;
	}
	if (is_down(state) && (!check || (is_new && !check->keeps_verdict)))
		turn(checker, plan->backend->name, plan->server->name, slot, state, true,
			check ? "new address" : "not checked any more");
	if (is_new)
		schedule(check, draw(checker) *
					(double)MIN(check->interval_ms, (uint64_t)FIRST_MAX_MS) /
					1000.);
}

/* Frees the checks of before that are in no plan. Takes the array. */
static void replace_checks(
	struct checker *checker, struct check **checks, const struct plan *plans, unsigned int n)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < n; i++) {
		if (plans[i].check)
			checks[kept++] = plans[i].check;
	}
	qsort(checks, kept, sizeof(struct check *), compare);
	for (unsigned int i = 0; i < checker->n; i++) {
		struct check **same =
			bsearch(&checker->checks[i], checks, kept, sizeof(struct check *), compare);

		if (!same || *same != checker->checks[i])
			check_free(checker->checks[i]);
	}
	free(checker->checks);
	checker->checks = checks;
	checker->n = kept;
}

int checker_set(struct checker *checker, const struct conf *conf, struct server_state *states)
{
	unsigned int n = count_servers(conf);
	struct plan *plans = calloc(n + 1, sizeof(*plans));
	struct check **checks = calloc(n + 1, sizeof(struct check *));

	if (!plans || !checks || make_plans(checker, conf, plans) < 0) {
		if (plans)
			give_up(plans, n);
		free(plans);
		free(checks);
		return -ENOMEM;
	}
	replace_checks(checker, checks, plans, n);
	ev_now_update(checker->loop);
	for (unsigned int i = 0; i < n; i++)
		apply(checker, &plans[i], states);
	/* Those that were freed may have held the places that these wait for. */
	while (checker->waiting && checker->running < CHECKER_CONNS_MAX)
		start_waiting(checker);
	checker->is_set = true;
	free(plans);
	return 0;
}

struct checker *checker_new(struct ev_loop *loop,
	void (*on_change)(void *arg, unsigned int slot, bool up, const char *why), void *arg)
{
	struct checker *checker = calloc(1, sizeof(*checker));

	if (!checker)
		return NULL;
	checker->loop = loop;
	checker->on_change = on_change;
	checker->arg = arg;
	checker->waiting_end = &checker->waiting;
	if (getrandom(&checker->random, sizeof(checker->random), GRND_NONBLOCK) < 0)
		checker->random = now_ns();
	checker->random |= 1; /* xorshift stays at 0 */
	return checker;
}

void checker_free(struct checker *checker)
{
	if (!checker)
		return;
	for (unsigned int i = 0; i < checker->n; i++)
		check_free(checker->checks[i]);
	free(checker->checks);
	free(checker);
}

unsigned int checker_fds(const struct conf *conf)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < conf->nbackends; i++) {
		if (conf->backends[i].check != CHECK_OFF)
			n += conf->backends[i].nservers;
	}
	return MIN(n, CHECKER_CONNS_MAX);
}
