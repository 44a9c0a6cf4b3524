"""``train``: from a recipe to an adapter in the store."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loratelier.adapter import Adapter, Card, store
from loratelier.adapter.card import BaseRef, CorpusRef, versions
from loratelier.base import Base, load_base
from loratelier.base.likelihood import bits_per_byte, general_text
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.kit.home import room
from loratelier.kit.progress import remark
from loratelier.train import checkpoint
from loratelier.train.examples import Example, to_example, to_text_example
from loratelier.train.loop import Plan, State, make_optimizer, run
from loratelier.train.measure import change
from loratelier.train.model import wrap
from loratelier.train.packing import pack, shuffled
from loratelier.train.recipe import Recipe, load_recipe


def train(
    recipe: Recipe | str | Path,
    *,
    base: Base | None = None,
    replace: bool = False,
    resume: bool = False,
) -> Adapter:
    """Train an adapter and put it into the store under the recipe's name.

    Args:
        recipe: a Recipe, or the path of a YAML file.
        base: the base, when it is loaded already. It is handed back as it came: the adapter's
            layers are taken out of it again.
        replace: take the place of an adapter of that name.
        resume: go on with a run that was stopped, exactly as if it had not been.

    Raises:
        InputError: a bad recipe, base or corpus; a name that is taken; a row whose mask would be
            wrong; nothing to resume.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(Path(recipe))
    target = store.path_of(recipe.name)
    if target.exists() and not replace:
        raise InputError(
            f"An adapter '{recipe.name}' exists already", "Choose another name, or replace it"
        )
    corpus = Corpus.load(recipe.corpus)
    base = base or load_base(recipe.base)
    rows = examples(base, corpus, recipe)
    learned, withheld = split(corpus, rows, recipe)
    plan = _plan(learned, withheld, recipe)
    model = wrap(base, recipe)
    try:
        _say_what_happens(recipe, plan, model)
        state = _run(base, model, recipe, plan, corpus, resume)
        metrics = _measure(base, model, plan, state)
        adapter = Adapter.from_peft(model, _card(base, corpus, recipe, metrics), recipe.name)
    finally:
        model.unload()
        base.model.requires_grad_(False).eval()
    adapter.save(target, replace=replace)
    shutil.rmtree(_run_folder(recipe), ignore_errors=True)
    if not adapter.has_effect:
        remark(f"'{recipe.name}' has no effect: its update is zero everywhere")
    return adapter


def examples(base: Base, corpus: Corpus, recipe: Recipe) -> list[Example]:
    """Tokenize the corpus' rows; a row longer than ``max_length`` is left out and named.

    Raises:
        InputError: a row with a wrong mask, or no row that is left.
    """
    rows = corpus.rows.select(["id", "messages", "text", "conversation"]).to_pylist()
    made = [_example(base, row) for row in rows]
    fitting = [example for example in made if len(example) <= recipe.max_length]
    for example in made:
        if len(example) > recipe.max_length:
            remark(
                f"Row {example.row} is left out: {len(example)} tokens, max_length is "
                f"{recipe.max_length}"
            )
    if not fitting:
        raise InputError(
            f"No row of {recipe.corpus} fits max_length = {recipe.max_length}",
            f"The shortest has {min((len(e) for e in made), default=0)} tokens: --set max_length",
        )
    return fitting


def _example(base: Base, row: Mapping[str, Any]) -> Example:
    if row["text"] is not None:
        return to_text_example(base, row["id"], row["conversation"], row["text"])
    return to_example(base, row["id"], row["conversation"], row["messages"])


def split(
    corpus: Corpus, rows: Sequence[Example], recipe: Recipe
) -> tuple[list[Example], list[Example]]:
    """Return the rows to learn from and those held out; a conversation is never on both sides.

    Raises:
        InputError: nothing is left to learn from.
    """
    if recipe.holdout is None:
        ids = corpus.rows.column("id").to_pylist()
        splits = dict(zip(ids, corpus.rows.column("split").to_pylist(), strict=True))
        withheld = [row for row in rows if splits[row.row] == "holdout"]
        learned = [row for row in rows if splits[row.row] != "holdout"]
    else:
        out = _chosen({row.conversation for row in rows}, recipe.holdout, recipe.seed)
        withheld = [row for row in rows if row.conversation in out]
        learned = [row for row in rows if row.conversation not in out]
    if not learned:
        raise InputError(
            f"No row of {recipe.corpus} is left to learn from", "Lower the recipe's holdout"
        )
    if not withheld:
        remark("No conversation is held out: nothing can say when to stop, the last state is kept")
    return learned, withheld


