"""Builders of exports for the importer tests: small, by hand, in both languages."""

import json
import zipfile

from loratelier.corpus import build_corpus


def node(key, parent, role, text, *, kind="text", when=1.0, **more):
    """Return one node of a ChatGPT tree; ``role`` None makes a node without a message."""
    if role is None:
        return key, {"id": key, "parent": parent, "message": None, "children": []}
    content = {"content_type": kind}
    content |= {"text": text} if kind == "code" else {"parts": [text]}
    message = {
        "id": f"m-{key}",
        "author": {"role": role, "name": more.get("name")},
        "create_time": when,
        "content": more.get("content", content),
        "recipient": more.get("recipient", "all"),
        "metadata": more.get("metadata", {}),
    }
    return key, {"id": key, "parent": parent, "message": message, "children": []}


def tree(*nodes, current, id="c1", title="Title"):
    """Return a conversation of a ChatGPT export."""
    mapping = dict(nodes)
    for key, each in mapping.items():
        if each["parent"] in mapping:
            mapping[each["parent"]]["children"].append(key)
    return {
        "title": title,
        "create_time": 1.0,
        "mapping": mapping,
        "current_node": current,
        "conversation_id": id,
    }


def talk(id, *texts):
    """Return a ChatGPT conversation without branches: the person first, then by turns."""
    nodes = [node(f"{id}-r", None, None, "")]
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        nodes.append(node(f"{id}-{number}", nodes[-1][0], role, text))
    return tree(*nodes, current=nodes[-1][0], id=id)


def save(folder, name, data):
    """Write data as a file: JSON unless it is text or bytes."""
    path = folder / name
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        path.write_text(text, encoding="utf-8")
    return path


def archive(path, **files):
    """Write a zip; keys are names with ``__`` for a dot."""
    with zipfile.ZipFile(path, "w") as out:
        for name, data in files.items():
            out.writestr(name.replace("__", "."), data)
    return path


def rows(corpus):
    """Return each row as pairs of role and content."""
    return [[(m["role"], m["content"]) for m in row["messages"]] for row in corpus.rows.to_pylist()]


def dropped(corpus, kind="message"):
    """Return why each text was dropped."""
    return {e["text"]: e["reason"] for e in corpus.dropped.to_pylist() if e["kind"] == kind}


def candidates(corpus):
    """Return each candidate: how, last of the prompt, kept, others."""
    return [
        (c["how"], [m["content"] for m in c["prompt"]], c["kept"], c["others"])
        for c in corpus.candidates.to_pylist()
    ]


def build(source, **options):
    """Build and check that every message is in a row or dropped, once."""
    corpus = build_corpus(source, **options)
    kept = [
        (o["file"], o["item"], o["start"]) for r in corpus.rows.to_pylist() for o in r["lineage"]
    ]
    left = [
        (o["file"], o["item"], o["start"])
        for e in corpus.dropped.to_pylist()
        if e["kind"] in ("message", "passage")
        for o in e["lineage"]
    ]
    report = corpus.report
    assert len(kept) + len(left) == len({*kept, *left}) == report.messages + report.passages
    return corpus
