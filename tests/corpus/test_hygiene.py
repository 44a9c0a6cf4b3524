"""Cleaning: what is private is found by its check digits, what is masked stays one name."""

import json

import pytest

from loratelier.corpus import build_corpus
from loratelier.corpus.hygiene import Hygiene
from loratelier.corpus.hygiene.near import NearDuplicates, signature_of
from loratelier.corpus.hygiene.private import find_private
from loratelier.corpus.hygiene.quarantine import REASON, holds_code
from loratelier.corpus.hygiene.tongue import language_of
from loratelier.kit.errors import InputError

# Fictitious, with right check digits; secrets are put together here so that no scanner finds one.
KEY = "AKIA" + "IOSFODNN7EXAMPLE"
TOKEN = "ghp_" + "a1B2" * 9


def note(number, question, answer, provider="claude"):
    front = f"---\nnexus: nexus-ai-chat-importer\nprovider: {provider}\n---\n"
    quoted = "\n".join(f"> {line}" for line in answer.split("\n"))
    return (
        f"{front}>[!nexus_user] **User** - 1\n> {question}\n<!-- UID: u{number} -->\n\n"
        f">[!nexus_agent] **Assistant** - 2\n{quoted}\n<!-- UID: a{number} -->\n"
    )


@pytest.fixture
def vault(tmp_path):
    folder = tmp_path / "vault"
    folder.mkdir()

    def write(*pairs, provider="claude"):
        for number, (question, answer) in enumerate(pairs):
            path = folder / f"{number:03}.md"
            path.write_text(note(number, question, answer, provider), encoding="utf-8")
        return folder

    return write


def kinds(text):
    return [(each.kind, each.value) for each in find_private(text)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Пишите на anna.petrova@example.org, отвечу.", "email", "anna.petrova@example.org"),
        ("Звони: +7 (912) 345-67-89 вечером", "phone", "+7 (912) 345-67-89"),
        ("мой номер 89123456789.", "phone", "89123456789"),
        ("call +44 20 7946 0958 please", "phone", "+44 20 7946 0958"),
        ("карта 4111 1111 1111 1111, спасибо", "card", "4111 1111 1111 1111"),
        ("ИНН 7707083893", "inn", "7707083893"),
        ("ИНН: 500100732259", "inn", "500100732259"),
        ("СНИЛС 112-233-445 95", "snils", "112-233-445 95"),
        ("паспорт 45 08 123456 выдан", "passport", "45 08 123456"),
        ("IBAN DE89 3704 0044 0532 0130 00", "iban", "DE89 3704 0044 0532 0130 00"),
        ("сервер 203.0.113.7 не отвечает", "ip address", "203.0.113.7"),
        ("at 2001:db8::8a2e:370:7334 now", "ip address", "2001:db8::8a2e:370:7334"),
        ("канал https://t.me/anna_writes там", "account", "https://t.me/anna_writes"),
        (f"key {KEY} here", "aws key", KEY),
        (f"token: {TOKEN}", "github token", TOKEN),
        ("db = postgres://bob:hunter22@db.local/x", "password in address", "hunter22"),
        ('password = "Tr0ub4dor&3x"', "secret", "Tr0ub4dor&3x"),
        ("пароль: Весна2024!", "secret", "Весна2024!"),
    ],
)
def test_what_is_private_is_found(text, kind, value):
    assert (kind, value) in kinds(text)


def test_a_private_key_is_found_whole():
    text = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----"
    assert kinds(f"see\n{text}\nend") == [("private key", text)]


@pytest.mark.parametrize(
    "text",
    [
        "карта 4111 1111 1111 1112",  # fails Luhn
        "ИНН 7707083894",
        "СНИЛС 112-233-445 96",
        "IBAN DE88 3704 0044 0532 0130 00",
        "версия 1.2.3 и python 3.11.4, адрес 127.0.0.1",
        "число 1234567890123456789012",
        "в 2024-05-17 12:30:45, счёт 3:2, 10:20:30",
        "token = get_token()",
        "password: ********",
        "src/loratelier/corpus/hygiene/private.py",
        "550e8400-e29b-41d4-a716-446655440000",
        "commit da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "электронная почта без адреса, @property и @anna",
        "The secret of happiness: patience",
    ],
)
def test_what_only_looks_private_is_not(text):
    assert kinds(text) == []


def test_findings_are_reported_without_being_shown_and_stay_unless_masked(vault):
    folder = vault(("Мой адрес anna@example.org", f"Ключ {KEY} не показывай."))
    corpus = build_corpus(folder)
    assert corpus.report.cleaning.private == {"email": 1, "aws key": 1}
    assert corpus.report.cleaning.masked == {}
    assert "anna@example.org" in corpus.rows.to_pylist()[0]["messages"][0]["content"]
    assert KEY not in corpus.report.model_dump_json()


