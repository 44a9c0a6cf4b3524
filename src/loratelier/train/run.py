"""``train``: from a recipe to an adapter in the store."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from loratelier.adapter import Adapter, Card, store
from loratelier.adapter.card import BaseRef, CorpusRef, versions
from loratelier.base import Base, load_base
from loratelier.base.fastest import fastest_dtype
from loratelier.base.likelihood import general_text
from loratelier.base.narrow import wide_ends
from loratelier.base.packed import Apart, rows_apart, tokens_at_once
from loratelier.base.vocabulary import numbers_of, taught
from loratelier.base.work import Work, work_of
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.kit.home import room
from loratelier.kit.progress import remark
from loratelier.train import checkpoint
from loratelier.train.beginnings import begin_with_data
from loratelier.train.distill import Distillation
from loratelier.train.dpo import Dpo
from loratelier.train.drift import DriftMeter
from loratelier.train.estimate import say_what_it_takes
from loratelier.train.invocation import invocation_of, waiting
from loratelier.train.journal import Journal
from loratelier.train.learner import Learner
from loratelier.train.loop import Plan, Run, State, gathered, run
from loratelier.train.measure import change
from loratelier.train.model import make_optimizer, wrap
from loratelier.train.objective import Objective, Sft
from loratelier.train.processes import make_accelerator
from loratelier.train.recipe import Recipe
from loratelier.train.recipe_file import load_recipe
from loratelier.train.replay import digest_of, general_rows, with_replay
from loratelier.train.steps import Cut, epoch_steps
from loratelier.train.strength import settle, wear
from loratelier.train.taking import take
from loratelier.train.token_mask import mask_tokens
from loratelier.train.unquantised import measured_unquantised
from loratelier.train.watch import Watch, measured_peak
from loratelier.train.whole import Whole, all_weights

# Where things lie is nobody's business, and may change: what is in them is written down.
_PLACES: dict[str, Any] = {"corpus": True, "guards": {"replay_from"}}


def train(
    recipe: Recipe | str | Path,
    *,
    base: Base | None = None,
    replace: bool = False,
    resume: bool = False,
    watch: bool = False,
) -> Adapter:
    """Train an adapter and put it into the store under the recipe's name.

    Args:
        recipe: a Recipe, or the path of a YAML file.
        base: the base, when it is loaded already. It is handed back as it came: the adapter's
            layers are taken out of it again.
        replace: take the place of an adapter of that name.
        resume: go on with a run that was stopped, exactly as if it had not been; where none was
            begun, begin.
        watch: measure the machine's peak first, and say beside the bar what the last evaluation
            was and what share of the peak is reached.

    Raises:
        InputError: a bad recipe, base or corpus; a name that is taken; a row whose mask would be
            wrong; a stopped run of another recipe, corpus or base.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(Path(recipe))
    target = store.path_of(recipe.name)
    if target.exists() and not replace:
        raise InputError(
            f"An adapter '{recipe.name}' exists already", "Choose another name, or replace it"
        )
    corpus = Corpus.load(recipe.corpus)
    recipe = _with_words(recipe, corpus)
    handed_in = base is not None
    base = base or _load(recipe)
    _require_same_form(base, recipe)
    # Asked before an adapter is put on: the teacher may be another one on the same base.
    objective = _objective(base, corpus, recipe)
    accelerator = make_accelerator(recipe, base)
    with ExitStack() as opened:
        whole: Whole | None = None
        peft: Any = None
        if recipe.new_tokens or {"embed", "head"} & set(recipe.targets):
            opened.enter_context(wide_ends(base.model))
        knowing = opened.enter_context(taught(base, recipe.new_tokens))
        if recipe.trains_the_base:
            whole = opened.enter_context(all_weights(base, recipe, handed_in=handed_in))
        else:
            peft = opened.enter_context(_worn(knowing, recipe))
        invocation = invocation_of(base, recipe.invocation) if recipe.invocation else None
        with _kept_apart(base, recipe) as apart, waiting(base.model, invocation):
            learner = Learner(base.model, peft, apart, recipe)
            plan = _plan(knowing, corpus, recipe, objective, learner, accelerator)
            if recipe.init == "eva":
                begin_with_data(peft, learner, [p for step in plan.epochs[0] for p in step.packs])
            _say_what_happens(recipe, plan, learner)
            say_what_it_takes(base, recipe, plan, learner, _work(base, recipe))
            metrics, strength = _run(
                knowing, learner, recipe, objective, plan, corpus, accelerator, resume, watch, whole
            )
        if peft is not None:
            wear(peft, strength)
        card = _card(knowing, corpus, recipe, metrics)
        with _disk(target):
            if whole is not None:
                adapter = whole.adapter(card, recipe.name)
            else:
                adapter = take(peft, card, recipe, invocation, gathered(peft))
    for tracker in accelerator.trackers:
        tracker.finish()
    if accelerator.is_main_process:
        if base.quantization is not None:
            # Of preferences a loss per token would say little.
            rows = () if recipe.objective == "dpo" else plan.held_out
            adapter = measured_unquantised(adapter, base, rows, general_text()[1::2])
        with _disk(target):
            adapter.save(target, replace=replace)
        shutil.rmtree(_run_folder(recipe), ignore_errors=True)
    accelerator.wait_for_everyone()
    if not adapter.has_effect:
        remark(f"'{recipe.name}' has no effect: its update is zero everywhere")
    return adapter


