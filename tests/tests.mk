# Tests. `make check` is the lean suite that CI runs; `make check-all` adds sanitizers and the long cases.

PYTEST ?= /usr/bin/python3 -m pytest
T := $(BUILD)/tests

# Each unit test names exactly the objects it links: a module that reaches upwards stops linking.
CONF_OBJS := addr conf conf_keys conf_server conf_values conf_route conf_ini routes client_hello
UNIT_session_fsm := session_fsm
UNIT_account :=
UNIT_flow_table := flow_table
BALANCE := balance balance_server balance_tier balance_tree maglev cidr
UNIT_balance := $(BALANCE)
UNIT_balance_shares := $(BALANCE)
UNIT_slow_start := $(BALANCE)
UNIT_ejection := $(BALANCE)
UNIT_maglev := $(BALANCE) addr
UNIT_cidr := cidr
UNIT_clients := clients cidr
UNIT_check := $(CONF_OBJS) check check_conn log proxy_proto proxy_v1 proxy_v2 crc32c
PROXY := proxy_proto proxy_v1 proxy_v2 crc32c addr
UNIT_proxy_proto := $(PROXY)
UNIT_client_hello := client_hello
UNIT_routes := routes client_hello
UNIT_queue := queue
UNIT_handover := handover
UNIT_channel := channel
UNIT_relay := relay
UNIT_addr := addr
UNIT_conf := $(CONF_OBJS)
UNIT_conf_keys := $(CONF_OBJS)
UNIT_options := $(CONF_OBJS) options
UNIT_stats := stats slots
UNIT_slots := stats slots
UNIT_metrics := stats slots metrics metrics_text reasons
UNIT_metrics_format := stats slots metrics metrics_text reasons
PROBE_OBJS := probe probe_checks probe_flow probe_overlap probe_pair probe_worker rawseg bpf_obj flow_table \
	log reasons relay sockmap
