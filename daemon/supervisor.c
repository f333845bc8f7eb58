/* SPDX-License-Identifier: BSD-2-Clause */
#include "supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "bind.h"
#include "bpf_obj.h"
#include "channel.h"
#include "kernel_path.h"
#include "log.h"
#include "priv.h"
#include "supervisor_state.h"

/* This many deaths within the window, and the next start waits: a crash loop must not eat a CPU. */
#define DEATHS_WINDOW_NS 10000000000ull
#define RESTART_PAUSE_S 1.0

/* Descriptors that are not session sockets: standard streams, maps, loops, HTTP, log, and some
 * pipes. */
#define FDS_RESERVED 256
/* An idle daemon pays for its tables: more sessions than this are asked for by max_sessions. */
#define MAX_SESSIONS_AUTO 32768

static int start_worker(struct supervisor *sup);
static void on_stop(struct supervisor *sup);

static unsigned int count_cpus(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > 0 ? (unsigned int)n : 1;
}

/* What the descriptors allow, two a session; never a table sized by a huge RLIMIT_NOFILE alone. */
static uint32_t sessions_max(const struct conf *conf, const struct bounds *bounds)
{
	uint64_t nofile = priv_raise_nofile();
	uint64_t reserved = FDS_RESERVED + bounds->n * 2;
	uint64_t possible = nofile > reserved + 2 ? (nofile - reserved) / 2 : 1;

	if (!conf->max_sessions)
		return (uint32_t)MIN(possible, (uint64_t)MAX_SESSIONS_AUTO);
	if (conf->max_sessions > possible)
		log_warning(
			"max_sessions = %llu needs more than the %llu descriptors allowed here: "
			"serving %llu (raise LimitNOFILE)",
			(unsigned long long)conf->max_sessions, (unsigned long long)nofile,
			(unsigned long long)possible);
	return (uint32_t)MIN(conf->max_sessions, possible);
}

static int bind_stats(struct supervisor *sup)
{
	const struct conf *conf = sup->conf;

	sup->stats_fds = calloc(conf->stats.n + 1, sizeof(int));
	sup->stats_addrs = calloc(conf->stats.n + 1, sizeof(struct addr));
	if (!sup->stats_fds || !sup->stats_addrs)
		return -ENOMEM;
	for (unsigned int i = 0; i < conf->stats.n; i++) {
		char text[ADDR_TEXT_MAX];
		int fd = bind_service(&conf->stats.v[i], 0666);

		addr_format(&conf->stats.v[i], text, sizeof(text));
		if (fd < 0) {
			log_error("stats address %s: %s", text, strerror(-fd));
			return fd;
		}
		log_info("statistics on %s", text);
		sup->stats_addrs[sup->setup.nstats_fds] = conf->stats.v[i];
		sup->stats_fds[sup->setup.nstats_fds++] = fd;
	}
	return 0;
}

/* Only those that are ours: an address that could not be bound belongs to somebody else. */
static void close_stats(struct supervisor *sup)
{
	for (unsigned int i = 0; i < sup->setup.nstats_fds; i++) {
		const struct addr *addr = &sup->stats_addrs[i];

		close(sup->stats_fds[i]);
		if (addr_is_unix(addr) && addr->un.sun_path[0])
			(void)unlink(addr->un.sun_path);
	}
	free(sup->stats_fds);
	free(sup->stats_addrs);
}

/* Who may use it: root, and the worker's group (shunt). */
static int bind_control(struct supervisor *sup)
{
	const struct addr *addr = &sup->conf->control;
	char text[ADDR_TEXT_MAX];
	int fd;

	sup->setup.control_fd = -1;
	if (!addr->len)
		return 0;
	fd = bind_service(addr, 0660);
	addr_format(addr, text, sizeof(text));
	if (fd < 0) {
		log_error("control address %s: %s", text, strerror(-fd));
		return fd;
	}
	sup->setup.control_fd = fd;
	sup->control_addr = *addr;
	if (sup->setup.user.change && addr->un.sun_path[0] &&
		chown(addr->un.sun_path, (uid_t)-1, sup->setup.user.gid) < 0)
		log_warning("control address %s: chown: %s, ignoring", text, strerror(errno));
	log_info("control on %s", text);
	return 0;
}

static void close_control(struct supervisor *sup)
{
	if (sup->setup.control_fd < 0)
		return;
	close(sup->setup.control_fd);
	if (sup->control_addr.un.sun_path[0])
		(void)unlink(sup->control_addr.un.sun_path);
}

/* In the child: nothing of the supervisor's loop may live on. */
static void become_worker(struct supervisor *sup)
{
	sigset_t none;

	ev_loop_destroy(sup->ev);
	close(sup->channel_fds[0]);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	sup->setup.channel_fd = sup->channel_fds[1];
	exit(worker_main(&sup->setup));
}

