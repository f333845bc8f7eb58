# shunt: one Makefile for everything. `make help` lists the targets.
# Variables: V=1 (show commands), VARIANT=release|asan|tsan|cov|sabotage, WERROR=1, PREFIX, DESTDIR, CC, CLANG, BPFTOOL.

VERSION := $(shell cat VERSION)

PREFIX ?= /usr
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
SYSCONFDIR ?= /etc
UNITDIR ?= /lib/systemd/system
DESTDIR ?=

CC ?= gcc
CLANG ?= clang
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool /sbin/bpftool) bpftool)
PKG_CONFIG ?= pkg-config
VARIANT ?= release

BUILD ?= $(if $(filter release,$(VARIANT)),build,build/$(VARIANT))
OBJ := $(BUILD)/obj

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-8s %s\n'
endif

include packages.mk

# --- flags -----------------------------------------------------------------------------------------------

LIBS := libbpf libsystemd libmicrohttpd jansson libcap-ng inih
LIBS_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(LIBS) 2>/dev/null)
CTL_LDLIBS := $(shell $(PKG_CONFIG) --libs libcurl jansson ncursesw 2>/dev/null)
LIBS_LDLIBS := $(shell $(PKG_CONFIG) --libs $(LIBS) 2>/dev/null) -lev -lpthread

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wcast-qual
WARN += $(if $(WERROR),-Werror)

CFLAGS_release := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
LDFLAGS_release := -pie -Wl,-z,relro,-z,now
CFLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LDFLAGS_asan := -fsanitize=address,undefined
CFLAGS_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer
LDFLAGS_tsan := -fsanitize=thread
CFLAGS_cov := -O0 --coverage
LDFLAGS_cov := --coverage
CFLAGS_sabotage := -O2 -DSHUNT_SABOTAGE
LDFLAGS_sabotage :=

CPPFLAGS += -D_GNU_SOURCE -DSHUNT_VERSION='"$(VERSION)"' -I$(BUILD)/gen
ALL_CFLAGS = -std=gnu11 -g $(WARN) $(CFLAGS_$(VARIANT)) $(LIBS_CFLAGS) $(CFLAGS)
ALL_LDFLAGS = $(LDFLAGS_$(VARIANT)) $(LDFLAGS)

BPF_ARCH_INCLUDE := -I/usr/include/$(shell $(CC) -print-multiarch)
BPF_CFLAGS := -target bpf -ffile-prefix-map=$(CURDIR)=. -O2 -g -Wall -Wextra -Werror $(BPF_ARCH_INCLUDE) $(if $(filter sabotage,$(VARIANT)),-DSHUNT_SABOTAGE)

# --- programs --------------------------------------------------------------------------------------------

DAEMON_SRCS := $(wildcard daemon/*.c)
DAEMON_OBJS := $(DAEMON_SRCS:%.c=$(OBJ)/%.o)
CTL_SRCS := $(wildcard ctl/*.c)
CTL_OBJS := $(CTL_SRCS:%.c=$(OBJ)/%.o)

.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:

all: $(BUILD)/shuntd $(if $(CTL_SRCS),$(BUILD)/shuntctl) ## build the programs (default)

$(BUILD)/shuntd: $(DAEMON_OBJS)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS_LDLIBS)

$(BUILD)/shuntctl: $(CTL_OBJS)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(CTL_LDLIBS)

$(OBJ)/%.o: %.c Makefile VERSION | $(BUILD)/gen/splice.skel.h
	$(say) CC $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/gen/%.bpf.o: bpf/%.bpf.c Makefile
	$(say) BPF $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/gen/%.skel.h: $(BUILD)/gen/%.bpf.o
	$(say) SKEL $@
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf > $@

$(OBJ)/daemon/bpf_obj.o: $(BUILD)/gen/splice.skel.h

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# --- tests -----------------------------------------------------------------------------------------------

include tests/tests.mk

# --- packages and installation ---------------------------------------------------------------------------

deps: ## install the Debian packages that building and testing need
	@$(MAKE) --no-print-directory deps-build deps-test

deps-build: ## install what building needs
	$(call install_packages,$(PACKAGES_BUILD))

deps-test: ## install what the tests and the demo need
	$(call install_packages,$(PACKAGES_BUILD) $(PACKAGES_TEST))

install: all ## install below DESTDIR and PREFIX
	install -D -m 755 $(BUILD)/shuntd $(DESTDIR)$(SBINDIR)/shuntd
	$(if $(CTL_SRCS),install -D -m 755 $(BUILD)/shuntctl $(DESTDIR)$(BINDIR)/shuntctl)
	install -D -m 644 conf/shunt.conf $(DESTDIR)$(SYSCONFDIR)/shunt/shunt.conf
	install -D -m 644 systemd/shuntd.service $(DESTDIR)$(UNITDIR)/shuntd.service
	install -D -m 644 systemd/shuntd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/shuntd.conf
	install -D -m 644 conf/completion/shuntctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/shuntctl
	install -D -m 644 conf/completion/_shuntctl $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_shuntctl
	for page in man/*.[158]; do \
		install -D -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/} || exit 1; done

uninstall: ## remove what install wrote, except the configuration
	rm -f $(DESTDIR)$(SBINDIR)/shuntd $(DESTDIR)$(BINDIR)/shuntctl
	rm -f $(DESTDIR)$(UNITDIR)/shuntd.service $(DESTDIR)$(PREFIX)/lib/sysusers.d/shuntd.conf
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/shuntctl \
		$(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_shuntctl
	for page in man/*.[158]; do rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}; done

clean: ## remove everything that was built
	rm -rf build

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile tests/tests.mk | sort | awk -F'\t' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: all clean help deps deps-build deps-test install uninstall
