/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the command line. Must not act on it: it opens, prints and starts nothing but usage errors.
 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include "conf_keys.h"

#ifndef SHUNT_VERSION
#error "SHUNT_VERSION is given by the build"
#endif

/* Option characters of those that have no short form. */
enum {
	OPT_LISTEN = 256,
	OPT_TO,
	OPT_SHORTCUT,
	OPT_GLOBAL, /* the long name is the key's name in [global] */
	OPT_PROBE,
	OPT_JSON,
	OPT_DUMP,
};

static const struct option long_options[] = {
	{"config", required_argument, NULL, 'c'},
	{"check", no_argument, NULL, 't'},
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"to", required_argument, NULL, OPT_TO},
	{"path", required_argument, NULL, OPT_GLOBAL},
	{"parser", required_argument, NULL, OPT_GLOBAL},
	{"threads", required_argument, NULL, OPT_GLOBAL},
	{"stats", required_argument, NULL, OPT_GLOBAL},
	{"control", required_argument, NULL, OPT_GLOBAL},
	{"user", required_argument, NULL, OPT_GLOBAL},
	{"shortcut", no_argument, NULL, OPT_SHORTCUT},
	{"probe", no_argument, NULL, OPT_PROBE},
	{"json", no_argument, NULL, OPT_JSON},
	{"dump-config", no_argument, NULL, OPT_DUMP},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

/* What was seen so far, beside the result. */
struct parse {
	struct options *options;
	unsigned int nlisten, nto;
	const char *action_name; /* the option that set the action */
};

PRINTF(1, 2) static int usage_error(const char *fmt, ...)
{
	va_list ap;

	fputs("shuntd: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry 'shuntd --help'.\n", stderr);
	return -EINVAL;
}

static int set_action(struct parse *parse, enum options_action action, const char *name)
{
	if (parse->action_name && strcmp(parse->action_name, name) != 0)
		return usage_error("%s and %s do not go together", parse->action_name, name);
	parse->action_name = name;
	parse->options->action = action;
	return 0;
}

static int add_end(const char **ends, unsigned int *n, const char *value)
{
	if (*n == OPTIONS_PAIRS_MAX)
		return usage_error("at most %d pairs of --listen and --to", OPTIONS_PAIRS_MAX);
	ends[(*n)++] = value;
	return 0;
}

static int add_global(struct options *options, const char *key, const char *value)
{
	bool repeatable = conf_key_find(CONF_GLOBAL, key)->flags & CONF_REPEATABLE;

	for (unsigned int i = 0; i < options->nglobals; i++) {
		if (!repeatable && strcmp(options->globals[i].key, key) == 0)
			return usage_error("--%s is given twice", key);
	}
	if (options->nglobals == OPTIONS_GLOBALS_MAX)
		return usage_error("too many options");
	options->globals[options->nglobals++] = (struct options_global){key, value};
	return 0;
}

static int set_config(struct options *options, const char *value)
{
	if (options->config)
		return usage_error("--config is given twice");
	options->config = value;
	return 0;
}

/* Returns 0 to go on, 1 when nothing else matters any more, -EINVAL after a message. */
static int handle_option(struct parse *parse, int opt, int index)
{
	struct options *options = parse->options;

	switch (opt) {
	case 'c':
		return set_config(options, optarg);
	case 't':
		return set_action(parse, OPTIONS_CHECK, "--check");
	case OPT_LISTEN:
		return add_end(options->listen, &parse->nlisten, optarg);
	case OPT_TO:
		return add_end(options->to, &parse->nto, optarg);
	case OPT_GLOBAL:
		return add_global(options, long_options[index].name, optarg);
	case OPT_SHORTCUT:
		return usage_error("--shortcut: not supported yet");
	case OPT_PROBE:
		return set_action(parse, OPTIONS_PROBE, "--probe");
	case OPT_JSON:
		options->json = true;
		return 0;
	case OPT_DUMP:
		return set_action(parse, OPTIONS_DUMP, "--dump-config");
	case 'V':
		options->action = OPTIONS_VERSION;
		return 1;
	case 'h':
		options->action = OPTIONS_HELP;
		return 1;
	default:
		return -EINVAL;
	}
}

/* getopt leaves the short letter in optopt, and for a long option only its place in argv. */
static int option_error(int opt, char **argv)
{
	const char *text = argv[optind - 1];

	if (opt == ':' && optopt < 256 && text[1] != '-')
		return usage_error("option '-%c' needs a value", optopt);
	if (opt == ':')
		return usage_error("option '%s' needs a value", text);
	if (optopt > 0 && optopt < 256 && strncmp(text, "--", 2) != 0)
		return usage_error("unknown option '-%c'", optopt);
	if (optopt)
		return usage_error("option '%s' takes no value", text);
	return usage_error("unknown or ambiguous option '%s'", text);
}

