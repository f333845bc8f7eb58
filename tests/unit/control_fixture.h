/* SPDX-License-Identifier: BSD-2-Clause */
/* The control server of a fake daemon on a UNIX socket, with its log in a file. After cmocka.h. */
#ifndef SHUNT_TESTS_CONTROL_FIXTURE_H
#define SHUNT_TESTS_CONTROL_FIXTURE_H

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "api_fixture.h"

struct daemon {
	struct world *world;
	struct http *http;
	int listen_fd, log_fd, stderr_fd;
	char dir[32];
	struct sockaddr_un socket;
};

static inline int daemon_new(void **state)
{
	struct daemon *daemon = calloc(1, sizeof(*daemon));
	struct http_handlers handlers = {.handle = control_handle, .writable = true};

	if (!daemon || world_new((void **)&daemon->world) < 0)
		return -1;
	*state = daemon;
	snprintf(daemon->dir, sizeof(daemon->dir), "%s/shunt-XXXXXX", P_tmpdir);
	if (!mkdtemp(daemon->dir))
		return -1;
	daemon->socket.sun_family = AF_UNIX;
	snprintf(daemon->socket.sun_path, sizeof(daemon->socket.sun_path), "%s/control",
		daemon->dir);
	daemon->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(daemon->listen_fd, (struct sockaddr *)&daemon->socket, sizeof(daemon->socket)) <
			0 ||
		listen(daemon->listen_fd, 16) < 0)
		return -1;
	daemon->log_fd = open(P_tmpdir, O_RDWR | O_TMPFILE | O_CLOEXEC | O_APPEND, 0600);
	daemon->stderr_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (daemon->log_fd < 0 || dup2(daemon->log_fd, STDERR_FILENO) < 0)
		return -1;
	handlers.arg = &daemon->world->control;
	return http_start(&daemon->listen_fd, 1, &handlers, &daemon->http);
}

static inline int daemon_free(void **state)
{
	struct daemon *daemon = *state;

	http_stop(daemon->http);
	dup2(daemon->stderr_fd, STDERR_FILENO);
	close(daemon->stderr_fd);
	close(daemon->log_fd);
	close(daemon->listen_fd);
	unlink(daemon->socket.sun_path);
	rmdir(daemon->dir);
	world_free((void **)&daemon->world);
	free(daemon);
	return 0;
}

/* What was logged so far. The caller frees it. */
static inline char *daemon_log(const struct daemon *daemon)
{
	char *text = calloc(1, 1 << 16);

	assert_non_null(text);
	assert_true(pread(daemon->log_fd, text, (1 << 16) - 1, 0) >= 0);
	return text;
}

static inline unsigned int count_in_log(const struct daemon *daemon, const char *line)
{
	char *text = daemon_log(daemon);
	unsigned int n = 0;

	for (const char *found = strstr(text, line); found; found = strstr(found + 1, line))
		n++;
	free(text);
	return n;
}

#endif
