"""A whole server in a process of its own: its port, its one document, its end."""

import json
import multiprocessing
import os
import signal

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


def test_a_port_that_is_taken_is_said_before_the_base_is_read(stored):
    from loratelier.serve.api.listening import listen

    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=str(port)):
            Served("no such base", ServeSettings(port=port), FakeEngine)


def test_the_openapi_document_can_be_read(url):
    assert eventually(lambda: json.loads(httpx2.get(f"{url}/openapi.json").text)["paths"])
