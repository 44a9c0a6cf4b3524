"""A port, a server on it, and its graceful end."""

import asyncio
import signal
import socket
from collections.abc import Callable
from ipaddress import ip_address

import uvicorn
from starlette.types import ASGIApp

from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark
from loratelier.serve.api.keys import Keys
from loratelier.serve.api.limits import Patient


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it answers and when it is about to stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        started: Callable[[], None],
        stop: Callable[[float], None],
        grace: float,
    ) -> None:
        super().__init__(config)
        self._tell, self._stop, self._grace = started, stop, grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if not self.should_exit:
            self._tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, and let what is being answered come to its end meanwhile."""
        stopping = asyncio.create_task(asyncio.to_thread(self._stop, self._grace))
        await super().shutdown(sockets)
        await stopping


def make_server(
    app: ASGIApp,
    *,
    started: Callable[[], None] = lambda: None,
    stop: Callable[[float], None] = lambda grace: None,
    grace: float = 20.0,
    connections: int = 1024,
) -> uvicorn.Server:
    """Return a server of an app.

    Args:
        app: what answers.
        started: called once it answers.
        stop: called when it is about to stop, in a thread, with ``grace``.
        grace: seconds that running answers get then.
        connections: the most at a time; more are answered 503.
    """
    config = uvicorn.Config(
        app,
        http=Patient,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=int(grace) + 2,
        limit_concurrency=connections,
        h11_max_incomplete_event_size=32 * 1024,
    )
    return _Server(config, started, stop, grace)


def run(server: uvicorn.Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, and return then.

    uvicorn ends gracefully and raises the signal once more; whoever started it has seen to the end
    already, so it finds nobody then.
    """
    ends = (signal.SIGTERM, signal.SIGINT)
    before = {each: signal.signal(each, lambda *_: None) for each in ends}
    try:
        server.run([listening])
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputError: the port is taken, or the host is none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"{host}:{port} cannot be listened on ({error})", "Choose another with --port"
        ) from error
    return listening


def url_of(listening: socket.socket) -> str:
    """Return where a socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def require_keys(host: str, keys: Keys) -> None:
    """Say aloud that a server without keys is open to others, where it is."""
    if not keys.are_asked_for and not _is_loopback(host):
        remark(f"Whoever reaches {host} may ask: there are no keys (--key-file)")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