def _chosen(conversations: set[str], share: float, seed: int) -> set[str]:
    """Choose a share of the conversations, the same for the same seed; at least one if any."""
    ranked = sorted(
        conversations, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()
    )
    count = max(1, round(share * len(ranked))) if share > 0 and len(ranked) > 1 else 0
    return set(ranked[:count])


def _plan(learned: Sequence[Example], withheld: Sequence[Example], recipe: Recipe) -> Plan:
    epochs = [
        pack(shuffled(learned, recipe.seed, epoch), recipe.batch_tokens)
        for epoch in range(recipe.epochs)
    ]
    # Every other text watches over the run; the rest is kept for the final figure, so that the
    # figure is not the one that the kept state was chosen by.
    return Plan(epochs, pack(withheld, recipe.batch_tokens), general_text()[::2])


def _say_what_happens(recipe: Recipe, plan: Plan, model: Any) -> None:
    first = plan.epochs[0]
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    remark(
        f"Training '{recipe.name}': {sum(pack.tokens for pack in first):,} tokens an epoch, "
        f"{sum(pack.targets for pack in first):,} of them learned, "
        f"{plan.steps(recipe)} steps at most, {parameters:,} parameters"
    )


def _run(base: Base, model: Any, recipe: Recipe, plan: Plan, corpus: Corpus, resume: bool) -> State:
    folder = _run_folder(recipe)
    optimizer = make_optimizer(model, recipe)
    identity = {
        **recipe.model_dump(mode="json", exclude={"corpus"}),
        "base fingerprint": base.fingerprint,
        "corpus hash": corpus.hash,
    }
    state = checkpoint.load(folder, model, optimizer, identity) if resume else State()
    if resume:
        remark(f"Going on from step {state.step}")

    def save(reached: State) -> None:
        checkpoint.save(folder, model, optimizer, reached, identity)

    return run(base, model, optimizer, recipe, plan, state, save)


def _run_folder(recipe: Recipe) -> Path:
    return room("runs") / recipe.name


def _measure(base: Base, model: Any, plan: Plan, state: State) -> dict[str, Any]:
    """Measure the kept state beside the base, on the same rows and texts, in this run."""
    model.eval()
    texts = general_text()[1::2]
    general = bits_per_byte(model, base.tokenizer, texts).value
    with model.disable_adapter():
        general_base = bits_per_byte(model, base.tokenizer, texts).value
    metrics: dict[str, Any] = {
        "kept_step": state.kept_step,
        "steps": state.step,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 2),
        "tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1),
        "general_bpb_base": general_base,
        "general_bpb": general,
        "general_bpb_change": change(general_base, general),
        "curve": [vars(point) for point in state.curve],
    }
    if plan.held_out:
        # The kept weights were measured on these rows when they were kept; so was the base.
        before, after = state.curve[0].held_out_nll, state.kept_point.held_out_nll
        assert before is not None
        assert after is not None
        metrics |= {
            "held_out_tokens": sum(pack.targets for pack in plan.held_out),
            "held_out_nll_base": before,
            "held_out_nll": after,
            "held_out_nll_change": change(before, after),
        }
    return metrics


def _card(base: Base, corpus: Corpus, recipe: Recipe, metrics: Mapping[str, Any]) -> Card:
    files = Counter(
        source["file"] for row in corpus.rows.column("lineage").to_pylist() for source in row
    )
    conversations = set(corpus.rows.column("conversation").to_pylist())
    return Card(
        base=BaseRef(fingerprint=base.fingerprint, spec=base.spec, name=base.name),
        corpus=CorpusRef(
            hash=corpus.hash,
            rows=corpus.rows.num_rows,
            files=sorted(files),
            conversations=len(conversations),
        ),
        recipe=recipe.model_dump(mode="json", exclude={"corpus"}),
        seed=recipe.seed,
        versions=versions(),
        metrics=dict(metrics),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
