"""The page: whole, harmless, and saying what the inspection says."""

import json
import re
from html.parser import HTMLParser

import pytest

from loratelier.scope import inspect_prompt
from loratelier.scope.pieces import Pieces, visible

NASTY = "<script>alert(1)</script><|im_start|> \"q\" & 'x' </style><img src=x onerror=alert(2)>"


class Reader(HTMLParser):
    """Collects elements and the text outside scripts and styles."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.words, self.scripts = [], [], [], []
        self._inside = None

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("script", "style"):
            self._inside = tag

    def handle_endtag(self, tag):
        self._inside = None if tag == self._inside else self._inside

    def handle_data(self, data):
        if self._inside is None:
            self.words.append(data)
        if self._inside == "script":
            self.scripts.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.fixture
def page(tiny_base, adapter):
    options = {"continuation": "</script><b>bold</b>\n", "max_new_tokens": 12}
    return inspect_prompt(tiny_base, adapter, NASTY, **options).to_html()


def test_what_was_typed_is_text_and_never_markup(page):
    reader = read(page)
    assert reader.tags.count("script") == 2 and "img" not in reader.tags and "b" not in reader.tags
    assert not any(name.startswith("on") for name, _ in reader.attributes)
    assert NASTY in "".join(reader.words)
    data = json.loads(reader.scripts[0])
    assert set(data["tracks"]) == {"adapter", "base", "given"}


def test_the_page_needs_nothing_from_elsewhere(page):
    assert not re.search(r"https?://|//cdn|@import|url\(", page)
    reader = read(page)
    assert all(name != "src" for name, _ in reader.attributes)
    assert [value for name, value in reader.attributes if name == "href"] == ["data:,"]
    assert "default-src 'none'" in page


def test_every_position_is_there_with_its_kl(tiny_base, adapter):
    seen = inspect_prompt(tiny_base, adapter, "Two\nlines", max_new_tokens=5)
    reader = read(seen.to_html())
    track = json.loads(reader.scripts[0])["tracks"]["adapter"]
    expected = [*seen.kl[:-1], *seen.continuations["adapter"].kl]
    assert [position["kl"] for position in track] == expected
    chips = [value for name, value in reader.attributes if name == "data-at"]
    assert len(chips) == len(track) + len(seen.positions) + 4
    assert seen.summary.sentences[0] in "".join(reader.words)


def test_each_sentence_is_in_both_languages(page):
    reader = read(page)
    languages = [value for name, value in reader.attributes if name == "lang"]
    assert languages.count("ru") == languages.count("en") - 1  # the page itself is English
    assert re.search("[а-я]", "".join(reader.words))


def test_tokens_are_readable(tiny_base, demo_base):
    tiny, real = Pieces(tiny_base.tokenizer), Pieces(demo_base.tokenizer)
    ids = tiny_base.tokenizer("aé \n", add_special_tokens=False)["input_ids"]
    assert [tiny(number) for number in ids] == ["a", r"\xc3", r"\xa9", " ", "\n"]
    assert tiny(1) == "<|im_start|>"
    assert tiny(10**6) == "<1000000>"
    text = "Привет, world 🙂"
    ids = demo_base.tokenizer(text, add_special_tokens=False)["input_ids"]
    shown = "".join(real(number) for number in ids)
    assert shown.endswith(r"\x82") or shown.endswith("🙂")
    assert ", world " in shown


def test_blanks_and_unseen_characters_are_made_visible():
    assert visible("a b\n\t") == "a·b↵⇥"
    assert visible("\u202e\u200bx") == r"\u{202e}\u{200b}x"