def test_masks_are_stable_and_cover_what_is_dropped(vault, tmp_path):
    folder = vault(
        ("Пиши на anna@example.org", f"Хорошо, ANNA@example.org. Ключ {KEY}."),
        ("А я boris@example.org", "И anna@example.org тоже здесь."),
    )
    (folder / "loose.md").write_text(
        note(9, "Вопрос без ответа для anna@example.org", "[No content found]"), encoding="utf-8"
    )
    corpus = build_corpus(folder, hygiene=Hygiene(mask=frozenset({"pii", "secrets"})))
    said = [m["content"] for row in corpus.rows.to_pylist() for m in row["messages"]]
    anna = said[0].removeprefix("Пиши на ")
    assert anna.startswith("[EMAIL_")
    assert said[1] == f"Хорошо, {anna}. Ключ [AWS_KEY_1]."
    assert said[2].startswith("А я [EMAIL_")
    assert said[2] != f"А я {anna}"
    assert said[3] == f"И {anna} тоже здесь."
    corpus.save(tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        data = path.read_bytes()
        assert b"anna@example" not in data.lower()
        assert KEY.encode() not in data
    steps = corpus.rows.to_pylist()[0]["lineage"][1]["steps"]
    assert steps == ["masked aws key: 1", "masked email: 1"]


def test_only_one_kind_is_masked_when_asked(vault):
    folder = vault(("Мой адрес anna@example.org", f"Ключ {KEY}."))
    corpus = build_corpus(folder, hygiene=Hygiene(mask=frozenset({"secrets"})))
    said = [m["content"] for m in corpus.rows.to_pylist()[0]["messages"]]
    assert said == ["Мой адрес anna@example.org", "Ключ [AWS_KEY_1]."]
    with pytest.raises(InputError, match="mask = 'pi'"):
        build_corpus(folder, hygiene=Hygiene(mask=frozenset({"pi"})))


def test_a_row_of_an_evaluation_set_goes_with_the_place_where_it_stands(vault, tmp_path):
    words = "сколько будет семью восемь если у Маши было три яблока а потом ещё два"
    folder = vault((words.capitalize() + "?", "Пять."), ("Как дела?", "Хорошо, а у тебя?"))
    items = tmp_path / "eval.jsonl"
    items.write_text(
        json.dumps({"q": "другой вопрос, совсем другой вопрос о погоде"}, ensure_ascii=False)
        + "\n"
        + json.dumps({"q": f"Задача: {words}, и всё.", "a": "5"}, ensure_ascii=False),
        encoding="utf-8",
    )
    corpus = build_corpus(folder, hygiene=Hygiene(decontaminate=(items,)))
    assert corpus.rows.num_rows == 1
    reasons = corpus.dropped["reason"].to_pylist()
    assert len(reasons) == 2
    assert all("eval.jsonl, item 2" in reason for reason in reasons)
    assert corpus.report.cleaning.left_out == {"stands in an evaluation set": 1}
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="line 1 is no JSON"):
        build_corpus(folder, hygiene=Hygiene(decontaminate=(broken,)))


def test_nearly_the_same_rows_go_when_asked(vault):
    long = " ".join(f"Мысль номер {n} идёт своим путём и возвращается." for n in range(30))
    folder = vault(
        ("Расскажи о мыслях", long),
        ("Расскажи о мыслях", long.replace("номер 7", "номер семь")),
        ("Расскажи о погоде", "Сегодня дождь, завтра солнце, а послезавтра никто не знает."),
    )
    assert build_corpus(folder).rows.num_rows == 3
    corpus = build_corpus(folder, hygiene=Hygiene(near_duplicates=0.8))
    assert corpus.rows.num_rows == 2
    assert "similarity 0." in corpus.dropped["reason"].to_pylist()[0]


def test_the_estimate_of_similarity_agrees_with_jaccards():
    words = [f"слово{n}" for n in range(400)]
    first, second = words[:300], words[60:360]
    shingles = [{tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (first, second)]
    exact = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    near = NearDuplicates(0.3)
    assert near.of("a", signature_of(" ".join(first))) is None
    found = near.of("b", signature_of(" ".join(second)))
    assert found is not None
    assert found[0] == "a"
    assert abs(found[1] - exact) < 0.12  # three standard errors of 128 hashes


def test_boilerplate_is_reported_and_taken_out_when_asked(vault):
    tail = "Надеюсь, это помогло! Обращайтесь, если что."
    folder = vault(*((f"Вопрос {n}?", f"Ответ на вопрос {n}.\n{tail}") for n in range(8)))
    corpus = build_corpus(folder)
    assert [(b.line, b.conversations) for b in corpus.report.cleaning.boilerplate] == [(tail, 8)]
    assert tail in str(corpus.rows.to_pylist())
    bare = build_corpus(folder, hygiene=Hygiene(strip_boilerplate=True))
    assert tail not in str(bare.rows.to_pylist())
    assert bare.report.cleaning.stripped == 8


def test_languages_are_told_where_there_is_enough_to_tell(vault):
    assert language_of("Сегодня мы долго говорили о том, как устроена память.") == "ru"
    assert language_of("Today we talked for a long time about how memory works.") == "en"
    assert language_of("Ок") == "unknown"
    assert language_of("12345 67890 !!!") == "unknown"
    folder = vault(("Как устроена память человека?", "Она похожа на пересказ, а не на запись."))
    corpus = build_corpus(folder)
    assert corpus.rows["language"].to_pylist() == ["ru"]
    assert corpus.report.cleaning.languages == {"ru": 1}


def test_code_of_chatgpt_notes_is_quarantined_with_a_reason(vault):
    code = "Вот так:\n```python\ndef f():\n  return 1\n```"
    folder = vault(
        ("Напиши функцию", code),
        ("Как дела?", "Хорошо.\n```math\nE = mc^2\n```"),
        provider="chatgpt",
    )
    corpus = build_corpus(folder)
    assert corpus.rows.num_rows == 1
    assert REASON in corpus.dropped["reason"].to_pylist()
    assert corpus.report.cleaning.quarantined == 1
    assert build_corpus(folder, hygiene=Hygiene(include_code=True)).rows.num_rows == 2


def test_code_of_other_providers_stays(vault):
    assert build_corpus(vault(("Код?", "```python\nx = 1\n```"))).rows.num_rows == 1
    assert holds_code("```\nx\n```\nи\n```text\ny\n```")
    assert not holds_code("```text\nx\n```\nи `код`")
