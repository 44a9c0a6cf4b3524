"""What a model is asked to do with a scene, in the scene's language.

One wording each: a task that always sounds the same can also serve as its signal.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompts:
    """The requests; what they are about stands below them."""

    input: str
    output: str
    context: str
    role: str
    roles: Mapping[str, str]
    unfold: str
    fold: str
    name: str
    means: str

    def as_role(self, role: str) -> str:
        """Return the request to tell a scene as somebody else."""
        return self.role.format(self.roles.get(role, role))


PROMPTS: Mapping[str, Prompts] = {
    "en": Prompts(
        input="Read this text as a scene.",
        output="Tell this scene in words.",
        context="Tell this scene in the field that is laid over it.",
        role="Tell this scene as a {}.",
        roles={},
        unfold="Unfold this hyperlexeme into its scene.",
        fold="Fold this scene into its hyperlexeme.",
        name="Name this with one hyperlexeme.",
        means="What does this hyperlexeme stand for?",
    ),
    "ru": Prompts(
        input="Прочти этот текст как сцену.",
        output="Расскажи эту сцену словами.",
        context="Расскажи эту сцену в поле, которое на неё наложено.",
        role="Расскажи эту сцену так, как рассказал бы {}.",
        roles={"logician": "логик", "poet": "поэт", "philosopher": "философ"},
        unfold="Разверни эту гиперлексему в сцену.",
        fold="Сверни эту сцену в гиперлексему.",
        name="Назови это одной гиперлексемой.",
        means="За чем стоит эта гиперлексема?",
    ),
}


def about(request: str, material: str) -> str:
    """Return a request with what it is about below it."""
    return f"{request}\n\n{material}"
