"""A request on its way to a replica and its answer on the way back, byte for byte."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import httpx2
from starlette.requests import Request
from starlette.responses import Response

from loratelier.serve.api.errors import ApiError
from loratelier.serve.api.streams import Closing
from loratelier.serve.gateway.replicas import Replica, Replicas

# What belongs to one connection and not to the message (RFC 9110, 7.6.1).
_OF_THE_CONNECTION = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding "
    b"upgrade host".split()
)
# A replica that answers so is about to stop, or cannot yet: another one is asked.
_ELSEWHERE = frozenset({502, 503})


@dataclass(frozen=True)
class Outgoing:
    """What is sent on: the adapter decides where to, and None is the base."""

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    adapter: str | None


class Forwarder:
    """Sends requests on to replicas, and to another where one is not reached.

    Args:
        replicas: who may be asked.
        client: talks to them.
        seconds: the longest that a replica may keep silent.
    """

    def __init__(self, replicas: Replicas, client: httpx2.AsyncClient, seconds: float) -> None:
        self._replicas = replicas
        self._client = client
        self._timeout = httpx2.Timeout(seconds, connect=3.0)
        self.retries = 0

    async def answer(
        self, request: Request, outgoing: Outgoing, told: Mapping[str, str]
    ) -> Response:
        """Return a replica's answer with the decision's headers on it.

        Raises:
            ApiError: 503 or 502, when no replica answers.
        """
        sending = asyncio.ensure_future(self._first(outgoing))
        leaving = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                return Response(status_code=499)
            replica, answer = sending.result()
        finally:
            leaving.cancel()
            sending.cancel()
        return _passed(replica, answer, told)

    async def _first(self, outgoing: Outgoing) -> tuple[Replica, httpx2.Response]:
        """Ask one replica after another until one answers."""
        order = self._replicas.order(outgoing.adapter)
        last: httpx2.Response | None = None
        for number, replica in enumerate(order):
            self.retries += number > 0
            answer = await self._ask(replica, outgoing)
            if answer is None:
                continue
            if answer.status_code not in _ELSEWHERE or number == len(order) - 1:
                return replica, answer
            await _close(replica, answer)
            last = answer
        if last is not None:
            raise ApiError(502, "No server behind this gateway answered", code="upstream_failed")
        raise ApiError(
            503,
            "No server behind this gateway is reached",
            code="upstream_unreachable",
            headers={"Retry-After": "2"},
        )

    async def _ask(self, replica: Replica, outgoing: Outgoing) -> httpx2.Response | None:
        """Ask a replica; None where it cannot be reached or has not the adapter."""
        adapter = outgoing.adapter
        if adapter is not None and not await self._replicas.ensure(replica, adapter):
            return None
        answer = await self._send(replica, outgoing)
        if answer is None or answer.status_code not in (400, 404) or adapter is None:
            return answer
        # It was restarted since we looked, or it let the adapter go: is it still there?
        body = await answer.aread()
        if answer.status_code == 400 and b"lora" not in body.lower():
            return answer
        await _close(replica, answer)
        replica.resident.discard(adapter)
        if not await self._replicas.ensure(replica, adapter):
            return None
        return await self._send(replica, outgoing)

    async def _send(self, replica: Replica, outgoing: Outgoing) -> httpx2.Response | None:
        asked = self._client.build_request(
            outgoing.method,
            f"{replica.url}{outgoing.path}",
            headers=[*outgoing.headers, (b"host", httpx2.URL(replica.url).netloc)],
            content=outgoing.body,
            timeout=self._timeout,
        )
        replica.running += 1
        try:
            return await self._client.send(asked, stream=True)
        except httpx2.TimeoutException as error:
            replica.running -= 1
            if isinstance(error, httpx2.ConnectTimeout):
                self._replicas.lost(replica, error)
                return None
            raise ApiError(504, "The server behind this gateway keeps silent") from error
        except httpx2.HTTPError as error:
            # Nothing was answered yet, and writing words changes nothing: it may be asked again.
            replica.running -= 1
            self._replicas.lost(replica, error)
            return None
        except BaseException:
            replica.running -= 1
            raise


def _passed(replica: Replica, answer: httpx2.Response, told: Mapping[str, str]) -> Response:
    """Return an answer as it came, its own headers and bytes, and ours beside them."""

    async def close() -> None:
        await _close(replica, answer)

    response = Closing(_bytes(answer), close, status=answer.status_code)
    dropped = _OF_THE_CONNECTION
    if answer.is_stream_consumed:  # it was looked at, and is plain now
        dropped |= {b"content-encoding", b"content-length"}
    ours = {name.encode("ascii"): value.encode("ascii") for name, value in told.items()}
    theirs = [
        (name.lower(), value)
        for name, value in answer.headers.raw
        if name.lower() not in dropped and name.lower() not in ours
    ]
    response.raw_headers = [*theirs, *ours.items()]
    return response


async def _bytes(answer: httpx2.Response) -> AsyncIterator[bytes]:
    if answer.is_stream_consumed:
        yield answer.content
        return
    async for piece in answer.aiter_raw():
        yield piece


async def _close(replica: Replica, answer: httpx2.Response) -> None:
    replica.running -= 1
    await answer.aclose()


def passed_on(headers: Sequence[tuple[bytes, bytes]], key: str | None) -> list[tuple[bytes, bytes]]:
    """Return a request's headers for a replica: without this connection's, with its own key."""
    dropped = _OF_THE_CONNECTION | {b"content-length"}
    if key is not None:
        dropped |= {b"authorization"}
    kept = [(name, value) for name, value in headers if name.lower() not in dropped]
    return kept if key is None else [*kept, (b"authorization", f"Bearer {key}".encode())]


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
