"""Code in Nexus notes of ChatGPT origin, which the plugin damages.

It deletes words that begin with "cite" or "link" and runs of spaces
wherever they stand, in code too: `def f(links):` becomes `def f():`. The export has it whole.
"""

import re
from dataclasses import replace

from loratelier.corpus.lineage import Conversation, Turn

REASON = "code from a Nexus note of ChatGPT origin, which the plugin may have damaged"
CHATGPT = "chatgpt"

# What is fenced as anything else is meant as code.
_PROSE = frozenset({"math", "latex", "tex", "text", "txt", "markdown", "md", "mermaid", "quote"})
_FENCE = re.compile(r"^[ \t]*(?:> ?)*[ \t]*(?:`{3,}|~{3,})[ \t]*([\w+#.-]*)", re.MULTILINE)


def quarantined(one: Conversation) -> Conversation:
    """Mark the turns of a conversation that hold such code: they are not learned."""
    if one.provider != CHATGPT:
        return one
    turns = tuple(_marked(turn) for turn in one.turns)
    others = tuple(replace(o, turns=tuple(map(_marked, o.turns))) for o in one.alternatives)
    return replace(one, turns=turns, alternatives=others)


def _marked(turn: Turn) -> Turn:
    return replace(turn, fault=turn.fault or REASON) if holds_code(turn.text) else turn


def holds_code(text: str) -> bool:
    """Say whether a text has a fenced block that is not prose or a formula."""
    opening = _FENCE.findall(text)[::2]
    return any(language.lower() not in _PROSE for language in opening)