def _load(recipe: Recipe) -> Base:
    """Load the recipe's base in the dtype that it asks for, or that this machine does best."""
    if recipe.quantization is not None:
        # What is not held in 4 bits is held in 16 anyway: this is what is computed in.
        kind: str | torch.dtype = recipe.dtype
        if recipe.dtype == "auto":
            choice = fastest_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
            remark(choice.reason)
            kind = choice.dtype
        return load_base(recipe.base, dtype=kind, quantization=recipe.quantization)
    if recipe.dtype != "auto":
        return load_base(recipe.base, dtype=recipe.dtype)
    if recipe.trains_the_base:
        remark("float32: all weights are trained, and small steps would be lost in less")
        return load_base(recipe.base, dtype="float32")
    choice = fastest_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    remark(choice.reason)
    return load_base(recipe.base, dtype=choice.dtype)


def _with_words(recipe: Recipe, corpus: Corpus) -> Recipe:
    """Return the recipe with its new tokens named; 'corpus' means the corpus' hyperlexemes."""
    if recipe.new_tokens != "corpus":
        return recipe
    if not corpus.report.tokens:
        raise InputError(f"{recipe.corpus} lists no hyperlexemes", "Name the new_tokens yourself")
    words = tuple(dict.fromkeys(corpus.report.tokens))
    return recipe.model_copy(update={"new_tokens": words})


def _require_same_form(base: Base, recipe: Recipe) -> None:
    """Refuse a base that was handed in and is held otherwise than the recipe says."""
    if base.quantization != recipe.quantization:
        raise InputError(
            f"The base was loaded with quantization {base.quantization}, and the recipe says "
            f"{recipe.quantization}",
            "Make them agree",
        )
    if recipe.dtype not in ("auto", str(base.dtype).removeprefix("torch.")):
        raise InputError(
            f"The base was loaded as {base.dtype}, and the recipe says dtype: {recipe.dtype}",
            "Make them agree",
        )


@contextmanager
def _disk(target: Path) -> Iterator[None]:
    """Say in one line that there is no room to write; the run's state is still there."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{target} cannot be written ({error}); nothing is lost",
            "Make room, and go on with --resume",
        ) from error


@contextmanager
def _worn(base: Base, recipe: Recipe) -> Iterator[Any]:
    """Yield PEFT's model around the base; the base is handed back as it came."""
    model = wrap(base, recipe)
    try:
        yield model
    finally:
        if recipe.checkpointing:
            base.model.gradient_checkpointing_disable()
        model.unload()
        base.model.requires_grad_(False).eval()


def _kept_apart(base: Base, recipe: Recipe) -> AbstractContextManager[Apart]:
    return rows_apart(base.model) if recipe.packing else nullcontext("padding")


def _objective(base: Base, corpus: Corpus, recipe: Recipe) -> Objective[Any]:
    if recipe.objective == "dpo":
        return Dpo(recipe.beta, recipe.label_smoothing, recipe.sft_weight)
    if recipe.distill is not None:
        return Distillation.of(base, corpus, recipe, recipe.distill)
    return Sft()


def _plan(
    base: Base,
    corpus: Corpus,
    recipe: Recipe,
    objective: Objective[Any],
    learner: Learner,
    accelerator: Accelerator,
) -> Plan:
    learned, withheld = objective.rows(base, corpus, recipe)
    guards, guarded = recipe.guards, dict[str, Any]()
    at_once = recipe.pack_tokens or tokens_at_once(base.device.type)
    padded = learner.reader.apart == "padding"
    if recipe.packing and padded:
        remark(f"{base.name} cannot keep packed rows apart: rows are padded instead")
    cut = Cut(
        step=recipe.batch_tokens,
        pack=min(at_once, recipe.batch_tokens),
        padded=padded,
        shares=accelerator.num_processes,
    )
    if guards.token_mask is not None:
        masked = mask_tokens(base, corpus, learner, learned, guards.token_mask, at_once)
        learned, guarded["masked"] = masked.rows, masked.share
    epochs = [
        epoch_steps(learned, recipe.seed, epoch, cut, objective.lay)
        for epoch in range(recipe.epochs)
    ]
    if guards.replay is not None:
        general = general_rows(base, recipe)
        guarded["replayed"] = digest_of(general)
        epochs = with_replay(epochs, general, recipe, cut)
    return Plan(epochs, objective.lay(withheld, at_once, padded=padded), guarded)


def _say_what_happens(recipe: Recipe, plan: Plan, learner: Learner) -> None:
    first = plan.epochs[0]
    parameters = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    remark(
        f"Training '{recipe.name}': {sum(step.tokens for step in first):,} tokens an epoch, "
        f"{sum(step.targets for step in first):,} of them learned, "
        f"{plan.steps(recipe)} steps at most, {parameters:,} parameters"
    )


