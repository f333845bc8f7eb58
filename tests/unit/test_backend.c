/* SPDX-License-Identifier: BSD-2-Clause */
/* The choice of a server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../daemon/backend.h"

static struct backend_choice *with_weights(struct conf *conf, struct conf_backend *backend,
	struct conf_server *servers, unsigned int n)
{
	*backend = (struct conf_backend){.servers = servers, .nservers = n};
	*conf = (struct conf){.backends = backend, .nbackends = 1};
	return backend_choices_new(conf);
}

static void weights_are_kept_smoothly(void **state)
{
	struct conf_server servers[] = {{.weight = 5}, {.weight = 1}, {.weight = 1}};
	static const int expected[] = {0, 0, 1, 0, 2, 0, 0};
	struct conf conf;
	struct conf_backend backend;
	struct backend_choice *choices = with_weights(&conf, &backend, servers, 3);

	(void)state;
	for (int round = 0; round < 3; round++)
		for (unsigned int i = 0; i < 7; i++)
			assert_int_equal(backend_pick(choices), expected[i]);
	backend_choices_free(choices, 1);
}

static void a_drained_server_is_never_chosen(void **state)
{
	struct conf_server servers[] = {{.weight = 0}, {.weight = 3}, {.weight = 0}};
	struct conf conf;
	struct conf_backend backend;
	struct backend_choice *choices = with_weights(&conf, &backend, servers, 3);

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(backend_pick(choices), 1);
	backend_choices_free(choices, 1);
}

static void no_server_is_an_answer(void **state)
{
	struct conf_server servers[] = {{.weight = 0}};
	struct conf conf;
	struct conf_backend backend;
	struct backend_choice *choices = with_weights(&conf, &backend, servers, 1);

	(void)state;
	assert_int_equal(backend_pick(choices), -1);
	backend_choices_free(choices, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(weights_are_kept_smoothly),
		cmocka_unit_test(a_drained_server_is_never_chosen),
		cmocka_unit_test(no_server_is_an_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
