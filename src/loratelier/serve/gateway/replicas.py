"""The upstream servers: which are there, what each has loaded, and who is asked."""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import httpx2

from loratelier.kit.progress import remark

Kind = Literal["vllm", "sglang"]
# A replica may have this much more than its share before another is asked: consistent hashing
# with bounded loads (Mirrokni et al. 2018, arXiv 1608.01350).
_SPARE = 1.25
_LOAD_SECONDS = 120.0
_LOOK_SECONDS = 5.0


@dataclass
class Replica:
    """One upstream server.

    ``resident`` are the models that it said it has; ``running`` counts our requests to it.
    """

    url: str
    is_up: bool = False
    resident: set[str] = field(default_factory=set)
    running: int = 0
    said: str | None = None
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Replicas:
    """All replicas, held to what is wanted on them.

    Args:
        urls: one for each.
        kind: how adapters are loaded and named: as vLLM (and we) do it, or as SGLang does.
        client: talks to them.
        admin: headers of requests that load adapters.
        model: what the base is called; without it what the first replica says.
    """

    def __init__(
        self,
        urls: Sequence[str],
        kind: Kind,
        client: httpx2.AsyncClient,
        *,
        headers: Mapping[str, str],
        admin: Mapping[str, str],
        model: str | None = None,
    ) -> None:
        self.all = [Replica(url.rstrip("/")) for url in urls]
        self.model = model
        self._kind = kind
        self._client = client
        self._headers = dict(headers)
        self._admin = dict(admin)
        self._wanted: dict[str, str] = {}
        self.loads = 0

    async def hold(self, wanted: Mapping[str, str]) -> None:
        """Look at every replica, and load what it lacks.

        A replica that was restarted has nothing: it is known by that, and gets everything again.

        Args:
            wanted: adapter -> its path as the replicas see it.
        """
        self._wanted = dict(wanted)
        await asyncio.gather(*(self._look(replica) for replica in self.all))

    def name_of(self, adapter: str | None) -> str:
        """Return what a replica calls the base, or the base wearing an adapter."""
        base = self.model or ""
        if adapter is None:
            return base
        return f"{base}:{adapter}" if self._kind == "sglang" else adapter

    def order(self, adapter: str | None) -> list[Replica]:
        """Return whom to ask, best first: those that have the adapter, always in the same order.

        The same adapter goes to the same replica, where it is warm, unless that one has more than
        its share of the work.
        """
        up = [replica for replica in self.all if replica.is_up]
        having = [each for each in up if adapter is None or adapter in each.resident]
        able = having or up
        if not able:
            return []
        share = math.ceil(_SPARE * (1 + sum(each.running for each in able)) / len(able))
        if adapter is None:
            return sorted(able, key=lambda each: each.running)
        ranked = sorted(able, key=lambda each: _rank(each.url, adapter))
        return sorted(ranked, key=lambda each: each.running >= share)

    async def ensure(self, replica: Replica, adapter: str) -> bool:
        """Load an adapter where it is not; return whether it is there now."""
        async with replica.loading:
            if adapter in replica.resident:
                return True
            path = self._wanted.get(adapter)
            return path is not None and await self._load(replica, adapter, path)

    def lost(self, replica: Replica, error: Exception) -> None:
        """Note that a replica cannot be reached."""
        replica.is_up = False
        replica.resident.clear()
        self._say(replica, f"{replica.url} is not reached ({type(error).__name__})")

    async def _look(self, replica: Replica) -> None:
        try:
            answer = await self._client.get(
                f"{replica.url}/v1/models", headers=self._headers, timeout=_LOOK_SECONDS
            )
            answer.raise_for_status()
            models = _models(answer.json())
        except (httpx2.HTTPError, ValueError) as error:
            self.lost(replica, error)
            return
        if self.model is None:
            self.model = next((name for name, parent in models.items() if parent is None), None)
        replica.resident = set(models) & self._wanted.keys()
        missing = [name for name in self._wanted if name not in replica.resident]
        if not replica.is_up:
            replica.is_up = True
            self._say(replica, f"{replica.url} is there; {len(missing)} adapters to load")
        for name in missing:
            await self.ensure(replica, name)

    async def _load(self, replica: Replica, adapter: str, path: str) -> bool:
        road = "/load_lora_adapter" if self._kind == "sglang" else "/v1/load_lora_adapter"
        body = {"lora_name": adapter, "lora_path": path}
        try:
            answer = await self._client.post(
                f"{replica.url}{road}", json=body, headers=self._admin, timeout=_LOAD_SECONDS
            )
        except httpx2.HTTPError as error:
            self.lost(replica, error)
            return False
        # vLLM answers 400 where another gateway was quicker; the next look tells.
        if answer.status_code == 200 or "already" in answer.text:
            replica.resident.add(adapter)
            self.loads += 1
            return True
        said = " ".join(answer.text[:200].split())
        self._say(replica, f"{replica.url} does not load '{adapter}': {answer.status_code} {said}")
        return False

    def _say(self, replica: Replica, line: str) -> None:
        if line != replica.said:
            remark(line)
            replica.said = line


def _rank(url: str, adapter: str) -> bytes:
    """Return a replica's place for an adapter (rendezvous hashing, Thaler and Ravishankar 1998)."""
    return sha256(f"{url}\n{adapter}".encode()).digest()


def _models(document: Any) -> dict[str, str | None]:
    """Return the models of a listing with their parents.

    Raises:
        ValueError: it is no listing.
    """
    try:
        entries: Iterable[Any] = document["data"]
        return {str(each["id"]): each.get("parent") for each in entries}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("no listing of models") from error