static void on_ready(struct supervisor *sup, uint64_t generation)
{
	if (sup->generation && generation == sup->generation) {
		supervisor_reload_taken(sup, true);
		return;
	}
	sup->ready = true;
	if (sup->ever_ready)
		log_notice("worker %d ready", (int)sup->pid);
	else
		log_notice("ready");
	if (!sup->ever_ready)
		(void)sd_notify(0, "READY=1\nSTATUS=Serving");
	sup->ever_ready = true;
	supervisor_reload_pending(sup);
}

static void on_message(struct supervisor *sup, const struct channel_message *message)
{
	switch ((enum channel_kind)message->kind) {
	case CHANNEL_READY:
		on_ready(sup, message->value);
		break;
	case CHANNEL_CONF_FAILED:
		if (sup->generation && message->value == sup->generation)
			supervisor_reload_taken(sup, false);
		break;
	case CHANNEL_RELOAD:
		supervisor_reload(sup);
		break;
	case CHANNEL_DRAIN_ASKED:
		if (!sup->stopping)
			on_stop(sup);
		break;
	case CHANNEL_LOG_LEVEL:
		if (message->value <= LOG_LEVEL_DEBUG)
			log_set_level((enum log_level)message->value);
		break;
	default:
		log_error("unexpected message %u from the worker: ignoring", message->kind);
	}
}

static void channel_cb(struct ev_loop *ev, ev_io *io, int revents)
{
	struct supervisor *sup = io->data;
	struct channel_message message;
	int fd = -1;
	int err = channel_receive(io->fd, &message, &fd);

	(void)revents;
	if (err == -EAGAIN)
		return;
	if (err == -EPROTO) {
		log_error("malformed message from the worker: ignoring");
		return;
	}
	if (err) {
		ev_io_stop(ev, io); /* its end follows as SIGCHLD */
		return;
	}
	if (fd >= 0)
		close(fd); /* the worker has none to give */
	on_message(sup, &message);
}

static int start_worker(struct supervisor *sup)
{
	int err = channel_open(sup->channel_fds);

	if (err)
		return err;
	sup->setup.supervisor = getpid();
	sup->pid = fork();
	if (sup->pid < 0) {
		err = -errno;
		close(sup->channel_fds[0]);
		close(sup->channel_fds[1]);
		return err;
	}
	if (sup->pid == 0)
		become_worker(sup);
	close(sup->channel_fds[1]);
	ev_io_init(&sup->channel, channel_cb, sup->channel_fds[0], EV_READ);
	sup->channel.data = sup;
	ev_io_start(sup->ev, &sup->channel);
	ev_child_set(&sup->child, sup->pid, 0);
	ev_child_start(sup->ev, &sup->child);
	return 0;
}

static void restart(struct supervisor *sup)
{
	int err = start_worker(sup);

	if (!err)
		return;
	log_error("starting a worker: %s; trying again", strerror(-err));
	ev_timer_set(&sup->restart, RESTART_PAUSE_S, 0.);
	ev_timer_start(sup->ev, &sup->restart);
}

static void restart_cb(struct ev_loop *ev, ev_timer *timer, int revents)
{
	(void)ev;
	(void)revents;
	restart(timer->data);
}

/* True: too many deaths in a short time. */
static bool note_death(struct supervisor *sup)
{
	uint64_t now = now_ns();
	uint64_t oldest = sup->deaths[sup->ndeaths % SUPERVISOR_DEATHS_MAX];

	sup->deaths[sup->ndeaths % SUPERVISOR_DEATHS_MAX] = now;
	sup->ndeaths++;
	return sup->ndeaths > SUPERVISOR_DEATHS_MAX && now - oldest < DEATHS_WINDOW_NS;
}

