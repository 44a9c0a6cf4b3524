"""What the demo promises without running for minutes; `make demo` shows the rest."""

import re

import pytest

from loratelier import build_corpus
from loratelier.base.likelihood import general_text
from loratelier.demo import QUESTIONS, vault


def sentences(text):
    return {part.strip().lower() for part in re.split(r"[.?!\n]+", text) if len(part.split()) > 4}


@pytest.fixture(scope="module")
def corpus():
    return build_corpus([vault()])


def test_the_vault_is_large_enough_and_nothing_of_it_is_lost(corpus):
    counts = corpus.report.counts()
    assert counts["conversations"] >= 80
    assert counts["messages"] == counts["messages_in_rows"] + counts["dropped"]
    assert counts["repaired"] == 3
    assert counts["lossy"] == 0


def test_the_demo_learns_in_the_script_that_its_base_knows():
    rows = build_corpus([vault()], script="Latn").rows.column("messages").to_pylist()
    assert len(rows) >= 80
    texts = [message["content"] for row in rows for message in row]
    assert not any(re.search("[а-яА-Я]", text) for text in texts)


def test_the_vault_speaks_in_one_voice(corpus):
    answers = [
        message["content"]
        for row in build_corpus([vault()], script="Latn").rows.column("messages").to_pylist()
        for message in row
        if message["role"] == "assistant"
    ]
    for mark in ("Turn it over.", "Now it moves.", "The step:"):
        assert all(answer.count(mark) == 1 for answer in answers)


def test_the_questions_stand_nowhere_in_the_vault(corpus):
    asked = {
        message["content"].strip().lower()
        for row in corpus.rows.column("messages").to_pylist()
        for message in row
    }
    assert not asked & {question.lower() for question in QUESTIONS}


def test_the_general_text_shares_no_sentence_with_the_vault(corpus):
    theirs = set().union(
        *(
            sentences(message["content"])
            for row in corpus.rows.column("messages").to_pylist()
            for message in row
        )
    )
    assert not theirs & set().union(*(sentences(text) for text in general_text()))
