"""The adapter's own rows: found by the hash on its card, held-out ones first."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.corpus import Corpus
from loratelier.kit.home import room
from loratelier.train import Recipe
from loratelier.train.examples import Example
from loratelier.train.rows import examples, split


def find_corpus(adapter: Adapter) -> Path | None:
    """Return the corpus of the home folder that the adapter's card names by its hash, if any."""
    if adapter.card.corpus is None:
        return None
    for manifest in sorted(room("corpora").glob("*/manifest.json")):
        try:
            found = json.loads(manifest.read_text(encoding="utf-8")).get("hash")
        except (OSError, ValueError, AttributeError):
            continue
        if found == adapter.card.corpus.hash:
            return manifest.parent
    return None


def own_recipe(base: Base, adapter: Adapter) -> Recipe:
    """Return the recipe on the adapter's card; a plain one where it has none."""
    place = {"base": base.spec, "corpus": Path("corpus"), "name": adapter.name}
    recipe = dict(adapter.card.recipe or {})
    if recipe.get("objective") not in (None, "sft"):
        # Rows are read as answers, whatever they were learned by.
        kept = ("seed", "holdout", "max_length")
        recipe = {key: recipe[key] for key in kept if key in recipe}
    return Recipe.model_validate({**recipe, **place})


def own_examples(base: Base, adapter: Adapter, corpus: Corpus) -> list[Example]:
    """Return the rows that were held out from the adapter, or those learned if none was.

    Raises:
        InputError: rows that this base's template cannot tell apart from their prompts.
    """
    recipe = own_recipe(base, adapter)
    learned, withheld = split(corpus, examples(base, corpus, recipe), recipe)
    return [row for row in withheld or learned if any(row.learned)]


def own_dialogues(corpus: Corpus) -> list[tuple[str, str]]:
    """Return (last request, its answer) of the rows that are dialogues."""
    rows: Sequence[dict[str, Any]] = corpus.rows.select(["messages"]).to_pylist()
    pairs = []
    for row in rows:
        messages = row["messages"] or []
        if len(messages) > 1 and messages[-1]["role"] == "assistant":
            pairs.append((str(messages[-2]["content"]), str(messages[-1]["content"])))
    return pairs
