"""Talking: one question to several adapters, side by side."""

import threading
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import Field

from loratelier.adapter import store
from loratelier.bank import AdapterBank
from loratelier.kit.errors import InputError
from loratelier.kit.models import Strict
from loratelier.route import Router
from loratelier.serve import Dialogue, Sampling
from loratelier.serve.dialogue import Turn
from loratelier.studio import conversation
from loratelier.studio.conversation import AUTO, Conversation, Lane, Said
from loratelier.studio.desk import opened
from loratelier.studio.room import Here, Room
from loratelier.studio.stream import streamed
from loratelier.studio.telling import Tell

router = APIRouter()
_LANES = 4
_speaking = threading.Lock()


class Wanted(Strict):
    """What each lane wears from now on; a lane that is not named is closed."""

    base: str
    lanes: list[dict[str, Any]] = Field(min_length=1, max_length=_LANES)


class Asked(Strict):
    """What is said to every lane."""

    text: str
    temperature: float = 0.7
    max_new_tokens: int = Field(default=200, ge=1, le=2000)


@router.get("/dialogue")
def now() -> dict[str, Any]:
    """Return the conversation as it is."""
    return conversation.load().model_dump(mode="json")


@router.put("/dialogue/lanes")
def lanes(wanted: Wanted, here: Here) -> dict[str, Any]:
    """Say what each lane wears; what was said in a lane stays in it."""
    old = conversation.load()
    said = {lane.id: lane.turns for lane in old.lanes}
    same = old.base == wanted.base
    made = tuple(
        Lane.model_validate({**each, "turns": said.get(each.get("id", 0), ()) if same else ()})
        for each in wanted.lanes
    )
    return _keep(here, Conversation(base=wanted.base, lanes=made))


@router.post("/dialogue/reset")
def reset(here: Here) -> dict[str, Any]:
    """Forget what was said; what is worn stays."""
    old = conversation.load()
    emptied = tuple(lane.model_copy(update={"turns": ()}) for lane in old.lanes)
    return _keep(here, old.model_copy(update={"lanes": emptied}))


@router.post("/dialogue/say")
def say(asked: Asked, here: Here) -> StreamingResponse:
    """Say something to every lane; pieces come as ``{"type": "piece", "lane", "text"}``."""

    def work(tell: Tell) -> dict[str, Any]:
        if not asked.text.strip():
            raise InputError("Nothing was said", "Write something")
        if not _speaking.acquire(blocking=False):
            raise InputError("An answer is being written in another tab", "Wait until it is over")
        try:
            talk = conversation.load()
            for lane in talk.lanes:
                turns = _answer(lane, talk.base, asked, here, tell)
                # Kept lane by lane: the next one may be left in the middle.
                talk = _with(conversation.load(), lane.id, turns)
                conversation.save(talk)
            return _keep(here, talk)
        finally:
            _speaking.release()

    return streamed(work)


def _answer(lane: Lane, spec: str, asked: Asked, here: Room, tell: Tell) -> tuple[Said, ...]:
    mix, reason, text = _worn(lane, asked.text)
    tell({"type": "worn", "lane": lane.id, "worn": mix, **reason})
    with here.desk.at_work(), AdapterBank(here.desk.base(spec).model) as bank:
        dialogue = Dialogue(
            here.desk.base(spec),
            bank,
            sampling=Sampling(temperature=asked.temperature),
            max_new_tokens=asked.max_new_tokens,
        )
        for name, strength in mix.items():
            dialogue.wear(opened(name), strength)
        dialogue.turns = [Turn(each.role, each.content) for each in lane.turns]
        for piece in dialogue.say(text):
            tell({"type": "piece", "lane": lane.id, "text": piece})
        answer = dialogue.turns[-1]
    return (
        *lane.turns,
        Said(role="user", content=asked.text),
        Said(
            role="assistant",
            content=answer.content,
            worn=mix,
            seconds=answer.seconds,
            tokens=answer.tokens,
            stopped=answer.stopped,
            **reason,
        ),
    )


def _worn(lane: Lane, text: str) -> tuple[dict[str, float], dict[str, str], str]:
    """Return what a lane wears for a turn, why, and the turn without signals."""
    if lane.adapter is None:
        return {}, {}, text
    if lane.adapter != AUTO:
        return {lane.adapter: lane.strength}, {}, text
    decision = Router.auto(store.names()).route(text)
    mix = {name: gate * lane.strength for name, gate in (decision.mix or {}).items()}
    if len(mix) > 1:
        strongest = max(mix, key=lambda name: mix[name])
        mix = {strongest: mix[strongest]}
    reason = {"reason": decision.reason, "reason_ru": decision.reason_ru}
    return mix, reason, str(decision.messages[-1]["content"])


def _with(talk: Conversation, lane: int, turns: tuple[Said, ...]) -> Conversation:
    changed = (
        each.model_copy(update={"turns": turns}) if each.id == lane else each for each in talk.lanes
    )
    return talk.model_copy(update={"lanes": tuple(changed)})


def _keep(here: Room, talk: Conversation) -> dict[str, Any]:
    conversation.save(talk)
    here.changed("dialogue")
    return talk.model_dump(mode="json")