def _run(
    base: Base,
    learner: Learner,
    recipe: Recipe,
    objective: Objective[Any],
    plan: Plan,
    corpus: Corpus,
    accelerator: Accelerator,
    resume: bool,
    watch: bool,
    whole: Whole | None,
) -> tuple[dict[str, Any], float]:
    """Train; return what is to be said of it, and the strength at which the adapter is worn."""
    folder = _run_folder(recipe)
    prepared, optimizer = accelerator.prepare(learner, make_optimizer(learner, recipe))
    # Every other text watches over the run; the rest is kept for the final figure, so that the
    # figure is not the one that the kept state was chosen by.
    plan = objective.ready(plan, prepared, accelerator.device)
    meter = DriftMeter(learner, prepared, base.tokenizer, general_text()[::2])
    last = DriftMeter(learner, prepared, base.tokenizer, general_text()[1::2])
    identity = {
        **recipe.model_dump(
            mode="json", exclude=_PLACES | {"save_seconds": True, "logs": True, "dtype": True}
        ),
        "base fingerprint": base.fingerprint,
        "dtype": str(base.dtype).removeprefix("torch."),
        "corpus hash": corpus.hash,
        **plan.guarded,
        "distilled from": objective.source,
    }
    state = checkpoint.load(folder, learner, optimizer, identity) if resume else None
    if resume:
        remark(f"Going on from step {state.step}" if state else "Nothing was begun: beginning")
    state = state or State()
    journal = Journal(folder, state.step, accelerator)

    def save(reached: State) -> None:
        writes = accelerator.is_main_process
        checkpoint.write(folder, learner, optimizer, reached, identity, writes=writes)

    work = Run(
        learner=learner,
        prepared=prepared,
        optimizer=optimizer,
        accelerator=accelerator,
        recipe=recipe,
        objective=objective,
        plan=plan,
        meter=meter,
        save=save,
        told=journal,
        watch=_watch(base, recipe, watch),
        whole=whole,
    )
    state = run(work, state)
    settle(work, state)
    strength = state.kept_point.strength
    with learner.at_strength(strength):
        metrics = _metrics(plan, state, last)
    return metrics | ({"distilled_from": objective.source} if objective.source else {}), strength


def _watch(base: Base, recipe: Recipe, asked: bool) -> Watch:
    peak = measured_peak(base.dtype, base.device) if asked else None
    if peak is not None:
        remark(f"This machine multiplies matrices at {peak / 1e9:,.0f} GFLOP/s")
    return Watch(_work(base, recipe), peak)


def _work(base: Base, recipe: Recipe) -> Work:
    trains = recipe.trains_the_base
    return work_of(base.model, 0 if trains else min(recipe.layers or (0,)), trains_weights=trains)


def _run_folder(recipe: Recipe) -> Path:
    return room("runs") / recipe.name


def _metrics(plan: Plan, state: State, last: DriftMeter) -> dict[str, Any]:
    """Measure the kept state on texts that nothing was chosen by, and gather all figures."""
    last.prepared.eval()
    general = last.measure()
    metrics: dict[str, Any] = {
        "kept_step": state.kept_step,
        "strength": state.kept_point.strength,
        "steps": state.step,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 2),
        "tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1),
        "general_bpb_base": last.base_bpb,
        "general_bpb": general.bpb,
        "general_bpb_change": change(last.base_bpb, general.bpb),
        "general_kl": general.kl,
        "curve": [vars(p) for p in (*state.curve, state.worn) if p is not None],
        **plan.guarded,
        "losses": state.losses,
    }
    if plan.held_out:
        # The kept weights were measured on these rows when they were kept; so was the base.
        before, after = state.curve[0].figures, state.kept_point.figures
        metrics["held_out_tokens"] = sum(pack.targets for pack in plan.held_out)
        metrics |= {f"held_out_{name}_base": value for name, value in before.items()}
        metrics |= {f"held_out_{name}": value for name, value in after.items()}
        if "nll" in after:
            metrics["held_out_nll_change"] = change(before["nll"], after["nll"])
    return metrics


def _card(base: Base, corpus: Corpus, recipe: Recipe, metrics: Mapping[str, Any]) -> Card:
    files = Counter(
        source["file"] for row in corpus.rows.column("lineage").to_pylist() for source in row
    )
    conversations = set(corpus.rows.column("conversation").to_pylist())
    return Card(
        tokens=numbers_of(base, recipe.new_tokens),
        base=BaseRef(fingerprint=base.fingerprint, spec=base.spec, name=base.name),
        corpus=CorpusRef(
            hash=corpus.hash,
            rows=corpus.rows.num_rows,
            files=sorted(files),
            conversations=len(conversations),
        ),
        recipe=recipe.model_dump(mode="json", exclude=_PLACES),
        seed=recipe.seed,
        versions=versions(),
        metrics=dict(metrics),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
