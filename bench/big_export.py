"""How much memory and time a large ChatGPT export takes: made here, built in a process of its own.

    python -m bench.big_export --megabytes 1000 [--escaped]

Prints one JSON document: sizes, rows, seconds by the clock and of the processor, and the peak of
resident memory in MiB as the system reports it for the building process (ru_maxrss).
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUSSIAN = """
вечером город сон адаптер смысл ответ слово память вопрос берег модель мысль тишина работа
письмо дорога голос утро книга сердце время человек дождь свет правда и но в на с не как что
потому если когда тогда почти снова медленно ясно
"""
ENGLISH = """
evening city dream adapter meaning answer word memory question shore model thought silence
work letter road voice morning book heart time person rain light truth and but in on with not
as that because if when then almost again slowly clearly
"""


def prose(dice):
    """Return sentences of both languages, with some punctuation and now and then an emoji."""
    made = []
    for words in (RUSSIAN.split(), ENGLISH.split()):
        lines = (" ".join(dice.choices(words, k=dice.randint(5, 16))) for _ in range(5000))
        ends = (".", ".", "?", "!", " 🙂.")
        made.append([line.capitalize() + dice.choice(ends) for line in lines])
    return made


PROSE = prose(random.Random(4))


def sentences(dice, count):
    """Return some sentences of one language."""
    return " ".join(dice.choices(dice.choice(PROSE), k=count))


def conversation(dice, number):
    """Return one conversation with regenerations and tools, as an export has it."""
    mapping = {}

    def add(parent, role, text, **more):
        key = f"{number:08x}-{len(mapping):04x}-4000-8000-{dice.getrandbits(48):012x}"
        message = (
            role
            and {
                "id": key,
                "author": {"role": role, "name": None, "metadata": {}},
                "create_time": 1.7e9 + len(mapping),
                "update_time": None,
                "content": {"content_type": "text", "parts": [text]},
                "status": "finished_successfully",
                "end_turn": True,
                "weight": 1.0,
                "metadata": {"model_slug": "gpt-4o", "citations": [], "parent_id": parent},
                "recipient": "all",
                "channel": None,
            }
            | more
        )
        mapping[key] = {"id": key, "message": message or None, "parent": parent, "children": []}
        if parent:
            mapping[parent]["children"].append(key)
        return key

    at = add(add(None, None, ""), "system", "")
    for _ in range(dice.randint(2, 24)):
        at = add(at, "user", sentences(dice, dice.randint(1, 4)))
        if dice.random() < 0.1:
            add(at, "assistant", sentences(dice, dice.randint(5, 40)))
        if dice.random() < 0.1:
            call = add(at, "assistant", "search()", recipient="browser")
            at = add(call, "tool", sentences(dice, 20))
        at = add(at, "assistant", sentences(dice, dice.randint(5, 40)))
    name = f"{number:08x}-0000-4000-8000-000000000000"
    return {
        "title": sentences(dice, 1),
        "create_time": 1.7e9,
        "update_time": 1.7e9,
        "mapping": mapping,
        "moderation_results": [],
        "current_node": at,
        "conversation_id": name,
        "id": name,
    }


def write_export(path, size, *, escaped):
    """Write conversations until the file is ``size`` bytes long; return how many there are."""
    dice, number = random.Random(4), 0
    with path.open("w", encoding="utf-8") as out:
        out.write("[")
        while out.tell() < size:
            text = json.dumps(conversation(dice, number), ensure_ascii=escaped)
            out.write(f"{', ' if number else ''}{text}")
            number += 1
        out.write("]")
    return number


def main():
    """Make the export, build it, print what it took."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--megabytes", type=int, default=1000)
    options.add_argument("--escaped", action="store_true", help=r"write \uXXXX, as ChatGPT does")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "conversations.json", Path(scratch) / "out"
        made = write_export(source, chosen.megabytes * 10**6, escaped=chosen.escaped)
        command = [sys.executable, "-c", "from loratelier.cli import main; main()", "corpus"]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, "build", str(source), "-o", str(target), "--json"],
            stdout=subprocess.PIPE,
            env=os.environ,
            check=True,
        )
        seconds = time.perf_counter() - start
        built = json.loads(done.stdout)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        kept = ("conversations", "messages", "rows", "dropped", "candidates", "broken")
        print(
            json.dumps(
                {
                    "export_megabytes": source.stat().st_size / 1e6,
                    "made_conversations": made,
                    **{key: built[key] for key in kept},
                    "corpus_megabytes": sum(f.stat().st_size for f in target.iterdir()) / 1e6,
                    "seconds": round(seconds, 1),
                    "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
                    "peak_resident_mib": round(used.ru_maxrss / 1024),
                }
            )
        )


if __name__ == "__main__":
    main()
