"""A whole server in a process of its own: its port, its one document, its end."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx2
import pytest

from loratelier.kit.errors import InputError
from loratelier.serve.api.server import Served, ServeSettings
from tests.serve.api.fake import FakeEngine
from tests.serve.api.harness import ask_for, client, eventually


def serve(base, pipe, grace):
    def endless(base):
        engine = FakeEngine(base, pause=0.01)
        engine.endless = True
        return engine

    served = Served(base, ServeSettings(port=0, grace=grace), endless)
    served.run(lambda: pipe.send((served.url, sorted(served.api.wardrobe.names))))


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_gracefully(tiny_base, stored, sign):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=serve, args=(tiny_base, theirs, 0.2), daemon=True
    )
    process.start()
    assert ours.poll(20)
    url, adapters = ours.recv()
    assert adapters == ["loud", "odd", "silent"]
    stream = ask_for(client(url), stream=True, max_tokens=1500)
    next(iter(stream))
    os.kill(process.pid, sign)
    with pytest.raises(Exception, match="cancelled|stopped"):
        list(stream)
    process.join(10)
    assert process.exitcode == 0
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/health")


@contextmanager
def verb(*words):
    """A verb of the command line, running: the document that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loratelier", *words, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        while (line := process.stdout.readline()) and line != "}\n":
            lines.append(line)
        yield json.loads("".join([*lines, "}"]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_verbs_serve_and_gateway(tiny_base_dir, stored, tmp_path):
    policy = tmp_path / "house.yaml"
    policy.write_text("adapters: {loud: {keywords: [hurricane]}, odd: {}}", encoding="utf-8")
    with verb("serve", "--base", str(tiny_base_dir), "--admin-key", "sk-admin-1") as served:
        assert served["adapters"] == ["loud", "odd", "silent"]
        words = ["--policy", str(policy), "--upstream", served["url"]]
        with verb("gateway", *words, "--upstream-admin-key", "sk-admin-1") as gated:
            assert gated["up"] == [served["url"]] and gated["adapters"] == ["loud", "odd"]
            asked = {"text": "a hurricane", "temperature": 0, "max_tokens": 8}
            direct = ask_for(client(served["url"]), "loud", **asked)
            routed = ask_for(client(gated["url"]), "auto", **asked)
            base = ask_for(client(gated["url"]), served["base"], **asked)
            said = [each.choices[0].message.content for each in (direct, routed, base)]
            assert said[0] == said[1] != said[2]


def test_a_port_that_is_taken_is_said_before_the_base_is_read(stored):
    from loratelier.serve.api.listening import listen

    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=str(port)):
            Served("no such base", ServeSettings(port=port), FakeEngine)


def test_the_openapi_document_can_be_read(url):
    assert eventually(lambda: json.loads(httpx2.get(f"{url}/openapi.json").text)["paths"])
