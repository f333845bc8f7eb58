# The Debian packages, in one place. Names as in Debian 12.

PACKAGES_BUILD := gcc make pkg-config libc6-dev linux-libc-dev clang llvm bpftool libbpf-dev libev-dev \
	libinih-dev libmicrohttpd-dev libjansson-dev libcap-ng-dev libsystemd-dev libcurl4-openssl-dev \
	libncurses-dev uthash-dev

PACKAGES_TEST := libcmocka-dev python3 python3-pytest iproute2 procps curl nginx-light redis-server \
	redis-tools wrk postgresql postgresql-contrib haproxy prometheus mandoc shellcheck pyflakes3 cppcheck \
	clang-format clang-tidy util-linux ca-certificates libclang-rt-14-dev systemd dpkg-dev libnginx-mod-stream openssl

# Installs only what is missing: a second run asks no package server. Services that Debian starts on
# installation stay off: the tests start their own.
define install_packages
	@missing=$$(for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	[ -z "$$missing" ] || { echo "installing:" $$missing; \
		printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d.shunt && chmod 755 /usr/sbin/policy-rc.d.shunt; \
		[ -e /usr/sbin/policy-rc.d ] && own= || { own=1; mv /usr/sbin/policy-rc.d.shunt /usr/sbin/policy-rc.d; }; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $$missing; \
		status=$$?; rm -f /usr/sbin/policy-rc.d.shunt; [ -z "$$own" ] || rm -f /usr/sbin/policy-rc.d; exit $$status; }
endef
