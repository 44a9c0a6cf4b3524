"""Conversations as JSON and as YAML, with the keys that other tools know.

YAML is written here and not by a library: a library quotes every text with a space at a line's end,
and a quoted page is not for the eye. Blocks hold all that YAML allows in them; the rest is quoted.
"""

import json
import re
from typing import Any

import yaml

from loratelier.corpus.formats.labels import ROLES, Messages
from loratelier.kit.errors import InputError

# What a block cannot hold: control characters, line ends other than \n (which YAML 1.1 reads as
# line ends and 1.2 does not), and what no YAML stream may contain.
_NOT_IN_BLOCK = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


def to_json(messages: Messages) -> str:
    """Write ``{"messages": [{"role": …, "content": …}]}``, indented."""
    return json.dumps({"messages": messages}, ensure_ascii=False, indent=2)


def from_json(text: str) -> Messages:
    """Read what :func:`to_json` wrote.

    Raises:
        InputError: no JSON, or other keys.
    """
    try:
        return _messages(json.loads(text), "JSON")
    except ValueError as error:
        raise InputError(f"A row is no JSON: {error}") from error


def to_yaml(messages: Messages) -> str:
    """Write the same as YAML, each content as a block of its own lines."""
    entries = (
        f"  - role: {message['role']}\n    content: {_block(message['content'])}\n"
        for message in messages
    )
    return "messages:\n" + "".join(entries)


def from_yaml(text: str) -> Messages:
    """Read what :func:`to_yaml` wrote.

    Raises:
        InputError: no YAML, or other keys.
    """
    try:
        return _messages(yaml.load(text, Loader=yaml.SafeLoader), "YAML")
    except yaml.YAMLError as error:
        raise InputError(f"A row is no YAML: {str(error).splitlines()[0]}") from error


def _block(text: str) -> str:
    """Write a text as a literal block at an indent of 6, or quoted where a block cannot hold it."""
    if not text.strip("\n") or _NOT_IN_BLOCK.search(text):
        return str(yaml.dump(text, default_style='"', allow_unicode=True, width=10**9)).rstrip("\n")
    # The indent must be said where the first line does not show it.
    indent = "2" if text[0] in " \n\t" else ""
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    lines = (f"      {line}" if line else "" for line in body.split("\n"))
    return f"|{indent}{_CHOMP[min(ends, 2)]}\n" + "\n".join(lines) + "\n" * max(ends - 1, 0)


# No line end at the end of the text, one, more.
_CHOMP = ("-", "", "+")


def _messages(value: Any, what: str) -> Messages:
    found = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(found, list) or not found:
        raise InputError(f"A row's {what} has no list 'messages'")
    for number, message in enumerate(found, start=1):
        whole = isinstance(message, dict) and set(message) == {"role", "content"}
        if not whole or message["role"] not in ROLES or not isinstance(message["content"], str):
            raise InputError(f"Message {number} of a row's {what} is no role with its content")
    return found
