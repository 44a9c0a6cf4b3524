"""The gateway's life: from a policy to a port."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from loratelier.kit.errors import InputError
from loratelier.serve.api.choosing import Chooser
from loratelier.serve.api.keys import Keys
from loratelier.serve.api.limits import Limits
from loratelier.serve.api.listening import listen, make_server, require_keys, run, url_of
from loratelier.serve.gateway.app import Behind, Gateway, make_gateway
from loratelier.serve.gateway.forward import Forwarder
from loratelier.serve.gateway.mixtures import Mixtures
from loratelier.serve.gateway.replicas import Kind, Replicas


@dataclass(frozen=True)
class GatewaySettings:
    """How a gateway is run.

    Attributes:
        upstreams: the replicas' addresses, without ``/v1``.
        policy: what decides.
        kind: how the replicas load and name adapters.
        model: what they call the base; without it what they list without a parent.
        adapters_at: where the replicas see the store's adapters; without it they are told names,
            as our own server takes them.
        merge: merge the policy's mixtures into the store.
        key_file: who may ask; without it everyone, whose own key is then passed on.
        upstream_key, upstream_admin_key: ours at the replicas; the latter loads adapters.
        host, port: where it listens; port 0 takes a free one.
        every: seconds between two looks at the replicas.
        seconds: the longest that a replica may keep silent.
        grace: seconds that running answers get when the gateway is stopped.
        limits: of bodies and writes.
    """

    upstreams: tuple[str, ...]
    policy: Path
    kind: Kind = "vllm"
    model: str | None = None
    adapters_at: str | None = None
    merge: bool = False
    key_file: Path | None = None
    upstream_key: str | None = None
    upstream_admin_key: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    every: float = 2.0
    seconds: float = 600.0
    grace: float = 20.0
    limits: Limits = field(default_factory=Limits)


class Gated:
    """A gateway with a port of its own.

    Raises:
        InputError: a bad address, policy or key file, a port that is taken.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        for url in settings.upstreams:
            _require_address(url)
        keys = Keys() if settings.key_file is None else Keys.load(settings.key_file)
        if keys.count_tokens:
            raise InputError(
                "A gateway does not count tokens, and the key file has tokens_per_minute",
                "Leave it out here, or give it to the servers behind",
            )
        require_keys(settings.host, keys)
        self._settings = settings
        # Connections to upstreams are the gateway's own: no proxy of the environment is asked.
        client = httpx2.AsyncClient(
            trust_env=False, limits=httpx2.Limits(max_connections=None), follow_redirects=False
        )
        key = settings.upstream_key
        admin = settings.upstream_admin_key or key
        replicas = Replicas(
            settings.upstreams,
            settings.kind,
            client,
            headers=_bearer(key),
            admin=_bearer(admin),
            model=settings.model,
        )
        behind = Behind(replicas)
        self.gateway = Gateway(
            replicas,
            Forwarder(replicas, client, settings.seconds),
            behind,
            Chooser(behind, [settings.policy]),
            Mixtures(merge=settings.merge),
            keys,
            settings.adapters_at,
            key,
            settings.every,
            settings.limits,
        )
        self.socket = listen(settings.host, settings.port)

    @property
    def url(self) -> str:
        """Where it answers."""
        return url_of(self.socket)

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Answer until SIGTERM or Ctrl-C."""
        app = make_gateway(self.gateway)
        run(make_server(app, started=started, grace=self._settings.grace), self.socket)


def _bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _require_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise InputError(
            f"'{url}' is no address of a server", "Write http://HOST:PORT, without /v1"
        )
