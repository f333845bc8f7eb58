/* SPDX-License-Identifier: BSD-2-Clause */
/* Walks every (state, c2s, s2c, event) of the session's state machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "../../daemon/session_fsm.h"

#define COMBINATIONS (SESSION_STATE_COUNT * FLOW_STATE_COUNT * FLOW_STATE_COUNT)

static struct session_fsm nth(unsigned int n)
{
	return (struct session_fsm){
		.state = (enum session_state)(n / (FLOW_STATE_COUNT * FLOW_STATE_COUNT)),
		.c2s = (enum flow_state)(n / FLOW_STATE_COUNT % FLOW_STATE_COUNT),
		.s2c = (enum flow_state)(n % FLOW_STATE_COUNT),
	};
}

static unsigned int number(struct session_fsm fsm)
{
	return (fsm.state * FLOW_STATE_COUNT + fsm.c2s) * FLOW_STATE_COUNT + fsm.s2c;
}

/* What a new session can get into, found by trying every event. */
static void find_reachable(bool reachable[COMBINATIONS])
{
	bool grown = true;

	memset(reachable, 0, COMBINATIONS * sizeof(bool));
	reachable[number((struct session_fsm){SESSION_CONNECTING, FLOW_OPEN, FLOW_OPEN})] = true;
	while (grown) {
		grown = false;
		for (unsigned int n = 0; n < COMBINATIONS; n++) {
			for (int event = 0; reachable[n] && event < SESSION_EV_COUNT; event++) {
				struct session_fsm fsm = nth(n);

				(void)session_fsm_step(&fsm, (enum session_event)event);
				grown |= !reachable[number(fsm)];
				reachable[number(fsm)] = true;
			}
		}
	}
}

static void every_state_can_be_aborted_once(void **state)
{
	(void)state;
	for (unsigned int n = 0; n < COMBINATIONS; n++) {
		struct session_fsm fsm = nth(n);
		unsigned int actions = session_fsm_step(&fsm, SESSION_EV_ABORT);

		assert_int_equal(actions,
			nth(n).state == SESSION_CLOSED ? SESSION_DO_REPORT : SESSION_DO_ABORT);
		assert_int_equal(fsm.state, SESSION_CLOSED);
	}
}

static void nothing_happens_after_the_end(void **state)
{
	(void)state;
	for (unsigned int n = number((struct session_fsm){SESSION_CLOSED, FLOW_OPEN, FLOW_OPEN});
		n < COMBINATIONS; n++) {
		for (int event = 0; event < SESSION_EV_COUNT; event++) {
			struct session_fsm fsm = nth(n);

			assert_int_equal(session_fsm_step(&fsm, (enum session_event)event),
				SESSION_DO_REPORT);
			assert_int_equal(number(fsm), n);
		}
	}
}

static void a_reported_event_changes_nothing(void **state)
{
	(void)state;
	for (unsigned int n = 0; n < COMBINATIONS; n++) {
		for (int event = 0; event <= SESSION_EV_COUNT; event++) {
			struct session_fsm fsm = nth(n);

			if (session_fsm_step(&fsm, (enum session_event)event) == SESSION_DO_REPORT)
				assert_int_equal(number(fsm), n);
		}
	}
}

/* The actions of a step never follow the end of the session they belong to, except the end itself.
 */
static void close_comes_only_after_both_fins_were_passed_on(void **state)
{
	(void)state;
	for (unsigned int n = 0; n < COMBINATIONS; n++) {
		for (int event = 0; event < SESSION_EV_COUNT; event++) {
			struct session_fsm fsm = nth(n);
			unsigned int actions = session_fsm_step(&fsm, (enum session_event)event);

			if (!(actions & SESSION_DO_CLOSE))
				continue;
			assert_int_equal(fsm.c2s, FLOW_SHUT);
			assert_int_equal(fsm.s2c, FLOW_SHUT);
			assert_int_equal(fsm.state, SESSION_CLOSED);
		}
	}
}

