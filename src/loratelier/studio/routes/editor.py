"""Editing: the field of a position, the solver when a bar is let go, steps back and forth."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import Field

from loratelier.edit import edits_of, scale_sites, set_distribution
from loratelier.kit.errors import InputError
from loratelier.kit.models import Strict
from loratelier.studio.draft import Draft
from loratelier.studio.field import field, prefix, token_of
from loratelier.studio.room import Here, Room
from loratelier.studio.stream import streamed
from loratelier.studio.telling import Tell

router = APIRouter()


class Place(Strict):
    """A position of a prompt in a draft; ``tokens`` are shown whatever their probability."""

    draft: str
    prompt: str
    chat: bool = False
    at: int | None = None
    tokens: tuple[int, ...] = ()
    word: str | None = None


class Preview(Place):
    """A field with sites at other strengths, nothing kept."""

    strengths: dict[str, float] = Field(default_factory=dict)


class Wish(Place):
    """What is to come next, by token, and what it may cost elsewhere (nats)."""

    set: dict[int, float]
    budget: float = 0.01


class Named(Strict):
    """A draft."""

    draft: str


class Saved(Named):
    """A draft and the name that it gets."""

    name: str
    replace: bool = False


class Sites(Named):
    """Sites at other strengths, as a step."""

    strengths: dict[str, float]


@router.get("/editor")
def state(draft: str, here: Here) -> dict[str, Any]:
    """Return a draft's steps and the sites of what is worn now."""
    return _view(here.drafts.of(draft))


def _view(draft: Draft) -> dict[str, Any]:
    worn = draft.now
    sites = [] if worn is None else [{"site": site, **_size(worn, site)} for site in worn.sites]
    edits = [] if worn is None else [each["name"] for each in edits_of(worn)]
    return {**draft.view(), "sites": sites, "edits": edits, "rank": worn.rank if worn else 0}


def _size(worn: Any, site: str) -> dict[str, float | int]:
    pair = worn.tensors.get(site)
    if pair is None:
        return {"rank": 0, "norm": 0.0}
    down, up = (half.float() for half in pair)
    # |B A| by the two small products: tr(BᵀB AAᵀ).
    square = float(((up.T @ up) * (down @ down.T)).sum())
    return {"rank": len(down), "norm": abs(worn.scaling(site)) * max(0.0, square) ** 0.5}


@router.post("/editor/field")
def field_of(place: Preview, here: Here) -> dict[str, Any]:
    """Return the field of a position: before the draft's steps and now."""
    draft = here.drafts.of(place.draft)
    with here.desk.at_work():
        base = here.desk.base(draft.spec)
        added = () if not place.word else (token_of(base, place.word),)
        return field(
            base,
            place.prompt,
            before=draft.origin,
            now=draft.now,
            strengths=place.strengths,
            chat=place.chat,
            at=place.at,
            keep=(*place.tokens, *added),
        ) | {"added": added[0] if added else None}


@router.post("/editor/solve")
def solve(wish: Wish, here: Here) -> StreamingResponse:
    """Make what is asked so, as a step of the draft; the result has the edit's report."""

    def work(_: Tell) -> dict[str, Any]:
        draft = here.drafts.of(wish.draft)
        with here.desk.at_work():
            base = here.desk.base(draft.spec)
            if wish.chat and wish.at is not None:
                raise InputError("In a dialogue the last position is edited", "Choose the last one")
            text = prefix(base, wish.prompt, wish.at)
            edit = set_distribution(
                base,
                draft.now,
                text,
                {int(token): chance for token, chance in wish.set.items()},
                chat=wish.chat,
                budget=wish.budget,
                name=draft.next_name(),
            )
            report = edit.to_json() | {"sentences": edit.sentences}
            said = [[goal.text, goal.before, goal.asked, goal.reached] for goal in edit.goals]
            draft.add(
                edit.adapter,
                {"kind": "edit", "prompt": wish.prompt, "goals": said, "met": edit.met},
            )
        return _told(here, draft) | {"report": report}

    return streamed(work)


@router.post("/editor/sites")
def sites(asked: Sites, here: Here) -> dict[str, Any]:
    """Keep other strengths of sites, as a step."""
    draft = here.drafts.of(asked.draft)
    worn = draft.now
    if worn is None:
        raise InputError("A bare base has no sites to turn", "Edit a bar first")
    changed = {site: factor for site, factor in asked.strengths.items() if factor != 1}
    if not changed:
        raise InputError("No strength was changed", "Move a slider first")
    draft.add(
        scale_sites(worn, changed, name=draft.next_name()), {"kind": "sites", "sites": changed}
    )
    return _told(here, draft)


@router.post("/editor/undo")
def undo(asked: Named, here: Here) -> dict[str, Any]:
    """Go a step back."""
    draft = here.drafts.of(asked.draft)
    draft.move(-1)
    return _told(here, draft)


@router.post("/editor/redo")
def redo(asked: Named, here: Here) -> dict[str, Any]:
    """Go a step forth."""
    draft = here.drafts.of(asked.draft)
    draft.move(1)
    return _told(here, draft)


@router.post("/editor/forget")
def forget(asked: Named, here: Here) -> dict[str, Any]:
    """Drop every step."""
    draft = here.drafts.of(asked.draft)
    draft.forget()
    return _told(here, draft)


@router.post("/editor/save")
def save(asked: Saved, here: Here) -> dict[str, Any]:
    """Put what is worn now into the store."""
    here.drafts.of(asked.draft).save_as(asked.name, replace=asked.replace)
    here.changed("store")
    return {"name": asked.name}


def _told(here: Room, draft: Draft) -> dict[str, Any]:
    here.changed("draft", draft=draft.what)
    return _view(draft)