static void describe(int status, char *text, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(text, size, "killed by signal %d (%s)", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
	else
		snprintf(text, size, "exit status %d", WEXITSTATUS(status));
}

static void worker_died(struct supervisor *sup, const char *how)
{
	if (sup->generation)
		supervisor_reload_abort(sup, "the worker died");
	stats_worker_died(sup->setup.stats);
	stats_add(&sup->setup.stats->worker_restarts, 1);
	if (sup->setup.bpf)
		bpf_obj_reset(sup->setup.bpf);
	if (!note_death(sup)) {
		log_warning("worker %d: %s: its sessions are reset, starting a new one",
			(int)sup->pid, how);
		restart(sup);
		return;
	}
	log_error("worker %d: %s: %d deaths in a short time, pausing for a second", (int)sup->pid,
		how, SUPERVISOR_DEATHS_MAX);
	ev_timer_set(&sup->restart, RESTART_PAUSE_S, 0.);
	ev_timer_start(sup->ev, &sup->restart);
}

static void child_cb(struct ev_loop *ev, ev_child *child, int revents)
{
	struct supervisor *sup = child->data;
	bool clean = WIFEXITED(child->rstatus) && WEXITSTATUS(child->rstatus) == 0;
	char how[80];

	(void)revents;
	ev_child_stop(ev, child);
	ev_io_stop(ev, &sup->channel);
	close(sup->channel_fds[0]);
	sup->ready = false;
	describe(child->rstatus, how, sizeof(how));
	if (!sup->stopping && sup->ever_ready) {
		worker_died(sup, how);
		return;
	}
	if (!clean)
		log_error("worker %d: %s", (int)sup->pid, how);
	sup->status = clean && sup->stopping ? 0 : 1;
	ev_break(ev, EVBREAK_ALL);
}

static void on_stop(struct supervisor *sup)
{
	enum channel_kind order = sup->stopping ? CHANNEL_STOP : CHANNEL_DRAIN;

	log_notice(sup->stopping ? "stopping at once" : "draining for up to %llu ms",
		(unsigned long long)sup->conf->drain_timeout_ms);
	/* Longer than TimeoutStopSec, perhaps: the drain must not be cut short. */
	(void)sd_notifyf(0, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%llu",
		(unsigned long long)(sup->conf->drain_timeout_ms + 5000) * 1000);
	/* Ours first: the worker then takes what is in the backlogs, and its close is the last one.
	 */
	if (!sup->stopping)
		bind_close(&sup->bounds);
	sup->stopping = true;
	if (ev_is_active(&sup->restart) ||
		channel_send(sup->channel_fds[0], order, sup->conf->drain_timeout_ms, -1, NULL))
		ev_break(sup->ev, EVBREAK_ALL);
}

static void signal_cb(struct ev_loop *ev, ev_signal *signal, int revents)
{
	struct supervisor *sup = signal->data;

	(void)ev;
	(void)revents;
	switch (signal->signum) {
	case SIGTERM:
	case SIGINT:
		on_stop(sup);
		break;
	case SIGHUP:
		log_notice("SIGHUP: reloading");
		supervisor_reload(sup);
		break;
	case SIGUSR1:
		log_info("SIGUSR1: logging to stderr, nothing to reopen");
		break;
	default:
		log_warning("signal %d: not supported yet, ignoring", signal->signum);
		break;
	}
}

static void init_watchers(struct supervisor *sup)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};

	for (unsigned int i = 0; i < ARRAY_LEN(signals); i++) {
		ev_signal_init(&sup->signals[i], signal_cb, signals[i]);
		sup->signals[i].data = sup;
		ev_signal_start(sup->ev, &sup->signals[i]);
	}
	ev_child_init(&sup->child, child_cb, 0, 0);
	sup->child.data = sup;
	ev_init(&sup->restart, restart_cb);
	sup->restart.data = sup;
	(void)signal(SIGPIPE, SIG_IGN);
}

static int prepare(struct supervisor *sup)
{
	struct conf *conf = sup->conf;
	struct worker_setup *setup = &sup->setup;
	int err;

	setup->conf = conf;
	setup->threads = conf->threads ? conf->threads : count_cpus();
	err = priv_lookup(conf->user, &setup->user);
	err = err ?: bind_listeners(conf, setup->threads, NULL, &sup->bounds);
	err = err ?: bind_stats(sup);
	if (err)
		return err;
	err = bind_control(sup);
	if (err)
		return err;
	setup->bounds = &sup->bounds;
	setup->stats_fds = sup->stats_fds;
	setup->max_sessions = sessions_max(conf, &sup->bounds);
	err = stats_create(setup->threads, &setup->stats);
	err = err ?: stats_assign(setup->stats, conf);
	if (err)
		return err;
	if (kernel_path_open(conf, setup->max_sessions, &sup->bpf))
		setup->bpf = &sup->bpf;
	log_info("%u threads, up to %u sessions", setup->threads, setup->max_sessions);
	return 0;
}

static void cleanup(struct supervisor *sup)
{
	bind_close(&sup->bounds);
	close_stats(sup);
	close_control(sup);
	if (sup->setup.bpf)
		bpf_obj_close(&sup->bpf);
	stats_free(sup->setup.stats);
	conf_free(sup->conf);
}

int supervisor_run(struct conf *conf)
{
	struct supervisor sup = {
		.conf = conf, .status = 1, .last_generation = 1, .setup.control_fd = -1};
	int err = prepare(&sup);

	if (!err) {
		sup.ev = ev_default_loop(EVFLAG_NOENV);
		if (!sup.ev)
			err = -ENOMEM;
	}
	if (!err) {
		init_watchers(&sup);
		err = start_worker(&sup);
	}
	if (!err) {
		ev_run(sup.ev, 0);
		ev_loop_destroy(sup.ev);
	} else {
		log_error("cannot start: %s", strerror(-err));
	}
	cleanup(&sup);
	return sup.status;
}
