"""Who may speak to the page's server: this machine, by its own name, with the printed token."""

import hmac
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Names that only this machine answers to. A page of somebody else whose name was made to point at
# 127.0.0.1 (DNS rebinding) still sends its own name as the host.
OWN_HOSTS = ("127.0.0.1", "localhost", "[::1]")

_HEADERS = {
    # Pictures of the scope carry a style of their own; the page's scripts and styles are files.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware: refuses a foreign host, a foreign origin, and whoever lacks the token.

    The token stands in the printed address (``/?token=...``). The first visit with it is answered
    by a cookie, which only this site is sent, and by the address without it.
    """

    def __init__(self, app: ASGIApp, *, token: str, hosts: Collection[str] = OWN_HOSTS) -> None:
        self._app = app
        self._token = token
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = self._refusal(scope)
        if answer is None:
            await self._app(scope, receive, _with_headers(send))
        else:
            await answer(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _without_port(host) not in self._hosts:
            return PlainTextResponse("This server answers to 127.0.0.1 only.", 421)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("Another site may not ask here.", 403)
        cookie = _cookie_name(host)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and scope["method"] == "GET" and self._is_token(given):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(cookie, self._token, httponly=True, samesite="strict", path="/")
            return answer
        if self._is_token(_cookie(headers.get("cookie", ""), cookie)):
            return None
        if scope["path"].startswith("/api/"):
            return JSONResponse(
                {"error": "The token is missing", "mend": "Open the address that was printed"}, 401
            )
        return PlainTextResponse(
            "Open the address that `loratelier studio` printed: it carries the token.\n"
            "Откройте адрес, который напечатала команда `loratelier studio`: в нём ключ.\n",
            401,
        )

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _cookie_name(host: str) -> str:
    # Cookies do not know ports: without it two studios would throw each other out.
    return f"loratelier-studio-{host.rpartition(':')[2]}"


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
