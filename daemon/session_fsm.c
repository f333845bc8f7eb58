/* SPDX-License-Identifier: BSD-2-Clause */
#include "session_fsm.h"

static unsigned int eof(
	const struct session_fsm *fsm, enum flow_state *flow, enum session_event event)
{
	/* Before the server has answered only the client can have finished. */
	if (fsm->state == SESSION_CONNECTING && event == SESSION_EV_EOF_S2C)
		return SESSION_DO_REPORT;
	if (*flow == FLOW_OPEN)
		*flow = FLOW_EOF;
	return 0; /* seen again: both epoll and the reader may tell */
}

static unsigned int drained(
	struct session_fsm *fsm, enum flow_state *flow, enum session_action shut)
{
	if (fsm->state != SESSION_OPEN || *flow != FLOW_EOF)
		return SESSION_DO_REPORT;
	*flow = FLOW_SHUT;
	if (fsm->c2s != FLOW_SHUT || fsm->s2c != FLOW_SHUT)
		return shut;
	fsm->state = SESSION_CLOSED;
	return shut | SESSION_DO_CLOSE;
}

unsigned int session_fsm_step(struct session_fsm *fsm, enum session_event event)
{
	if (fsm->state == SESSION_CLOSED)
		return SESSION_DO_REPORT;
	switch (event) {
	case SESSION_EV_CONNECTED:
		if (fsm->state != SESSION_CONNECTING)
			return SESSION_DO_REPORT;
		fsm->state = SESSION_OPEN;
		return SESSION_DO_START;
	case SESSION_EV_EOF_C2S:
		return eof(fsm, &fsm->c2s, event);
	case SESSION_EV_EOF_S2C:
		return eof(fsm, &fsm->s2c, event);
	case SESSION_EV_DRAINED_C2S:
		return drained(fsm, &fsm->c2s, SESSION_DO_SHUT_SERVER);
	case SESSION_EV_DRAINED_S2C:
		return drained(fsm, &fsm->s2c, SESSION_DO_SHUT_CLIENT);
	case SESSION_EV_ABORT:
		fsm->state = SESSION_CLOSED;
		return SESSION_DO_ABORT;
	case SESSION_EV_COUNT:
		break;
	}
	return SESSION_DO_REPORT;
}
