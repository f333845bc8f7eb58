/* SPDX-License-Identifier: BSD-2-Clause */
#include "priv.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "log.h"

#define USER_DEFAULT "shunt"
#define USER_FALLBACK "nobody"

static int find_user(const char *name, struct priv_user *ret)
{
	struct passwd entry, *found = NULL;
	char buffer[4096];
	int err = getpwnam_r(name, &entry, buffer, sizeof(buffer), &found);

	if (err)
		return -err;
	if (!found)
		return -ENOENT;
	ret->uid = found->pw_uid;
	ret->gid = found->pw_gid;
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	return 0;
}

int priv_lookup(const char *name, struct priv_user *ret)
{
	int err;

	*ret = (struct priv_user){.change = geteuid() == 0};
	if (!ret->change) {
		if (name)
			log_notice("not started as root: 'user = %s' has no effect", name);
		return 0;
	}
	err = find_user(name ? name : USER_DEFAULT, ret);
	if (err == -ENOENT && !name) {
		log_notice("no user '%s' on this system: the worker runs as '%s'", USER_DEFAULT,
			USER_FALLBACK);
		err = find_user(USER_FALLBACK, ret);
	}
	if (err)
		log_error("user '%s': %s", name ? name : USER_FALLBACK,
			err == -ENOENT ? "no such user" : strerror(-err));
	return err;
}

static int fail(const char *what)
{
	int err = errno ? errno : EPERM;

	log_error("dropping privileges: %s: %s", what, strerror(err));
	return -err;
}

int priv_drop(const struct priv_user *user)
{
	errno = 0;
	if (user->change) {
		if (setgroups(0, NULL) < 0 || setresgid(user->gid, user->gid, user->gid) < 0)
			return fail("setresgid");
		capng_clear(CAPNG_SELECT_BOTH);
		if (capng_apply(CAPNG_SELECT_BOUNDS) < 0)
			return fail("bounding set");
		if (setresuid(user->uid, user->uid, user->uid) < 0)
			return fail("setresuid");
	}
	capng_clear(CAPNG_SELECT_ALL);
	if (capng_apply(CAPNG_SELECT_CAPS) < 0 || capng_apply(CAPNG_SELECT_AMBIENT) < 0)
		return fail("capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail("no_new_privs");
	/* libcap-ng says nothing when it has no CAP_SETPCAP for the bounding set. It adds nothing
	 * that no_new_privs leaves open, but an operator who counts on it should know. */
	if (user->change && !capng_get_caps_process() &&
		capng_have_capabilities(CAPNG_SELECT_BOUNDS) > CAPNG_NONE)
		log_warning("the worker keeps a bounding set: started without CAP_SETPCAP");
	/* Cleared by the change of user; without it there is no core file and no /proc entry of our
	 * own. */
	(void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	return 0;
}

uint64_t priv_raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		(void)getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur;
}