static void a_fin_is_passed_on_exactly_once_and_only_when_drained(void **state)
{
	(void)state;
	for (unsigned int n = 0; n < COMBINATIONS; n++) {
		for (int event = 0; event < SESSION_EV_COUNT; event++) {
			struct session_fsm before = nth(n), fsm = before;
			unsigned int actions = session_fsm_step(&fsm, (enum session_event)event);

			if (actions & SESSION_DO_SHUT_SERVER) {
				assert_int_equal(event, SESSION_EV_DRAINED_C2S);
				assert_int_equal(before.c2s, FLOW_EOF);
				assert_int_equal(fsm.c2s, FLOW_SHUT);
			}
			if (actions & SESSION_DO_SHUT_CLIENT) {
				assert_int_equal(event, SESSION_EV_DRAINED_S2C);
				assert_int_equal(before.s2c, FLOW_EOF);
				assert_int_equal(fsm.s2c, FLOW_SHUT);
			}
		}
	}
}

static void one_direction_never_changes_the_other(void **state)
{
	static const int c2s_events[] = {SESSION_EV_EOF_C2S, SESSION_EV_DRAINED_C2S};
	static const int s2c_events[] = {SESSION_EV_EOF_S2C, SESSION_EV_DRAINED_S2C};

	(void)state;
	for (unsigned int n = 0; n < COMBINATIONS; n++) {
		for (int i = 0; i < 2; i++) {
			struct session_fsm a = nth(n), b = nth(n);

			(void)session_fsm_step(&a, (enum session_event)c2s_events[i]);
			(void)session_fsm_step(&b, (enum session_event)s2c_events[i]);
			assert_int_equal(a.s2c, nth(n).s2c);
			assert_int_equal(b.c2s, nth(n).c2s);
		}
	}
}

static void a_clients_early_fin_waits_for_the_server(void **state)
{
	struct session_fsm fsm = {0};

	(void)state;
	assert_int_equal(session_fsm_step(&fsm, SESSION_EV_EOF_C2S), 0);
	assert_int_equal(session_fsm_step(&fsm, SESSION_EV_DRAINED_C2S), SESSION_DO_REPORT);
	assert_int_equal(session_fsm_step(&fsm, SESSION_EV_EOF_S2C), SESSION_DO_REPORT);
	assert_int_equal(session_fsm_step(&fsm, SESSION_EV_CONNECTED), SESSION_DO_START);
	assert_int_equal(session_fsm_step(&fsm, SESSION_EV_DRAINED_C2S), SESSION_DO_SHUT_SERVER);
	assert_int_equal(session_fsm_step(&fsm, SESSION_EV_EOF_S2C), 0);
	assert_int_equal(session_fsm_step(&fsm, SESSION_EV_DRAINED_S2C),
		SESSION_DO_SHUT_CLIENT | SESSION_DO_CLOSE);
}

static void every_reachable_state_can_reach_the_end(void **state)
{
	bool reachable[COMBINATIONS];
	unsigned int count = 0;

	(void)state;
	find_reachable(reachable);
	for (unsigned int n = 0; n < COMBINATIONS; n++) {
		struct session_fsm fsm = nth(n);

		if (!reachable[n])
			continue;
		count++;
		(void)session_fsm_step(&fsm, SESSION_EV_CONNECTED);
		(void)session_fsm_step(&fsm, SESSION_EV_EOF_C2S);
		(void)session_fsm_step(&fsm, SESSION_EV_DRAINED_C2S);
		(void)session_fsm_step(&fsm, SESSION_EV_EOF_S2C);
		(void)session_fsm_step(&fsm, SESSION_EV_DRAINED_S2C);
		assert_int_equal(fsm.state, SESSION_CLOSED);
	}
	/* CONNECTING with c2s open or finished; OPEN with every pair but shut/shut; CLOSED: 2 + 8
	 * at abort, and shut/shut. */
	assert_int_equal(count, 2 + 8 + 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_state_can_be_aborted_once),
		cmocka_unit_test(nothing_happens_after_the_end),
		cmocka_unit_test(a_reported_event_changes_nothing),
		cmocka_unit_test(close_comes_only_after_both_fins_were_passed_on),
		cmocka_unit_test(a_fin_is_passed_on_exactly_once_and_only_when_drained),
		cmocka_unit_test(one_direction_never_changes_the_other),
		cmocka_unit_test(a_clients_early_fin_waits_for_the_server),
		cmocka_unit_test(every_reachable_state_can_reach_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
