"""A small corpus and a recipe for it."""

import pytest

from loratelier.corpus import build_corpus
from loratelier.train import load_recipe

NOTE = """>[!nexus_user] **User** - 01.02.2025 at 10:00
> {question}
<!-- UID: 00000000-0000-4000-8000-{number:012d} -->

>[!nexus_agent] **Assistant** - 01.02.2025 at 10:01
> {answer}
<!-- UID: 00000000-0000-4000-9000-{number:012d} -->
"""


@pytest.fixture
def corpus(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    for number in range(20):
        text = NOTE.format(
            number=number,
            question=f"What is thing {number}?",
            answer="Turn it over. Now it moves." + " The step: go." * (1 + number % 3),
        )
        (notes / f"{number}.md").write_text(text, encoding="utf-8")
    folder = tmp_path / "rows"
    build_corpus(notes, holdout=0.2).save(folder)
    return folder


@pytest.fixture
def recipe(corpus):
    def make(**changes):
        given = {
            "base": "tiny",
            "corpus": str(corpus),
            "name": "mine",
            "rank": 4,
            "epochs": 2,
            "batch_tokens": 400,
            "learning_rate": 2e-2,
            "guards.drift_budget": "off",
        }
        return load_recipe(None, given | changes)

    return make


@pytest.fixture(autouse=True)
def short_general_text(monkeypatch):
    """The tiny base is random: general text is measured for the machinery, not the figure."""
    from loratelier.train import run

    monkeypatch.setattr(run, "general_text", lambda: ["The tide comes in.", "Bread rises."])
