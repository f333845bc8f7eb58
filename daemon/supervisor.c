/* SPDX-License-Identifier: BSD-2-Clause */
#include "supervisor.h"

#include <errno.h>
#include <ev.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "bind.h"
#include "bpf_obj.h"
#include "channel.h"
#include "kernel_path.h"
#include "log.h"
#include "priv.h"
#include "worker.h"

/* This many deaths within the window, and the next start waits: a crash loop must not eat a CPU. */
#define DEATHS_MAX 5
#define DEATHS_WINDOW_NS 10000000000ull
#define RESTART_PAUSE_S 1.0

/* Descriptors that are not session sockets: standard streams, maps, loops, HTTP, log, and some pipes. */
#define FDS_RESERVED 256
/* An idle daemon pays for its tables: more sessions than this are asked for by max_sessions. */
#define MAX_SESSIONS_AUTO 32768

struct supervisor {
	struct conf *conf;
	struct worker_setup setup;
	struct bpf_obj bpf;
	struct bounds bounds;
	int *stats_fds;
	struct ev_loop *ev;
	ev_signal signals[5];
	ev_child child;
	ev_io channel;
	ev_timer restart;
	pid_t pid;
	int channel_fds[2];
	uint64_t deaths[DEATHS_MAX]; /* when; a ring */
	unsigned int ndeaths;
	bool ever_ready, stopping;
	int status;
};

static int start_worker(struct supervisor *sup);

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
		log_warning("max_sessions = %llu needs more than the %llu descriptors allowed here: "
			    "serving %llu (raise LimitNOFILE)",
			(unsigned long long)conf->max_sessions, (unsigned long long)nofile,
			(unsigned long long)possible);
	return (uint32_t)MIN(conf->max_sessions, possible);
}

static int bind_stats(struct supervisor *sup)
{
	const struct conf *conf = sup->conf;

	sup->stats_fds = calloc(conf->stats.n + 1, sizeof(int));
	if (!sup->stats_fds)
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
		sup->stats_fds[sup->setup.nstats_fds++] = fd;
	}
	return 0;
}

static void unlink_sockets(const struct conf_addrs *addrs)
{
	for (unsigned int i = 0; i < addrs->n; i++)
		if (addr_is_unix(&addrs->v[i]) && addrs->v[i].un.sun_path[0])
			(void)unlink(addrs->v[i].un.sun_path);
}

/* In the child: nothing of the supervisor's loop may live on. */
static void become_worker(struct supervisor *sup)
{
	sigset_t none;
	pid_t parent = getppid();

	ev_loop_destroy(sup->ev);
	close(sup->channel_fds[0]);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* It may have died before that call. */
	if (getppid() != parent)
		_exit(1);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	sup->setup.channel_fd = sup->channel_fds[1];
	exit(worker_main(&sup->setup));
}

static void channel_cb(struct ev_loop *ev, ev_io *io, int revents)
{
	struct supervisor *sup = io->data;
	struct channel_message message;
	int err = channel_receive(io->fd, &message);

	(void)revents;
	if (err == -EAGAIN)
		return;
	if (err) {
		ev_io_stop(ev, io); /* its end follows as SIGCHLD */
		return;
	}
	if (message.kind != CHANNEL_READY) {
		log_error("message of unknown kind %u from the worker: ignoring", message.kind);
		return;
	}
	log_notice(sup->ever_ready ? "worker %d ready" : "ready", (int)sup->pid);
	if (!sup->ever_ready)
		(void)sd_notify(0, "READY=1\nSTATUS=Serving");
	sup->ever_ready = true;
}

static int start_worker(struct supervisor *sup)
{
	int err = channel_open(sup->channel_fds);

	if (err)
		return err;
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
	uint64_t oldest = sup->deaths[sup->ndeaths % DEATHS_MAX];

	sup->deaths[sup->ndeaths % DEATHS_MAX] = now;
	sup->ndeaths++;
	return sup->ndeaths > DEATHS_MAX && now - oldest < DEATHS_WINDOW_NS;
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
	stats_worker_died(sup->setup.stats);
	stats_add(&sup->setup.stats->worker_restarts, 1);
	if (sup->setup.bpf)
		bpf_obj_reset(sup->setup.bpf);
	if (!note_death(sup)) {
		log_warning("worker %d: %s: its sessions are reset, starting a new one", (int)sup->pid, how);
		restart(sup);
		return;
	}
	log_error("worker %d: %s: %d deaths in a short time, pausing for a second", (int)sup->pid, how,
		DEATHS_MAX);
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
	(void)sd_notify(0, "STOPPING=1");
	/* Ours first: the worker then takes what is in the backlogs, and its close is the last one. */
	if (!sup->stopping)
		bind_close(&sup->bounds);
	sup->stopping = true;
	if (ev_is_active(&sup->restart) || channel_send(sup->channel_fds[0], order,
						   sup->conf->drain_timeout_ms))
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
	err = err ?: bind_listeners(conf, setup->threads, &sup->bounds);
	err = err ?: bind_stats(sup);
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
	for (unsigned int i = 0; i < sup->conf->nlisteners; i++)
		unlink_sockets(&sup->conf->listeners[i].binds);
	unlink_sockets(&sup->conf->stats);
	bind_close(&sup->bounds);
	for (unsigned int i = 0; i < sup->setup.nstats_fds; i++)
		close(sup->stats_fds[i]);
	free(sup->stats_fds);
	if (sup->setup.bpf)
		bpf_obj_close(&sup->bpf);
	stats_free(sup->setup.stats);
}

int supervisor_run(struct conf *conf)
{
	struct supervisor sup = {.conf = conf, .status = 1};
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
