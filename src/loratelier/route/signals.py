"""Signals: ``<|use_lora_sport|>`` and ``<|use_lora_poet:0.6|>`` in what a person says.

A signal is user text and is treated as such. It is a name that the caller may use, spelled exactly,
or it is nothing: no name is normalised, so that a lookalike letter, an invisible character or a
path is simply not a name. What is no signal stays in the text, with a warning.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from loratelier.scope.strength import HIGHEST

# Takes everything off; no adapter may have this name in a policy.
NONE = "none"
# More than these in one turn are stripped and not followed.
MOST = 8

# What a name may be, in the store and here.
NAME = re.compile(r"\w[\w.-]{0,63}")
# No part can hold a blank or another signal, so removing one and leaving a blank makes no new one.
_SIGNAL = re.compile(r"<\|use_lora_([^|<>\s]{1,200})\|>")
_STRENGTH = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,4})?")
_BLANKS = " \t"
_SHOWN = 3


@dataclass(frozen=True)
class Signals:
    """What the signals of one text say, and the text without them.

    Attributes:
        mix: name -> strength (None: none was given), in the order of first appearance; of one name
            the last counts.
        none: whether everything is to be taken off (and nothing was named after that).
        text: the text without the signals that are in ``mix``, or that are ``none``.
        warnings: what looked like a signal and was left as text, and what was not followed.
    """

    mix: dict[str, float | None]
    none: bool
    text: str
    warnings: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether there was a signal at all."""
        return bool(self.mix) or self.none


def read_signals(text: str, known: Collection[str]) -> Signals:
    """Read the signals of a text.

    Args:
        text: what the person said.
        known: the names that this caller may use.
    """
    mix: dict[str, float | None] = {}
    none = False
    spans: list[tuple[int, int]] = []
    unknown: list[str] = []
    unfollowed = 0
    for found in _SIGNAL.finditer(text):
        read = _read(found[1], known)
        if read is None:
            unknown.append(found[0])
            continue
        spans.append(found.span())
        name, strength = read
        if name == NONE:
            mix, none = {}, True
        elif name in mix or len(mix) < MOST:
            mix[name], none = strength, False
        else:
            unfollowed += 1
    warnings = [_left(each) for each in list(dict.fromkeys(unknown))[:_SHOWN]]
    if len(set(unknown)) > _SHOWN:
        warnings.append(f"{len(set(unknown)) - _SHOWN} more unknown signals were left as text")
    if unfollowed:
        warnings.append(f"Of the signals in a turn the first {MOST} names are followed")
    return Signals(mix, none, _without(text, spans), tuple(warnings))


def strip_signals(text: str, known: Collection[str]) -> str:
    """Return a text without the signals that :func:`read_signals` would follow."""
    return read_signals(text, known).text


def _read(inside: str, known: Collection[str]) -> tuple[str, float | None] | None:
    name, colon, strength = inside.partition(":")
    if name != NONE and (name not in known or not NAME.fullmatch(name)):
        return None
    if not colon:
        return name, None
    if name == NONE or not _STRENGTH.fullmatch(strength) or float(strength) > HIGHEST:
        return None
    return name, float(strength)


def _left(signal: str) -> str:
    # In ASCII, so that a lookalike letter or an invisible character can be seen for what it is.
    return f"There is no signal {signal!a}: it was left as text"


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """Return the text without the spans; one blank stays where there would be none or several."""
    if not spans:
        return text
    kept: list[str] = []
    place = 0
    for start, end in [*spans, (len(text), len(text))]:
        piece = text[place:start]
        if place:
            piece = piece.lstrip(_BLANKS)
        if start < len(text) or end < len(text):
            piece = piece.rstrip(_BLANKS)
        if piece:
            if kept and not kept[-1].endswith("\n") and not piece.startswith("\n"):
                kept.append(" ")
            kept.append(piece)
        place = end
    return "".join(kept)
