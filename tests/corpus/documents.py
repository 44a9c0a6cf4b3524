"""One small valid document of every kind that the importers know, as bytes."""

import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq

from tests.corpus.exports import node, talk, tree
from tests.corpus.pdfs import LATIN, latin, numbered, pdf

ORDER = "адеинопрст "


def documents():
    """Return the documents by name."""
    chatgpt = [
        tree(
            node("r", None, None, ""),
            node("u", "r", "user", "Что это?"),
            node("a", "u", "assistant", "Мост."),
            node("b", "u", "assistant", "Дом."),
            node("t", "b", "tool", "15", name="x"),
            node("c", "t", "assistant", "Это так."),
            current="c",
        ),
        talk("two", "Again?", "Yes."),
    ]
    claude = [
        {
            "uuid": "c",
            "name": "n",
            "chat_messages": [
                {"uuid": "1", "sender": "human", "text": "Hi", "content": []},
                {"uuid": "2", "sender": "assistant", "content": [{"type": "text", "text": "Да"}]},
                {"uuid": "3", "sender": "assistant", "text": "No", "parent_message_uuid": "1"},
            ],
        }
    ]
    telegram = {
        "name": "Anna",
        "type": "personal_chat",
        "id": 1,
        "messages": [
            {"id": 1, "type": "message", "date_unixtime": "1", "from": "Anna", "text": "Привет"},
            {"id": 2, "type": "message", "from": "B", "text": ["a", {"text": "b"}]},
            {"id": 3, "type": "service", "action": "pin", "text": ""},
        ],
    }
    account = {"personal_information": {"user_id": 2}, "chats": {"list": [telegram, telegram]}}
    sets = [
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"instruction": "Q", "input": "x", "output": "A", "history": [["a", "b"]]},
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "completion": "A", "label": False},
        {"text": "words"},
    ]
    note = (
        "---\ntitle: x\n---\n>[!nexus_user] **User** - t\n> Ask\n<!-- UID: u -->\n\nwords\n\n"
        ">[!nexus_agent] **A** - t\n> Ответ [[a|b]]\n>>[!nexus_attachment] f\n<!-- UID: a -->\n"
    )
    page = "<!DOCTYPE html><html><body><h1>T</h1><p>Ж &amp; x<ul><li>a</li></ul></body></html>"
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(sets[2:3]), table)
    texts = {
        "chatgpt": json.dumps(chatgpt, ensure_ascii=False),
        "claude": json.dumps(claude),
        "telegram": json.dumps(telegram, indent=1),
        "account": json.dumps(account),
        "array": json.dumps(sets, indent=1),
        "lines": "\n".join(map(json.dumps, sets)),
        "note": note,
        "page": page,
        "plain": "# Title\n\nПросто слова.\n\nMore — words.",
    }
    return {
        **{name: text.encode() for name, text in texts.items()},
        "mojibake": note.encode().decode("cp1252", "replace").encode(),
        "cp1251": "Ответ на вопрос, который никто не задал.".encode("cp1251"),
        "utf-16": texts["array"].encode("utf-16"),
        "parquet": table.getvalue(),
        "pdf": pdf([latin("One line (and one)."), b""], font=LATIN),
        "mute pdf": pdf([b"<00010002> Tj"], font=numbered(ORDER, told=False)),
        "export zip": _zip({"conversations.json": texts["chatgpt"], "a.png": b"\x89PNG\r\n"}),
        "book": _zip(
            {
                "META-INF/container.xml": '<c><rootfile full-path="b.opf"/></c>',
                "b.opf": '<p><item id="a" href="a.html"/><itemref idref="a"/></p>',
                "a.html": page,
            }
        ),
    }


def _zip(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()
