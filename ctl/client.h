/* SPDX-License-Identifier: BSD-2-Clause */
/* One request to the daemon over its control socket. */
#ifndef SHUNT_CTL_CLIENT_H
#define SHUNT_CTL_CLIENT_H

#include <jansson.h>

#include "ctl.h"

/*
 * body NULL: without. CTL_OK with the answer in *ret, for json_decref(): or, with --json, printed
 * already and *ret NULL. Otherwise the message is on ctl->err.
 */
enum ctl_exit client_call(
	const struct ctl *ctl, const char *method, const char *path, json_t *body, json_t **ret);

/* Appends percent-encoded text; '/' stays where keep_slash says so. False: no room. */
bool client_encode(char *to, size_t size, const char *text, bool keep_slash);

#endif
