"""Repair: damage made here with Python's codecs is undone; clean text of any kind stays."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loratelier.corpus import repair_text
from loratelier.corpus.repair import repair_texts
from loratelier.kit.errors import InputError
from tests.corpus.corpus_texts import CLEAN, ENGLISH, RUSSIAN, TYPOGRAPHIC

SINGLE = ("cp1251", "cp1252", "latin-1", "koi8-r", "cp866", "mac_roman", "mac_cyrillic")


def damage(text, right, wrong):
    """Read bytes with the wrong codec; undefined bytes become controls, as browsers have it."""
    out = []
    for byte in text.encode(right):
        char = bytes([byte]).decode(wrong, errors="replace")
        out.append(chr(byte) if char == "\ufffd" else char)
    return "".join(out)


def encodable(text, codec):
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("wrong", SINGLE)
@pytest.mark.parametrize("text", RUSSIAN + TYPOGRAPHIC + ENGLISH)
def test_utf8_read_as_a_single_byte_codec_is_restored(text, wrong):
    repair = repair_text(damage(text, "utf-8", wrong))
    assert repair.text == text
    assert repair.changed
    assert not repair.lossy
    # Two codecs can give the same characters; then either name is a true account.
    assert [step.right for step in repair.steps] == ["utf-8"]
    assert damage(text, "utf-8", repair.steps[0].wrong) == damage(text, "utf-8", wrong)
    assert repair.original() == damage(text, "utf-8", wrong)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("cp1251", "latin-1"),
        ("cp1251", "cp1252"),
        ("cp1251", "koi8-r"),
        ("koi8-r", "cp1251"),
        ("cp1251", "cp866"),
        ("cp866", "cp1251"),
        ("koi8-r", "cp866"),
        ("cp866", "koi8-r"),
        ("cp866", "latin-1"),
        ("koi8-r", "latin-1"),
        ("cp1251", "mac_roman"),
        ("mac_cyrillic", "latin-1"),
    ],
)
def test_single_byte_swaps_are_restored(right, wrong):
    texts = [text for text in RUSSIAN + TYPOGRAPHIC if encodable(text, right)]
    assert len(texts) >= 24
    for text in texts:
        assert repair_text(damage(text, right, wrong)).text == text


@pytest.mark.parametrize(
    ("right", "wrong"), [("cp1251", "mac_cyrillic"), ("mac_cyrillic", "cp1251")]
)
def test_codecs_that_differ_in_few_letters_need_more_text(right, wrong):
    broken = [damage(line, right, wrong) for line in RUSSIAN]
    mended = repair_text("\n".join(broken)).text.split("\n")
    # A line where a letter became a dash or a quote and nothing else changed stays as it was:
    # the same marks stand beside letters in clean text.
    for line, was, now in zip(RUSSIAN, broken, mended, strict=True):
        assert now in (line, was)
    assert sum(map(str.__eq__, RUSSIAN, mended)) >= 0.7 * len(RUSSIAN)


@pytest.mark.parametrize("inner", ("cp1251", "cp1252", "mac_roman"))
@pytest.mark.parametrize("outer", SINGLE)
def test_utf8_misread_twice_is_restored(inner, outer):
    for text in (*RUSSIAN[:6], *ENGLISH[:2]):
        twice = damage(damage(text, "utf-8", inner), "utf-8", outer)
        repair = repair_text(twice)
        assert repair.text == text
        assert repair.original() == twice


def test_two_single_byte_misreadings_are_restored():
    for text in RUSSIAN[:6]:
        seen = damage(damage(text, "cp1251", "koi8-r"), "cp866", "cp1251")
        assert repair_text(seen).text == text


@pytest.mark.parametrize("text", CLEAN)
def test_clean_text_stays(text):
    repair = repair_text(text)
    assert (repair.text, repair.changed, repair.lossy, repair.steps) == (text, False, False, ())


def test_clean_lines_are_no_evidence_together_either():
    text = "\n".join(CLEAN * 12)
    assert not repair_text(text).changed


def test_quotes_and_dashes_beside_russian_words_stay_however_many():
    text = "\n".join(f"«{line}» — “{line}”, «{n}»…" for n, line in enumerate(RUSSIAN * 8))
    assert not repair_text(text).changed


WORDS = st.one_of(
    # Words that exist: letters in a random order are no clean text.
    st.sampled_from(sorted({word for line in RUSSIAN for word in line.split()})),
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=9),
    st.text("abcdeéèêàâäöüßñçíóú", min_size=1, max_size=9),
    st.text("αβγδεζηθικλμνξοπρστυφχψω", min_size=1, max_size=6),
    st.text("日本語中文字漢한국어", min_size=1, max_size=4),
    st.text("🙂👍🔥✅🧠→≠≤√∑∂∞", min_size=1, max_size=3),
    st.sampled_from(
        ("Москва", "CAFÉ", "Zürich", "LoRA", "naïve", "№ 5", "ΔW", "x²", "`a→b`", "##")
    ),
)
JOINTS = st.sampled_from(
    (" ", " — ", ", ", ". ", "\n", " «", "» ", " “", "” ", "’s ", "… ", "\xa0")
)


@given(st.lists(st.tuples(WORDS, JOINTS), max_size=40))
@settings(max_examples=120, deadline=None)
def test_clean_words_of_many_scripts_stay(parts):
    text = "".join(word + joint for word, joint in parts)
    repair = repair_text(text)
    assert repair.text == text
    assert not repair.changed


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_can_be_had_back(text):
    assert repair_text(text).original() == text


@given(st.lists(st.sampled_from(RUSSIAN + TYPOGRAPHIC), min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_repair_ends_where_nothing_is_left_to_mend(sentences, data):
    text = "\n".join(sentences)
    mended = repair_text(damage(text, "utf-8", data.draw(st.sampled_from(SINGLE)))).text
    assert mended == text
    assert not repair_text(mended).changed


def test_dropped_bytes_become_one_mark_each_and_are_counted():
    text = "Это важная мысль — “смысл” не исчезает, а Настя её Помнит."
    kept = bytes(b for b in text.encode() if b not in b"\x81\x8d\x8f\x90\x9d\xad")
    repair = repair_text(kept.decode("cp1252"))
    assert repair.lossy
    assert len(repair.text) == len(text)
    lost = [n for n, char in enumerate(repair.text) if char == "\ufffd"]
    # Э AD, я 8F twice in one word, ” 9D, с 81, Н 9D, П 9F stays.
    assert {text[n] for n in lost} <= set("ЭАНсяэёЁ”")
    assert all(
        a == b for n, (a, b) in enumerate(zip(text, repair.text, strict=True)) if n not in lost
    )
    assert repair.lost == len(lost) == sum(text.count(char) for char in "Эяс”Н")
    assert "lost" in str(repair.steps[0])


def test_only_the_damaged_line_of_a_mixed_text_changes():
    clean = "Этот абзац никто не трогал, и он читается «как есть»."
    broken = damage(RUSSIAN[2], "utf-8", "mac_roman")
    other = damage(RUSSIAN[3], "cp1251", "latin-1")
    repair = repair_text(f"{clean}\n{broken}\n\n{other}\n{clean}")
    assert repair.text == f"{clean}\n{RUSSIAN[2]}\n\n{RUSSIAN[3]}\n{clean}"
    assert sorted(change.line for step in repair.steps for change in step.changes) == [2, 4]


def test_a_damaged_word_beside_clean_words_in_one_line():
    broken = damage("привет", "utf-8", "cp1252")
    assert (
        repair_text(f"Он сказал {broken} и naïve ушёл →").text == "Он сказал привет и naïve ушёл →"
    )


def test_a_short_text_is_left_alone_until_its_neighbour_proves_the_damage():
    short = damage("да", "cp1251", "latin-1")
    assert repair_text(short).text == short
    mended = repair_texts([short, damage(RUSSIAN[0], "cp1251", "latin-1")])
    assert [repair.text for repair in mended] == ["да", RUSSIAN[0]]


def test_the_step_says_what_was_misread_and_the_scores_rise():
    (step,) = repair_text(damage(RUSSIAN[0], "utf-8", "mac_roman")).steps
    assert (step.kind, step.wrong, step.right, step.lost) == ("re-encode", "mac_roman", "utf-8", 0)
    assert step.after > step.before
    assert "UTF-8 read as Mac Roman" in str(step)


def test_a_known_language_narrows_what_is_expected():
    broken = damage(RUSSIAN[0], "cp1251", "latin-1")
    assert repair_text(broken, language="ru").text == RUSSIAN[0]
    assert not repair_text(broken, language="en").changed
    with pytest.raises(InputError, match="'fr'"):
        repair_text(broken, language="fr")


@pytest.mark.parametrize("text", ["«CAFÉ» CAFÉ» CAFÉ»", "ÉTÉ” DÉJÀ VU”", "LE PRÉ… LE BLÉ…"])
def test_capitals_before_a_closing_mark_stay(text):
    assert not repair_text(text).changed


@pytest.mark.parametrize(
    "line", ["А я otto@example.org", "И в https://example.org/a", "А я, и в example.org?"]
)
def test_words_of_one_letter_beside_an_address_stay(line):
    assert repair_text(line).text == line
