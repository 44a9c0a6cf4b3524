"""Training rows made of scenes: text to scene and back, other fields, other voices, hyperlexemes.

All rows of one scene share its conversation, so that none of them is held out while another is
learned.
"""

from collections.abc import Mapping

from loratelier.corpus.lineage import Row, Turn
from loratelier.corpus.located import Place
from loratelier.corpus.scenes.model import Hyperlexeme, Scene
from loratelier.corpus.scenes.notation import write_graph, write_scene
from loratelier.corpus.scenes.prompts import PROMPTS, about

_AS_SCENE = "written in the notation of scenes"
_ASKED = "a request laid before it"


def scene_rows(scene: Scene, place: Place) -> list[Row]:
    """Make the rows of a scene.

    ``#input`` text to scene, ``#output`` scene to text, ``#human`` text to what a human says,
    ``#as-ROLE`` scene to text in another voice, ``#over-N`` scene with another field to text.
    """
    ask = PROMPTS[scene.language]
    graph = write_graph(scene)
    pairs = {
        "input": (
            place.turn("user", about(ask.input, scene.text), "text", step=_ASKED),
            place.turn("assistant", graph, step=_AS_SCENE),
        ),
        "output": (
            place.turn("user", about(ask.output, graph), step=_AS_SCENE),
            place.turn("assistant", scene.text, "text"),
        ),
    }
    if scene.human is not None:
        pairs["human"] = (
            place.turn("user", scene.text, "text"),
            place.turn("assistant", scene.human, "human"),
        )
    for role, text in scene.roles.items():
        pairs[f"as-{role}"] = (
            place.turn("user", about(ask.as_role(role), graph), step=_AS_SCENE),
            place.turn("assistant", text, "roles", role),
        )
    for number, overlay in enumerate(scene.overlays):
        field = write_graph(scene.graph.model_copy(update={"field": overlay.field}))
        pairs[f"over-{number + 1}"] = (
            place.turn(
                "user", about(ask.context, field), "overlays", number, "field", step=_AS_SCENE
            ),
            place.turn("assistant", overlay.text, "overlays", number, "text"),
        )
    return [_row(scene.id, kind, turns) for kind, turns in pairs.items()]


def whole_scene_row(scene: Scene, place: Place) -> Row:
    """Make the one row of a scene that is learned as a text: the notation with all its words."""
    text = write_scene(scene)
    turn = place.turn("assistant", text, step=_AS_SCENE)
    return Row(f"{scene.id}#scene", scene.id, ("assistant",), (turn,), text=text)


def hyperlexeme_rows(each: Hyperlexeme, place: Place, scenes: Mapping[str, Scene]) -> list[Row]:
    """Make the pairs hyperlexeme ⇄ reply, and hyperlexeme ⇄ what it stands for."""
    ask = PROMPTS[each.language]
    token = each.token
    pairs: dict[str, tuple[Turn, Turn]] = {}
    for number, reply in enumerate(each.replies):
        pairs[f"reply-{number + 1}"] = (
            place.turn("user", token, "name"),
            place.turn("assistant", reply, "replies", number),
        )
        pairs[f"name-{number + 1}"] = (
            place.turn("user", about(ask.name, reply), "replies", number, step=_ASKED),
            place.turn("assistant", token, "name"),
        )
    if each.scene is not None:
        pairs |= _stands_for(place, token, write_graph(scenes[each.scene]), ask.unfold, ask.fold)
    if each.pattern is not None:
        pairs |= _stands_for(place, token, each.pattern, ask.means, ask.name)
    conversation = each.scene or f"hx_{each.name}"
    return [_row(conversation, f"hx_{each.name}-{kind}", turns) for kind, turns in pairs.items()]


def _stands_for(
    place: Place, token: str, meant: str, unfold: str, fold: str
) -> dict[str, tuple[Turn, Turn]]:
    return {
        "unfold": (
            place.turn("user", about(unfold, token), "name", step=_ASKED),
            place.turn("assistant", meant),
        ),
        "fold": (
            place.turn("user", about(fold, meant), step=_ASKED),
            place.turn("assistant", token, "name"),
        ),
    }


def _row(conversation: str, kind: str, turns: tuple[Turn, Turn]) -> Row:
    return Row(f"{conversation}#{kind}", conversation, ("user", "assistant"), turns)
