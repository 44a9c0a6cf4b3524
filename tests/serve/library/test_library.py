"""Libraries over real notes in Russian and English, and answers that cite them."""

import json

import pytest
from typer.testing import CliRunner

from loratelier.bank import AdapterBank
from loratelier.cli.app import app
from loratelier.kit.errors import InputError
from loratelier.serve import Dialogue, Sampling
from loratelier.serve.library import Library, build_library, citations, read_notes, with_notes
from loratelier.serve.library.pieces import cut

NOTES = {
    "garden.md": "The old garden has four apple trees. My grandmother planted them in 1957.\n\n"
    "The well behind the house is eleven metres deep and its water tastes of iron.",
    "сад.md": "В старом саду живёт ёж по имени Степан. Он приходит к миске после заката.\n\n"
    "Ключ от сарая лежит под третьим кирпичом у крыльца.",
    "ship.md": "The ferry leaves at six in the morning, except in winter, when it does not leave.",
}


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for name, text in NOTES.items():
        (folder / name).write_text(text, encoding="utf-8")
    talk = [
        {"role": "user", "content": "What did we say of the lighthouse?"},
        {"role": "assistant", "content": "That its lamp is older than its tower."},
    ]
    (folder / "talk.jsonl").write_text(json.dumps({"messages": talk}), encoding="utf-8")
    return read_notes([folder])


@pytest.mark.parametrize(
    ("asked", "file", "words"),
    [
        ("How deep is that well?", "garden.md", "eleven metres"),
        ("when do the ferries leave", "ship.md", "six in the morning"),
        ("Где ключи от сарая?", "сад.md", "третьим кирпичом"),
        ("О еже, который приходил", "сад.md", "Степан"),
    ],
)
def test_a_question_in_other_forms_of_its_words_finds_its_note(home, corpus, asked, file, words):
    first = build_library(corpus, "mine").search(asked, 2)[0]
    assert first.piece.file.endswith(file)
    assert words in first.piece.text
    span = NOTES[file][first.piece.start : first.piece.end]
    assert words in span  # the place in the note is where the words stand


def test_a_library_is_opened_again_and_searched_alike(home, corpus):
    built = build_library(corpus, "mine")
    again = Library.open("mine")
    asked = "the apple trees and the ferry in winter"
    assert again.search(asked) == built.search(asked) != []
    assert again.facts["corpora"] == [each.hash for each in corpus]
    said = again.search("how old is the lamp in that tower", 1)[0].piece
    assert (said.role, said.text) == ("assistant", "That its lamp is older than its tower.")
    assert again.search("квазар") == [] == again.search("?!")


def test_names_and_bad_asks_are_refused(home, corpus):
    build_library(corpus, "mine")
    for name in ("../mine", "", "a/b", ".hidden"):
        with pytest.raises(InputError):
            build_library(corpus, name)
        with pytest.raises(InputError):
            Library.open(name)
    with pytest.raises(InputError, match="mine"):
        Library.open("mone")
    with pytest.raises(InputError):
        build_library(corpus, "mine")  # it is there
    with pytest.raises(InputError, match="k is 0"):
        Library.open("mine").search("well", 0)
    assert build_library(corpus, "mine", replace=True).facts["files"] == 4


def test_an_embedding_model_finds_what_has_no_word_in_common(home, corpus, tmp_path):
    """A tiny random encoder: what is the same text is nearest, whatever else it finds."""
    import torch
    from transformers import BertConfig, BertModel

    from tests.conftest import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    library = build_library(corpus, "near", embed=str(tmp_path / "encoder"))
    assert library.search(NOTES["ship.md"], 1)[0].piece.text == NOTES["ship.md"]
    # No word in common with anything: words alone find nothing, nearness still does.
    assert build_library(corpus, "far").search("qqq zzz") == []
    assert len(library.search("qqq zzz", 2)) == 2
    with pytest.raises(InputError, match="no embedding model"):
        build_library(corpus, "none", embed=str(tmp_path))


def test_notes_stand_before_the_question_and_citations_lead_back(home, corpus):
    found = build_library(corpus, "mine").search("How deep is the well?", 2)
    messages = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "How deep is the well?"},
    ]
    made = with_notes(messages, found)
    assert made[:2] == messages[:2]
    assert made[2]["content"].endswith("\n\nHow deep is the well?")
    assert "[1] The" in made[2]["content"]
    assert messages[2]["content"] == "How deep is the well?"  # what was given is as it was
    told = citations("Eleven metres [1].", found)
    assert [each["named"] for each in told] == [True] + [False] * (len(found) - 1)
    assert told[0]["file"].endswith("garden.md")
    with pytest.raises(InputError, match="Nothing is asked"):
        with_notes([{"role": "system", "content": "x"}], found)


def test_long_texts_are_cut_where_they_breathe():
    text = " ".join(f"Sentence number {n} says a little more than the last." for n in range(80))
    pieces = cut(text, 300)
    assert all(len(piece) <= 300 for piece in pieces)
    assert " ".join(pieces) == text
    assert all(piece.endswith(".") for piece in pieces)
    assert "".join(cut("x" * 1000, 300)) == "x" * 1000


def test_a_dialogue_looks_up_what_is_asked(home, corpus, tiny_base):
    build_library(corpus, "mine")
    sampling = Sampling(temperature=0, repetition_penalty=1)
    dialogue = Dialogue(
        tiny_base,
        AdapterBank(tiny_base.model),
        sampling=sampling,
        max_new_tokens=3,
        library=Library.open("mine"),
    )
    list(dialogue.say("How deep is the well?"))
    question, answer = dialogue.turns
    assert question.content == "How deep is the well?"  # the history holds what was said
    assert answer.notes[0]["file"].endswith("garden.md")
    assert not answer.notes[0]["named"]


def test_the_command_line_builds_and_searches(home, tmp_path, corpus):
    run = CliRunner()
    notes = str(tmp_path / "notes")
    built = run.invoke(app, ["library", "build", notes, "--name", "mine", "--json"])
    assert built.exit_code == 0, built.output
    assert json.loads(built.stdout)["files"] == 4
    found = run.invoke(app, ["library", "search", "mine", "ключ от сарая", "-k", "1", "--json"])
    (first,) = json.loads(found.stdout)["found"]
    assert "кирпичом" in first["text"]
    listed = run.invoke(app, ["library", "list", "--json"])
    assert [each["name"] for each in json.loads(listed.stdout)["libraries"]] == ["mine"]