UNIT_probe := $(PROBE_OBJS)
HTTP := http http_accept http_clients http_listen http_text http_exchange log
API := api api_json api_sessions api_page api_totals
CONTROL := control control_parse
UNIT_http := $(HTTP)
UNIT_http_load := $(HTTP)
UNIT_api := $(API) $(CONTROL) http_text http_accept log stats slots reasons addr
UNIT_control := $(API) $(CONTROL) $(HTTP) stats slots reasons addr
UNIT_ctl := $(UNIT_control)
UNIT_EXTRA_ctl := $(patsubst %.c,%.o,$(filter-out ctl/main.c,$(wildcard ctl/*.c)))

UNITS := session_fsm account flow_table relay balance balance_shares slow_start ejection maglev cidr clients check proxy_proto client_hello routes queue handover channel addr conf conf_keys options stats slots metrics \
	metrics_format http http_load api control ctl probe
UNIT_PROGRAMS := $(UNITS:%=$(T)/test_%)

define unit_rule
$(T)/test_$(1): $(OBJ)/tests/unit/test_$(1).o $(UNIT_$(1):%=$(OBJ)/daemon/%.o) $(UNIT_EXTRA_$(1):%=$(OBJ)/%)
	$(say) LINK $$@
	$(Q)mkdir -p $$(@D)
	$(Q)$(CC) $$(ALL_CFLAGS) $$(ALL_LDFLAGS) -o $$@ $$^ $(LIBS_LDLIBS) $(CTL_LDLIBS) -lcmocka
endef
$(foreach unit,$(UNITS),$(eval $(call unit_rule,$(unit))))

$(OBJ)/tests/%.o: CPPFLAGS += -Idaemon -Itests/unit

unit: $(UNIT_PROGRAMS) ## run the unit tests
	@for t in $(UNIT_PROGRAMS); do $$t || exit 1; done

# --- fuzzing: the seeds are replayed in `make check` ---------------------------------------------------------

FUZZ_addr := daemon/addr.c
FUZZ_conf := $(CONF_OBJS:%=daemon/%.c)
FUZZ_control := daemon/control_parse.c daemon/http_text.c daemon/api_totals.c daemon/stats.c
FUZZ_proxy := $(PROXY:%=daemon/%.c)
FUZZ_hello := daemon/client_hello.c
FUZZERS := addr conf control proxy hello
FUZZ_SECONDS ?= 600
FUZZ_FLAGS := -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined

.SECONDEXPANSION:
$(T)/fuzz_%: tests/fuzz/fuzz_%.c $$(FUZZ_$$*) Makefile
	$(say) FUZZ $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(CPPFLAGS) -Idaemon $(FUZZ_FLAGS) -o $@ $(filter %.c,$^) -linih -ljansson

FUZZ_PROGRAMS := $(FUZZERS:%=$(T)/fuzz_%)

fuzz-seeds: $(FUZZ_PROGRAMS) ## replay the fuzzing seeds
	@for f in $(FUZZERS); do $(T)/fuzz_$$f -runs=0 tests/fuzz/fuzz_$$f.in 2>&1 | tail -n 1 || exit 1; done

fuzz: $(FUZZ_PROGRAMS) ## fuzz each target for FUZZ_SECONDS
	@for f in $(FUZZERS); do mkdir -p build/corpus/$$f; echo "fuzz_$$f: $(FUZZ_SECONDS) s"; \
		$(T)/fuzz_$$f -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/corpus/$$f- \
		-print_final_stats=1 build/corpus/$$f tests/fuzz/fuzz_$$f.in 2>build/corpus/$$f.log \
		|| { tail -n 40 build/corpus/$$f.log; exit 1; }; tail -n 8 build/corpus/$$f.log; done

# --- benchmarks ------------------------------------------------------------------------------------------

$(T)/choose: $(OBJ)/tests/bench/choose.o $(BALANCE:%=$(OBJ)/daemon/%.o) $(OBJ)/daemon/clients.o
	$(say) LINK $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS_LDLIBS)

bench-choose: $(T)/choose ## nanoseconds per choice of a server and per address look-up
	@$(T)/choose

.PHONY: bench-choose

# --- lint ------------------------------------------------------------------------------------------------

lint: ## check style, includes, keys, manual pages and scripts
	@tests/lint/keys
	@tests/lint/includes
	@tests/lint/reasons tests/lint/cases
	@mandoc -Tlint -Wwarning man/*.[158]
	@clang-format --dry-run -Werror $(C_FILES)
	@pyflakes3 tests tests/lint/includes tests/lint/keys tests/lint/reasons tests/lint/cases
	@shellcheck $$(grep -lE '^#!.*\b(ba)?sh\b' -r .ci tests --include=* 2>/dev/null) debian/shunt.prerm debian/tests/web debian/tests/probe

C_FILES = $(wildcard bpf/*.[ch] daemon/*.[ch] ctl/*.[ch] tests/*/*.[ch])

# --- suites ----------------------------------------------------------------------------------------------

check: ## the lean suite: units, seeds, lint, traffic (installs what it needs)
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory check-run WERROR=1

# The probe must fail where a countermeasure is taken out: a build of its own has the switch.
sabotage: ## the self-test's own test: every missing countermeasure must be noticed
	@$(MAKE) --no-print-directory VARIANT=sabotage build/sabotage/tests/test_probe
	@build/sabotage/tests/test_probe

check-run: all unit sabotage fuzz-seeds lint
	SHUNTD=$(CURDIR)/$(BUILD)/shuntd $(PYTEST) -q -c tests/pytest.ini \
		--junitxml=$(BUILD)/traffic.xml tests/net
	@tests/lint/cases $(BUILD)/traffic.xml
	SHUNTD=$(CURDIR)/$(BUILD)/shuntd $(PYTEST) -q -c tests/pytest.ini tests/package

check-sanitizers: ## the traffic tests with ASan+UBSan and with TSan
	@$(MAKE) --no-print-directory deps
	@for v in asan tsan; do $(MAKE) --no-print-directory VARIANT=$$v all unit && \
		SHUNTD=$(CURDIR)/build/$$v/shuntd $(PYTEST) -q -c tests/pytest.ini \
		-m "not long and not resources" tests/net || exit 1; done

check-all: check check-sanitizers ## everything, with the long cases
	SHUNTD=$(CURDIR)/$(BUILD)/shuntd $(PYTEST) -q -c tests/pytest.ini -m long tests/net

.PHONY: unit sabotage fuzz-seeds fuzz lint check check-run check-sanitizers check-all

demo: ## a web server behind shunt, real clients in each path (installs what it needs)
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all
	@SHUNTD=$(CURDIR)/$(BUILD)/shuntd /usr/bin/python3 tests/demo/demo.py

.PHONY: demo
