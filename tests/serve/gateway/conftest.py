from contextlib import contextmanager

import pytest
import yaml

from loratelier.serve.gateway.app import make_gateway
from loratelier.serve.gateway.server import Gated, GatewaySettings
from tests.serve.api.harness import client, running
from tests.serve.gateway.upstream import ADMIN, Upstream

POLICY = {
    "adapters": {"loud": {"keywords": ["hurricane"]}, "odd": {"keywords": ["riddle"]}},
    "roles": {
        "shouter": {"mix": {"loud": 1.0}, "words": ["shouter"], "system": "Shout."},
        "both": {"mix": {"loud": 0.5, "odd": 0.25}, "words": ["both"]},
    },
}


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "house.yaml"
    path.write_text(yaml.safe_dump(POLICY), encoding="utf-8")
    return path


@pytest.fixture
def upstreams(tiny_base, stored):
    """Two servers that have nothing loaded."""
    servers = [Upstream(tiny_base, name=name) for name in ("one", "two")]
    yield servers
    for server in servers:
        if server.process.is_alive():
            server.kill()


@contextmanager
def gating(upstreams, policy, **more):
    """A gateway in front of them: its address and itself."""
    settings = GatewaySettings(
        upstreams=tuple(server.url for server in upstreams),
        policy=policy,
        upstream_admin_key=ADMIN,
        every=0.2,
        port=0,
        **more,
    )
    gated = Gated(settings)
    gated.socket.close()
    with running(make_gateway(gated.gateway)) as url:
        yield url, gated.gateway


@pytest.fixture
def gateway(upstreams, policy):
    with gating(upstreams, policy) as (url, gateway):
        yield url, gateway


@pytest.fixture
def openai(gateway):
    return client(gateway[0])
