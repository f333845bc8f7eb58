/* SPDX-License-Identifier: BSD-2-Clause */
#include "health.h"

#include <errno.h>
#include <stdlib.h>

#include "check.h"
#include "log.h"

enum health_message { HEALTH_SET, HEALTH_CHANGED, HEALTH_STOP };

struct health {
	pthread_t id;
	struct loop loop;
	struct thread_shared *shared;
	struct generation *generation; /* of the checks now */
	struct checker *checker;
};

/* Whoever waits for a server of this backend chooses again. */
static void wake_queue(struct health *health, unsigned int slot)
{
	const struct conf *conf = health->generation->conf;

	for (unsigned int i = 0; i < conf->nbackends; i++)
		for (unsigned int j = 0; j < conf->backends[i].nservers; j++)
			if (conf->backends[i].servers[j].slot == slot)
				queue_grant(health->generation->queues[i]);
}

static void on_change(void *arg, unsigned int slot, bool up, const char *why)
{
	struct health *health = arg;

	(void)why;
	/* Down as well: a backup may serve those that waited for a full server. */
	wake_queue(health, slot);
	for (unsigned int i = 0; !up && i < health->shared->nthreads; i++)
		thread_server_down(&health->shared->threads[i], slot);
}

static int set(struct health *health, struct generation *generation)
{
	struct generation *old = health->generation;

	health->generation = generation;
	generation_unref(old);
	return checker_set(health->checker, generation->conf, health->shared->stats->server_state);
}

static void on_message(struct loop *loop, const struct loop_message *message)
{
	struct health *health = loop->arg;

	switch ((enum health_message)message->kind) {
	case HEALTH_SET:
		if (set(health, message->data))
			log_error("health checks: out of memory: the old ones go on");
		break;
	case HEALTH_CHANGED:
		wake_queue(health, (unsigned int)message->value);
		break;
	case HEALTH_STOP:
		loop_stop(loop);
		break;
	}
}

static void *health_main(void *arg)
{
	struct health *health = arg;

	loop_run(&health->loop);
	return NULL;
}

int health_start(struct thread_shared *shared, struct generation *generation, struct health **ret)
{
	struct health *health = calloc(1, sizeof(*health));
	int err;

	if (!health)
		return -ENOMEM;
	health->shared = shared;
	err = loop_init(&health->loop, on_message, health);
	if (err) {
		free(health);
		return err;
	}
	health->checker = checker_new(health->loop.ev, on_change, health);
	err = health->checker ? set(health, generation_ref(generation)) : -ENOMEM;
	err = err ?: -pthread_create(&health->id, NULL, health_main, health);
	if (err) {
		checker_free(health->checker);
		generation_unref(health->generation);
		loop_done(&health->loop);
		free(health);
		return err;
	}
	*ret = health;
	return 0;
}

static int post(struct health *health, enum health_message kind, uint64_t value, void *data)
{
	struct loop_message message = {.kind = kind, .value = value, .data = data};

	return loop_post(&health->loop, &message);
}

void health_set(struct health *health, struct generation *generation)
{
	if (!post(health, HEALTH_SET, 0, generation_ref(generation)))
		return;
	generation_unref(generation);
	log_error("health checks: out of memory: the old ones go on");
}

void health_server_changed(struct health *health, unsigned int slot)
{
	(void)post(health, HEALTH_CHANGED, slot, NULL);
}

void health_stop(struct health *health)
{
	if (!health)
		return;
	while (post(health, HEALTH_STOP, 0, NULL))
		; /* it must end before what it uses is freed */
	pthread_join(health->id, NULL);
	checker_free(health->checker);
	generation_unref(health->generation);
	loop_done(&health->loop);
	free(health);
}
