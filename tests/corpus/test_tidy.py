"""What scanners and PDFs leave in a text: set right, recorded, and never guessed."""

import pytest

from loratelier.corpus import build_corpus, repair_text


@pytest.mark.parametrize(
    ("given", "tidy", "what"),
    [
        ("3ТО ТЕСТОВbN ТЕKСТ", "ЭТО ТЕСТОВЫЙ ТЕКСТ", "look-alike letters set right"),
        ("Пpивeт, кaк дeлa у тeбя?", "Привет, как дела у тебя?", "look-alike letters set right"),
        ("м0локо и хлеб", "молоко и хлеб", "look-alike letters set right"),
        ("язык Pуthon и файл СSV", "язык Python и файл CSV", "look-alike letters set right"),
        ("Это ﬁлософия, oﬃce, ﬂuxion", "Это fiлософия, office, fluxion", "ligatures written out"),
        ("сло\u00adво и сло\u200bво", "слово и слово", "invisible characters removed"),
        ("колокол\x07 звонит\x00", "колокол звонит", "control characters removed"),
        ("он сделал пере-\nнос слов", "он сделал перенос\nслов", "words cut at a line end joined"),
        (
            "the infor-\nmation, and information again",
            "the information,\nand information again",
            "words cut at a line end joined",
        ),
    ],
)
def test_it_is_set_right_recorded_and_can_be_taken_back(given, tidy, what):
    repair = repair_text(given)
    assert repair.text == tidy
    assert what in [step.what for step in repair.steps]
    assert repair.original() == given
    assert not repair.lossy


@pytest.mark.parametrize(
    "clean",
    [
        "3го числа 10км, 4х дней, 1С, x86, 3D-модель, JSONом, PDFа, GPT-4о",
        "API-шка, git'ом, LoRA-адаптер и `Пpивeт` в кавычках кода",
        "```\nПpивeт, ﬁx\nsoft-\nware\n```",
        "кое-\nкто пришёл когда-\nто",
        "well-\nknown facts",
        "👨‍👩‍👧 и 🏳️‍🌈",
        "T = 36.6, pH 7, xв, bИ, № 5б",
        "- пункт один-\n- пункт два",
    ],
)
def test_what_only_looks_like_it_stays(clean):
    assert repair_text(clean).text == clean


def test_letters_that_a_pdf_drew_are_said_and_not_guessed():
    text = "Заголовок\nnoJI cTaporo IIIKacpa KpacHbIX cTeH"
    repair = repair_text(text)
    assert repair.text == text
    assert repair.unreadable == (2,)
    assert repair_text("Plain English prose with JSON and YAML, iPhone too.").unreadable == ()


def test_the_build_shows_each_step(tmp_path):
    note = tmp_path / "note.md"
    note.write_text(
        ">[!nexus_user] **User** - 1\n> Что это?\n<!-- UID: a -->\n\n"
        ">[!nexus_agent] **Assistant** - 2\n> 3ТО ТЕСТОВbN ТЕKСТ\n<!-- UID: b -->\n",
        encoding="utf-8",
    )
    corpus = build_corpus(note)
    (row,) = corpus.rows.to_pylist()
    assert row["messages"][1]["content"] == "ЭТО ТЕСТОВЫЙ ТЕКСТ"
    assert row["lineage"][1]["steps"] == ["look-alike letters set right: 1 line"]
    (step,) = corpus.report.files[0].repairs
    assert (step.what, step.excerpt_before) == (
        "look-alike letters set right",
        "3ТО ТЕСТОВbN ТЕKСТ",
    )
