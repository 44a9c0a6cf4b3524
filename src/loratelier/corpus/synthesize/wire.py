"""The wire to an API: one POST, no redirects, the key in one header and nowhere else."""

import ipaddress
import json
import re
import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage
from importlib.metadata import version
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from loratelier.kit.errors import InputError

_LARGEST = 16 << 20  # bytes of an answer
_PIECE = 1 << 16
_SECONDS = re.compile(r"\d{1,9}(?:\.\d+)?")
_WORDS = 200  # characters of a server's own words that are shown


class Malformed(Exception):
    """An answer that is none of the protocol."""


@dataclass(frozen=True)
class Fault:
    """What a server says about its refusal: words, a code, the parameter that it is about."""

    words: str = ""
    code: str = ""
    about: str = ""


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


class Wire:
    """Sends JSON to one server.

    Raises:
        InputError: an address that is none, or a key that would travel unencrypted.
    """

    def __init__(self, url: str, key: str, timeout: float) -> None:
        parts = _checked(url, bool(key))
        self.url = url.rstrip("/")
        self._key = key
        self._timeout = timeout
        handlers: list[Any] = [_NoRedirect]
        if _is_here(parts.hostname or ""):
            # What is on this machine needs no proxy, which would see the key.
            handlers.append(ProxyHandler({}))
        self._opener: OpenerDirector = build_opener(*handlers)

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        """Return the answer's bytes; the key is masked should the server repeat it.

        Raises:
            HTTPError: a status other than 200 to 299.
            URLError, HTTPException, OSError: the connection failed.
            Malformed: the answer ended in the middle, or is too large.
        """
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # Some servers turn away the default of Python's library.
            "User-Agent": f"loratelier/{version('loratelier')}",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = Request(self.url + path, json.dumps(body).encode(), headers, method="POST")
        deadline = time.monotonic() + self._timeout
        with self._opener.open(request, timeout=self._timeout) as response:
            data = b""
            # The socket's own timeout begins anew with each byte of a server that dribbles.
            while piece := response.read1(_PIECE):
                data += piece
                if time.monotonic() > deadline:
                    raise TimeoutError
                if len(data) > _LARGEST:
                    raise Malformed("the answer is larger than 16 MiB")
            if response.length:
                raise Malformed("the connection ended in the middle of the answer")
        return data.replace(self._key.encode(), b"***") if self._key else data

    def fault(self, error: HTTPError) -> Fault:
        """Return what a server says about its refusal, without the key."""
        try:
            document = json.loads(error.read(_PIECE))["error"]
        except Exception:  # a refusal is a refusal, whatever its body is made of
            return Fault()
        if isinstance(document, str):
            document = {"message": document}
        if not isinstance(document, dict):
            return Fault()
        words, code, about = (
            " ".join(str(document.get(name) or "").split()) for name in ("message", "code", "param")
        )
        if self._key:
            words = words.replace(self._key, "***")
        return Fault(words[:_WORDS], code, about)


def checked_key(value: str, variable: str) -> str:
    """Return a key without blanks around it.

    Raises:
        InputError: it cannot stand in a header; it is not shown.
    """
    key = value.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(
            f"The environment variable {variable} holds no key: it has spaces or other characters "
            "that no key has",
            "Set it anew",
        )
    return key


def connection_failure(error: Exception, url: str, *, reached: bool) -> str:
    """Say why a connection failed, where it is worth another try.

    Raises:
        InputError: it is not: the server was never reached, or its certificate is wrong.
    """
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError):
        raise InputError(f"{url} has no valid certificate ({reason.reason})") from None
    if not reached and isinstance(reason, ConnectionRefusedError | socket.gaierror):
        raise InputError(
            f"{url} cannot be reached ({reason.strerror})", "Check --api, and that the server runs"
        ) from None
    return f"the connection failed ({type(reason).__name__})"


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for; RFC 9110, 10.2.3."""
    if not value:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _checked(url: str, keyed: bool) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(
            f"The address of the API is none ({error})", "As https://HOST/v1"
        ) from None
    if parts.username or parts.password:
        raise InputError(
            "The address of the API holds a password", "Put the key into an environment variable"
        )
    if parts.query or parts.fragment:
        raise InputError("The address of the API ends in a query", "Give it as https://HOST/v1")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not (url.isascii() and url.isprintable() and " " not in url)
    ):
        raise InputError(f"'{url}' is no address of an API", "Give one as https://HOST/v1")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise InputError(f"{url} is the address of one call", "Leave /chat/completions away")
    if keyed and parts.scheme == "http" and not _is_here(parts.hostname):
        raise InputError(
            f"The key would go to {parts.hostname} unencrypted", "Use https, or unset the key"
        )
    return parts


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