/* One end without the other, and options that would be ignored without a word. */
static int check_form(const struct parse *parse)
{
	const struct options *options = parse->options;

	if (parse->nlisten != parse->nto)
		return usage_error("--listen and --to go in pairs: %u and %u are given",
			parse->nlisten, parse->nto);
	if (parse->nlisten && options->config)
		return usage_error("--listen and --config do not go together");
	if (options->nglobals && !parse->nlisten)
		return usage_error("--%s goes with --listen and --to; with a file, set '%s' in it",
			options->globals[0].key, options->globals[0].key);
	if (options->json && options->action != OPTIONS_PROBE)
		return usage_error("--json goes with --probe");
	if (options->action == OPTIONS_PROBE && (parse->nlisten || options->config))
		return usage_error("--probe needs no configuration");
	return 0;
}

static int check_values(const struct options *options)
{
	struct conf_error error;
	struct conf *conf;

	if (options->config)
		return 0;
	conf = options_conf(options, &error);
	if (!conf)
		return usage_error("%s", error.text);
	conf_free(conf);
	return 0;
}

int options_parse(int argc, char **argv, struct options *ret)
{
	struct options options = {.action = OPTIONS_RUN};
	struct parse parse = {.options = &options};
	int opt, err = 0, index = 0;

	opterr = 0;
	optind = 0; /* not 1: glibc then forgets what an earlier call left */
	while (!err && (opt = getopt_long(argc, argv, "+:c:tVh", long_options, &index)) != -1)
		err = opt == '?' || opt == ':' ? option_error(opt, argv)
					       : handle_option(&parse, opt, index);
	if (err == 0 && optind < argc)
		err = usage_error("unexpected argument '%s'", argv[optind]);
	if (err == 0)
		err = check_form(&parse);
	if (err == 0) {
		options.npairs = parse.nlisten;
		if (!options.npairs && !options.config)
			options.config = OPTIONS_CONFIG_DEFAULT;
		err = check_values(&options);
	}
	if (err < 0)
		return err;
	*ret = options;
	return 0;
}

static int apply_global(
	struct conf *conf, const struct options_global *global, struct conf_error *error)
{
	const struct conf_key *key = conf_key_find(CONF_GLOBAL, global->key);
	struct conf_error why;
	int err = conf_key_set(key, conf, global->value, 0, &why);

	if (err)
		conf_error_set(error, "--%s: %.400s", global->key, why.text);
	return err;
}

static int build(struct conf *conf, const struct options *options, struct conf_error *error)
{
	int err = 0;

	for (unsigned int i = 0; i < options->nglobals && !err; i++)
		err = apply_global(conf, &options->globals[i], error);
	for (unsigned int i = 0; i < options->npairs && !err; i++)
		err = conf_add_pair(conf, options->listen[i], options->to[i], error);
	return err ? err : conf_finish(conf, error);
}

struct conf *options_conf(const struct options *options, struct conf_error *error)
{
	struct conf *conf;

	if (options->config)
		return conf_read_file(options->config, error);
	conf = conf_new();
	if (!conf) {
		conf_error_set(error, "out of memory");
		return NULL;
	}
	if (build(conf, options, error) == 0)
		return conf;
	conf_free(conf);
	return NULL;
}

void options_print_version(FILE *out)
{
	fputs("shuntd " SHUNT_VERSION "\n", out);
}

void options_print_help(FILE *out)
{
	fputs("Usage: shuntd [-c FILE] [-t | --dump-config]\n"
	      "       shuntd --listen ADDR --to ADDR [option]...\n"
	      "       shuntd --probe [--json]\n"
	      "\n"
	      "  -c, --config FILE   configuration file (default " OPTIONS_CONFIG_DEFAULT ")\n"
	      "  -t, --check         check the configuration: exit 0 if valid, 1 if not\n"
	      "      --dump-config   print the effective configuration\n"
	      "      --probe         print what this kernel can do; with --json as JSON\n"
	      "  -V, --version       print the version\n"
	      "  -h, --help          print this help\n"
	      "\n"
	      "Without a configuration file:\n"
	      "      --listen ADDR   accept connections here (repeatable, in pairs with --to)\n"
	      "      --to ADDR       server for the --listen of the same rank\n"
	      "      --path PATH     auto, sockmap or relay\n"
	      "      --parser MODE   auto, stream or none\n"
	      "      --threads N     event loops; auto: one per CPU\n"
	      "      --stats ADDR    serve metrics and state over HTTP (repeatable)\n"
	      "      --control ADDR  UNIX socket that takes changes\n"
	      "      --user NAME     account of the worker\n"
	      "\n"
	      "Addresses: 1.2.3.4:80, [::1]:80, *:80 (IPv4 and IPv6), unix:/path\n",
		out);
}
