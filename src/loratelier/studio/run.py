"""Serving the page until it is told to stop."""

import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable

import uvicorn

from loratelier.kit.errors import InputError
from loratelier.studio.app import PAGE, create_app

HOST = "127.0.0.1"


def serve_page(port: int = 0, *, browser: bool = True, ready: Callable[[str, int], None]) -> None:
    """Serve the page on this machine alone until Ctrl-C.

    Args:
        port: 0 for one that is free.
        browser: open the page in the browser.
        ready: called with the address, token included, and the port, once it answers.

    Raises:
        InputError: the port is taken, or the page was not built.
    """
    if not (PAGE / "index.html").exists():
        raise InputError("The page is not built", "Run: make web")
    bound = _bind(port)
    port = bound.getsockname()[1]
    token = secrets.token_urlsafe(24)
    address = f"http://{HOST}:{port}/?token={token}"
    app = create_app(token)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(address, port)
            if browser:
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Feeds never end by themselves, and the server waits for what is open.
            app.state.room.hub.close()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=3, lifespan="on"
    )
    with bound:
        Server(config).run(sockets=[bound])


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        raise InputError(
            f"Port {port} is taken", "Give another one, or 0 for a free one"
        ) from error
    return bound
