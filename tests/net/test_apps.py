# SPDX-License-Identifier: BSD-2-Clause
"""Real servers behind shunt, used by their own clients: no error, and the small messages take the kernel path."""

import hashlib
import re

import pytest

from apps import Nginx, Postgres, Redis, download, redis_benchmark, run, wrk
from stage import LOOPBACK

MB = 1024 * 1024


def server_fixture(kind):
    @pytest.fixture(scope="module")
    def server():
        server = kind()
        yield server
        server.close()

    return server


nginx = server_fixture(Nginx)
redis = server_fixture(Redis)
postgres = server_fixture(Postgres)

pytestmark = pytest.mark.modes(*LOOPBACK)


def behind(own_stage, server):
    """(stage, port of shunt) in front of the server. Clients may close as they like."""
    stage = own_stage(to=f"127.0.0.1:{server.port}")
    stage.allow(ends={"client_abort", "server_abort"})
    return stage, stage.address[1]


def small_messages_took_the_path(stage):
    """At least 99 % of all bytes."""
    delta = stage.wait_idle().since(stage.base)
    moved = stage.bytes(delta)
    total = sum(moved.values())
    assert total > 0
    share = sum(count for (_, path), count in moved.items() if path == stage.mode.path) / total
    print(f"{total} bytes, {share:.2%} by {stage.mode.path}, {stage.overflows(delta)} overflows")
    assert share >= 0.99, f"{share:.2%} of the bytes took {stage.mode.path}: {moved}"


def downloaded_exactly(own_stage, nginx, megabytes):
    stage, port = behind(own_stage, nginx)
    name, digest = nginx.file(megabytes)
    assert download(f"http://127.0.0.1:{port}/{name}") == (megabytes * MB, digest)
    stage.prove()


def test_nginx_download_is_exact(own_stage, nginx):
    downloaded_exactly(own_stage, nginx, 200)


@pytest.mark.long
def test_nginx_download_of_2_gb_is_exact(own_stage, nginx):
    downloaded_exactly(own_stage, nginx, 2048)


def test_slow_download_is_exact(own_stage, nginx):
    """curl reads at a limited rate, so nginx is held back all the time."""
    stage, port = behind(own_stage, nginx)
    name, digest = nginx.file(40)
    output = run("sh", "-c", f"curl --silent --show-error --fail --limit-rate 15M http://127.0.0.1:{port}/{name} "
                 "| sha256sum")
    assert output.split()[0] == digest
    stage.prove()


def test_nginx_upload_is_exact(own_stage, nginx):
    stage, port = behind(own_stage, nginx)
    name, digest = nginx.file(100)
    run("curl", "--silent", "--show-error", "--fail", "-T", f"{nginx.dir}/www/{name}",
        f"http://127.0.0.1:{port}/upload/{name}")
    with open(f"{nginx.dir}/www/upload/{name}", "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == digest
    stage.prove()


def requests_without_error(own_stage, nginx, seconds):
    stage, port = behind(own_stage, nginx)
    stage.allow(fallbacks={"half_closed"})  # wrk looks first whether anybody listens
    assert wrk(f"http://127.0.0.1:{port}/small", seconds) > 1000
    small_messages_took_the_path(stage)


def test_wrk_against_nginx_has_no_error(own_stage, nginx):
    requests_without_error(own_stage, nginx, 3)


@pytest.mark.long
def test_wrk_against_nginx_has_no_error_for_a_minute(own_stage, nginx):
    requests_without_error(own_stage, nginx, 60)


def test_a_connection_per_request_has_no_error(own_stage, nginx):
    """The server closes after each answer; some sessions are half closed before they can be spliced."""
    stage, port = behind(own_stage, nginx)
    stage.allow(fallbacks={"half_closed"})
    assert wrk(f"http://127.0.0.1:{port}/small", 2, "-H", "Connection: close") > 200
    stage.prove()


def redis_without_error(own_stage, redis, requests):
    stage, port = behind(own_stage, redis)
    output = redis_benchmark(port, requests, "-t", "ping,set,get,incr,lpush,lrange_100,mset", "-d", "200")
    assert output.count("requests per second") >= 7, output
    small_messages_took_the_path(stage)


def test_redis_benchmark_has_no_error(own_stage, redis):
    redis_without_error(own_stage, redis, 10000)


@pytest.mark.long
def test_redis_benchmark_has_no_error_with_300000_requests(own_stage, redis):
    redis_without_error(own_stage, redis, 300000)


def test_redis_benchmark_with_pipelining_has_no_error(own_stage, redis):
    stage, port = behind(own_stage, redis)
    output = redis_benchmark(port, 200000, "-t", "ping,set,get", "-P", "16")
    assert output.count("requests per second") >= 3, output
    small_messages_took_the_path(stage)


def test_redis_keeps_large_values_exactly(own_stage, redis):
    stage, port = behind(own_stage, redis)
    value = hashlib.shake_128(b"value").hexdigest(2 * MB)
    for number in range(4):
        assert run("redis-cli", "-p", port, "-x", "set", f"key{number}", input=value).strip() == "OK"
        got = run("redis-cli", "-p", port, "--raw", "get", f"key{number}").rstrip("\n")
        assert hashlib.sha256(got.encode()).digest() == hashlib.sha256(value.encode()).digest()
    stage.prove()


def pgbench_without_error(own_stage, postgres, seconds):
    stage, port = behind(own_stage, postgres)
    postgres.pgbench(postgres.port, "-i", "-q", "-s", "2")
    for script in ("tpcb-like", "select-only"):
        output = postgres.pgbench(port, "-c", "8", "-j", "2", "-T", seconds, "-b", script)
        assert int(re.search(r"number of transactions actually processed: (\d+)", output).group(1)) > 100, output
        assert re.search(r"number of failed transactions: 0 ", output), output
    for prepared in ("extended", "prepared"):
        postgres.pgbench(port, "-c", "4", "-j", "2", "-t", "200", "-S", "-M", prepared)
    balances = postgres.psql(port, "select (select sum(abalance) from pgbench_accounts) = "
                             "(select sum(bbalance) from pgbench_branches)")
    assert balances.strip() == "t"
    small_messages_took_the_path(stage)


def test_pgbench_has_no_error(own_stage, postgres):
    pgbench_without_error(own_stage, postgres, 2)


@pytest.mark.long
def test_pgbench_has_no_error_for_a_minute(own_stage, postgres):
    pgbench_without_error(own_stage, postgres, 30)


def test_postgres_copies_exactly(own_stage, postgres):
    """Bulk requests and bulk answers of a protocol with messages."""
    stage, port = behind(own_stage, postgres)
    postgres.pgbench(port, "-i", "-q", "-s", "2")
    assert postgres.psql(port, "select count(*), sum(aid) from pgbench_accounts").strip() == "200000|20000100000"
    count, digest = postgres.psql(port, "select count(*), md5(string_agg(line, '')) from (select repeat(i::text, 50) "
                                  "as line from generate_series(1, 100000) i) lines").strip().split("|")
    text = postgres.psql(port, "copy (select repeat(i::text, 50) from generate_series(1, 100000) i) to stdout")
    assert int(count) == text.count("\n")
    assert hashlib.md5(text.replace("\n", "").encode()).hexdigest() == digest
    stage.prove()
