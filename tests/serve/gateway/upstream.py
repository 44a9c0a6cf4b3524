"""Upstream servers as processes of their own, which can be killed and started again."""

import multiprocessing
import os
import signal
import time

import httpx2

from loratelier.serve.api.app import make_app
from loratelier.serve.api.listening import listen, make_server
from tests.serve.api.fake import FakeEngine
from tests.serve.api.harness import make_api

ADMIN = "sk-admin-upstream"


class Upstream:
    """Our own server in a process; it begins without adapters, as vLLM does."""

    def __init__(self, base, *, name, **engine):
        self._base, self._name, self._engine = base, name, engine
        socket = listen("127.0.0.1", 0)
        self.port = socket.getsockname()[1]
        socket.close()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        # A fork has the base already; a fresh interpreter would take seconds to read it.
        self.process = multiprocessing.get_context("fork").Process(target=self._run, daemon=True)
        self.process.start()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                if httpx2.get(f"{self.url}/health", trust_env=False).status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.02)
        raise AssertionError("the upstream does not answer")

    def _run(self):
        engine = FakeEngine(self._base, pause=self._engine.get("pause", 0.0))
        engine.says = f"{{}} of {self._name}"
        engine.endless = self._engine.get("endless", False)
        api = make_api(self._base, engine, admin_key=ADMIN, fill=False)
        make_server(make_app(api), grace=0).run([listen("127.0.0.1", self.port)])

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(10)

    def models(self):
        listed = httpx2.get(f"{self.url}/v1/models").json()["data"]
        return {model["id"] for model in listed if model["parent"]} - {"auto"}

    def asked(self):
        """How many requests it answered with words."""
        text = httpx2.get(f"{self.url}/metrics").text
        found = [line for line in text.splitlines() if line.startswith("loratelier_adapter_req")]
        return {line.split('"')[1]: int(float(line.rsplit(" ", 1)[1])) for line in found}
