"""Tokens as text that a person can read: decoded bytes, visible blanks."""

import re
import unicodedata
from typing import Any

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BLANKS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}


def _byte_alphabet() -> dict[str, int]:
    """Return which byte each character of a byte-level vocabulary stands for.

    Such vocabularies (GPT-2's and its heirs) write a byte as the character of the same number
    where that is printable, and the other bytes as the characters from 256 on, in order.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + number): byte for number, byte in enumerate(rest)}


class Pieces:
    """The text of single tokens of one tokenizer; bytes that are half a character are ``\\xNN``."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._whole = set(tokenizer.added_tokens_decoder)
        byte_level = tokenizer.is_fast and "ByteLevel" in repr(tokenizer.backend_tokenizer.decoder)
        self._alphabet = _byte_alphabet() if byte_level else {}

    def __call__(self, token_id: int) -> str:
        """Return the text of one token, blanks as they are."""
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            # Models round their vocabulary up; such an output belongs to no token.
            return f"<{token_id}>"
        if token_id in self._whole:
            return str(token)
        if self._alphabet and all(character in self._alphabet for character in token):
            spelled = bytes(self._alphabet[character] for character in token)
            return spelled.decode("utf-8", errors="backslashreplace")
        single = _BYTE_TOKEN.fullmatch(token)
        if single:
            return bytes([int(single[1], 16)]).decode("utf-8", errors="backslashreplace")
        return str(token).replace("▁", " ")


def visible(text: str) -> str:
    """Return ``text`` with blanks as glyphs and characters that draw nothing as their numbers."""
    return "".join(_BLANKS.get(character) or _drawn(character) for character in text)


def _drawn(character: str) -> str:
    unseen = unicodedata.category(character).startswith("C")
    return f"\\u{{{ord(character):x}}}" if unseen else character
