"""Importers on arbitrary bytes and on valid documents that were spoiled: nothing may raise."""

import json
import random
import warnings

import pytest
from bench.fuzz_importers import feed, mutate
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.corpus.documents import documents

KNOWN = documents()


@pytest.mark.parametrize("name", KNOWN)
def test_every_document_is_taken_for_what_it_is(name):
    taken = feed(KNOWN[name])
    kinds = {
        "chatgpt": {"ChatGPT export": 2},
        "claude": {"Claude export": 1},
        "telegram": {"Telegram export": 1},
        "account": {"Telegram export": 2},
        "note": {"Nexus note": 1},
        "mojibake": {"Nexus note": 1},
        "page": {"page": 1},
        "plain": {"note": 1},
        "cp1251": {"note": 1},
        "parquet": {"OpenAI messages": 1},
        "pdf": {"PDF": 1},
        "mute pdf": {"broken item": 1, "unread file": 1},
        "export zip": {"ChatGPT export": 2, "unread file": 1},
        "book": {"book": 1},
    }
    sets = dict.fromkeys(
        ("ShareGPT", "Alpaca", "OpenAI messages", "preferences", "prompt and completion", "text"), 1
    )
    assert taken == kinds.get(name, sets)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_do_not_raise(data):
    feed(data)


@given(
    start=st.sampled_from(
        (b"[{", b'{"a":', b"%PDF-1.4\n", b"PK\x03\x04", b"PAR1", b"<html>", b"---\n")
    ),
    data=st.binary(max_size=200),
)
@settings(max_examples=300, deadline=None)
def test_bytes_behind_a_known_beginning_do_not_raise(start, data):
    feed(start + data)


@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(KNOWN)))
@settings(max_examples=400, deadline=None)
def test_spoiled_documents_do_not_raise(seed, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        feed(mutate(random.Random(seed), KNOWN[name], list(KNOWN.values())))


KEYS = sorted(
    {"mapping", "current_node", "message", "author", "role", "content", "parts", "text", "id"}
    | {"parent", "children", "chat_messages", "sender", "conversations", "from", "value", "type"}
    | {"messages", "prompt", "chosen", "rejected", "completion", "label", "instruction", "output"}
    | {"history", "name"}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(st.lists(JSON, min_size=1, max_size=3))
@settings(max_examples=400, deadline=None)
def test_json_of_any_types_under_known_keys_does_not_raise(items):
    feed(json.dumps(items).encode())
    feed("\n".join(map(json.dumps, items)).encode())


@pytest.mark.parametrize("space", [b"\x0c", b"\x0b", b"\xc2\xa0", b"\xef\xbb\xbf\x0c"])
@pytest.mark.parametrize("start", [b"[", b'[{"a": 1}]', b'{"a": 1}'])
def test_a_space_that_json_does_not_have_makes_a_text_of_it(space, start):
    assert set(feed(space + start)) <= {"note", "unread file", "broken item"}
