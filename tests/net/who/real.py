# SPDX-License-Identifier: BSD-2-Clause
"""HAProxy and nginx as neighbours of shuntd, with logs that say whom they believe to serve."""

import re

from apps import Nginx, Server, free_port, run
from peer import wait_until
from stage import shown

NAMES = {"web": "web.example.org", "git": "git.example.org", "apps": "*.apps.example.org"}


class HaProxy(Server):
    """frontends: {name: (bind options, backend server line)}; one bind each, at ports[name]."""

    def __init__(self, frontends):
        self.frontends = frontends
        self.ports = {name: free_port() for name in frontends}
        super().__init__()
        self.start = len(self.log())  # what came before is of the look whether it is up

    def prepare(self):
        text = """global
    log stdout format raw local0 info
    maxconn 2000
defaults
    mode tcp
    log global
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    unique-id-format id-%cp
    log-format "%ft %ci %cp %fi %fp %B %ts id=%[fc_pp_unique_id]"
"""
        for name, (bind, to, *more) in self.frontends.items():
            text += f"frontend {name}\n    bind 127.0.0.1:{self.ports[name]} {bind}\n    default_backend {name}_b\n"
            text += f"backend {name}_b\n    server s {to}\n" + "".join(f"    {line}\n" for line in more)
        # Looked at to see whether it is up.
        text += f"frontend up\n    bind 127.0.0.1:{self.port}\n    no log\n    tcp-request connection reject\n"
        with open(f"{self.dir}/conf", "w") as file:
            file.write(text)
        return ["haproxy", "-db", "-f", f"{self.dir}/conf"]

    def seen(self, name):
        """[(client, where it connected to, unique ID)] of the finished connections of a frontend."""
        return [((ci, int(cp)), (fi, int(fp)), unique) for ci, cp, fi, fp, unique in re.findall(
            rf"^{name} (\S+) (\d+) (\S+) (\d+) .* id=(\S+)$", self.log(), re.M)]

    def wait_seen(self, name, count=1):
        return wait_until(f"{count} lines of {name} in HAProxy's log", lambda: (
            found := self.seen(name)) and len(found) >= count and found)


def number(text):
    """A port, or what nginx says in place of one that it was not told."""
    return int(text) if text.isdigit() else text


class NginxStream(Server):
    """nginx's stream module: `accept` takes PROXY headers and logs, `send` puts one in front (version 1)."""

    def __init__(self, to, send_to=None):
        self.to, self.send_to = to, send_to
        self.accept_port, self.check_port, self.send_port = free_port(), free_port(), free_port()
        super().__init__()

    def prepare(self):
        send = ""
        if self.send_to:
            send = (f"server {{ listen 127.0.0.1:{self.send_port}; proxy_protocol on;"
                    f" proxy_pass {self.send_to}; }}")
        with open(f"{self.dir}/nginx.conf", "w") as file:
            file.write(f"""load_module modules/ngx_stream_module.so;
daemon off; user root; worker_processes 1; pid {self.dir}/pid; error_log stderr warn;
events {{ worker_connections 1024; }}
stream {{
    log_format who "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
    access_log off;
    server {{ listen 127.0.0.1:{self.accept_port} proxy_protocol; access_log {self.dir}/access who;
              proxy_pass {self.to}; }}
    server {{ listen 127.0.0.1:{self.check_port} proxy_protocol; access_log {self.dir}/access who; return up; }}
    server {{ listen 127.0.0.1:{self.port}; return up; }}
    {send}
}}
""")
        return ["nginx", "-p", "/usr/share/nginx/", "-c", f"{self.dir}/nginx.conf", "-e", "stderr"]

    def wait_seen(self, count=1):
        def look():
            with open(f"{self.dir}/access") as file:
                lines = [line.split(" ") for line in file.read().splitlines()]
            return len(lines) >= count and [((a, number(b)), (c, number(d))) for a, b, c, d in lines]

        return wait_until(f"{count} lines in nginx's log", look)


class NginxTls(Nginx):
    """A server for each of NAMES, each with a certificate of its own; ports[name], proxied[name] behind PROXY."""

    def prepare(self):
        argv = super().prepare()
        self.ports = {name: free_port() for name in NAMES}
        self.proxied = {name: free_port() for name in NAMES}
        servers = ""
        with open(f"{self.dir}/ca.pem", "w") as bundle:
            for name, host in NAMES.items():
                certificate(f"{self.dir}/{name}", name, host)
                with open(f"{self.dir}/{name}.pem") as file:
                    bundle.write(file.read())
                servers += f"""server {{
    listen 127.0.0.1:{self.ports[name]} ssl; listen 127.0.0.1:{self.proxied[name]} ssl proxy_protocol;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {self.dir}/{name}.pem; ssl_certificate_key {self.dir}/{name}.key;
    root {self.dir}/www;
    access_log {self.dir}/{name}.access who;
    location = /who {{ return 200 "{name} $ssl_server_name\\n"; }}
}}
"""
        with open(f"{self.dir}/nginx.conf") as file:
            text = file.read()
        at = text.rindex("}")
        form = 'log_format who "$proxy_protocol_addr $proxy_protocol_port $ssl_server_name $request_uri";\n'
        with open(f"{self.dir}/nginx.conf", "w") as file:
            file.write(text[:at].replace("access_log off;", form + "access_log off;") + servers + text[at:])
        return argv

    def to(self, name):
        return shown(("127.0.0.1", self.ports[name]))

    def access(self, name):
        with open(f"{self.dir}/{name}.access") as file:
            return [line.split(" ") for line in file.read().splitlines()]


def certificate(path, name, host):
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 2,
        "-keyout", f"{path}.key", "-out", f"{path}.pem", "-subj", f"/CN={name}", "-addext",
        f"subjectAltName=DNS:{host},DNS:{name}.any.example.net")
