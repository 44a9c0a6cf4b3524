"""A studio on a tiny base: its server in this process, and a real Chromium before it."""

import os
import shutil
import socket
import threading
import time

import pytest
import uvicorn
from starlette.testclient import TestClient

from loratelier.studio import create_app
from tests.scope.changes import build, on
from tests.train.conftest import NOTE

TOKEN = "a-token-for-tests"


@pytest.fixture(scope="session")
def tiny_base():
    return build("llama", hidden_size=64, intermediate_size=128, max_position_embeddings=512)


@pytest.fixture
def stored(tiny_base, home):
    """A home with two adapters for the tiny base."""
    for name, scale in (("poet", 0.05), ("critic", 0.02)):
        sites = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")
        on(tiny_base, *sites, name=name, scale=scale).save(home / "adapters" / name)
    return home


@pytest.fixture
def notes(tmp_path):
    """A folder of notes, in English."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(12):
        answer = "Turn it over. Now it moves. The step: go."
        text = NOTE.format(number=number, question=f"What is thing {number}?", answer=answer)
        (folder / f"{number}.md").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def app(stored, tiny_base):
    return create_app(TOKEN, bases=(tiny_base,))


@pytest.fixture
def page(app):
    """A page that has the cookie already."""
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        client.get("/", params={"token": TOKEN})
        yield client


def listening(app):
    """Serve an app in a thread; return its address and the function that ends it."""
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)

    def end():
        app.state.room.hub.close()
        server.should_exit = True
        thread.join(20)
        bound.close()

    return f"http://127.0.0.1:{bound.getsockname()[1]}", end


@pytest.fixture
def address(app):
    where, end = listening(app)
    yield where
    end()


@pytest.fixture(scope="session")
def chromium():
    """The Chromium that is installed, headless."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium here")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        # A container's root has no sandbox to give; what is opened is our own page.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = play.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


def result(answer):
    """The last line of a streamed answer, and what was told before it."""
    import json

    lines = [json.loads(line) for line in answer.text.splitlines()]
    return lines[-1], lines[:-1]


def until(what, seconds=240):
    """Wait until ``what()`` is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that in time")
