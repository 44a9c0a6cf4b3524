"""The whole road on the sample vault: notes in, adapter out, seen and worn."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from loratelier.adapter import Adapter, store
from loratelier.bank import AdapterBank
from loratelier.base import Base, load_base
from loratelier.base.likelihood import bits_per_byte, general_text
from loratelier.corpus import Corpus, build_corpus
from loratelier.corpus.samples import vault
from loratelier.kit.files import write_atomic
from loratelier.kit.home import room
from loratelier.kit.progress import remark, task
from loratelier.scope import Inspection, inspect_prompt
from loratelier.serve import Both, Dialogue, Sampling, Turn
from loratelier.train import Recipe, train
from loratelier.train.measure import HeldOut, change, held_out
from loratelier.train.packing import pack
from loratelier.train.rows import examples, split

NAME = "paradox"

# Asked nowhere in the vault: a test holds that.
QUESTIONS = (
    "Why do I keep buying things I never use?",
    "Is it better to be right or to be kind?",
    "How can I enjoy my morning walk again?",
)

# The same for the base and for the adapter, and the same in every run.
SAMPLING = Sampling(temperature=0.6, top_p=0.9, repetition_penalty=1.15, seed=0)


@dataclass(frozen=True)
class Figures:
    """What the adapter is worth and what it costs, measured in this run.

    ``general_base`` and ``general``: bits per byte on general English that steered no run.
    """

    held_out_base: HeldOut
    held_out: HeldOut
    general_base: float
    general: float

    @property
    def gain(self) -> float:
        """Relative change of the held-out loss per token; negative is better."""
        return change(self.held_out_base.nll, self.held_out.nll)

    @property
    def drift(self) -> float:
        """Relative change of bits per byte on general text; positive is worse."""
        return change(self.general_base, self.general)


@dataclass(frozen=True)
class Demo:
    """What the demo made and saw."""

    base: Base
    corpus: Corpus
    corpus_folder: Path
    adapter: Adapter
    reused: bool
    figures: Figures
    answers: tuple[Both, ...]
    inspection: Inspection
    report: Path
    seconds: float


def run_demo() -> Demo:
    """Fetch the base, build the corpus, train, measure, inspect; reuse what exists already."""
    began = perf_counter()
    base = load_base("demo")
    corpus, folder = _corpus()
    adapter, reused = _adapter(base, corpus, folder)
    # What was trained in this run was measured in it; an older adapter is measured anew.
    figures = _measure(base, corpus, adapter) if reused else _from_card(adapter)
    answers = _ask(base, adapter)
    inspection = _inspect(base, adapter)
    report = room("reports") / f"{NAME}.html"
    write_atomic(report, inspection.to_html())
    return Demo(
        base=base,
        corpus=corpus,
        corpus_folder=folder,
        adapter=adapter,
        reused=reused,
        figures=figures,
        answers=answers,
        inspection=inspection,
        report=report,
        seconds=perf_counter() - began,
    )


def recipe(corpus: Path) -> Recipe:
    """Return the demo's recipe, made for two cores and a few minutes.

    The lower third of the layers is left alone: nothing is computed backwards through it, and a
    way of speaking sits above it. A high learning rate over few steps costs the rest of the time.
    """
    return Recipe(
        base="demo",
        corpus=corpus,
        name=NAME,
        layers=tuple(range(10, 30)),
        epochs=2,
        max_steps=80,
        learning_rate=1e-3,
        batch_tokens=512,
    )


def _corpus() -> tuple[Corpus, Path]:
    # The demo base knows English only; the Russian notes show the import and are set aside.
    corpus = build_corpus([vault()], script="Latn")
    folder = room("corpora") / "vault"
    if folder.exists() and Corpus.load(folder).hash == corpus.hash:
        remark(f"The corpus {folder} is up to date")
    else:
        corpus.save(folder, replace=True)
    return corpus, folder


def _adapter(base: Base, corpus: Corpus, folder: Path) -> tuple[Adapter, bool]:
    wanted = recipe(folder)
    target = store.path_of(NAME)
    if target.exists():
        adapter = Adapter.load(target)
        if _is_from(adapter, base, corpus, wanted):
            remark(f"The adapter '{NAME}' is up to date: trained from this corpus on this base")
            return adapter, True
    return train(wanted, base=base, replace=True), False


def _is_from(adapter: Adapter, base: Base, corpus: Corpus, wanted: Recipe) -> bool:
    card = adapter.card
    return (
        card.corpus is not None
        and card.corpus.hash == corpus.hash
        and card.base.fingerprint == base.fingerprint
        and card.recipe == wanted.model_dump(mode="json", exclude={"corpus"})
    )


def _measure(base: Base, corpus: Corpus, adapter: Adapter) -> Figures:
    wanted = recipe(Path())
    _, withheld = split(corpus, examples(base, corpus, wanted), wanted)
    packs = pack(withheld, wanted.batch_tokens)
    texts = general_text()[1::2]
    bank = AdapterBank(base.model)
    bank.add(NAME, adapter)
    before = held_out(base.model, packs, what="Held-out dialogues, base")
    general_base = bits_per_byte(base.model, base.tokenizer, texts, what="General text, base")
    with bank.activate(NAME):
        after = held_out(base.model, packs, what="Held-out dialogues, adapter")
        general = bits_per_byte(base.model, base.tokenizer, texts, what="General text, adapter")
    return Figures(before, after, general_base.value, general.value)


def _from_card(adapter: Adapter) -> Figures:
    metrics, tokens = adapter.card.metrics, adapter.card.metrics["held_out_tokens"]
    return Figures(
        held_out_base=HeldOut(metrics["held_out_nll_base"], tokens),
        held_out=HeldOut(metrics["held_out_nll"], tokens),
        general_base=metrics["general_bpb_base"],
        general=metrics["general_bpb"],
    )


def _ask(base: Base, adapter: Adapter) -> tuple[Both, ...]:
    """Let both answer as in `chat`: the likeliest words alone make a small model repeat itself."""
    dialogue = Dialogue(base, AdapterBank(base.model), sampling=SAMPLING, max_new_tokens=140)
    dialogue.wear(adapter)
    answers = []
    with task("Asking three held-out questions", total=len(QUESTIONS)) as bar:
        for question in QUESTIONS:
            dialogue.reset()
            dialogue.turns.append(Turn("user", question))
            answers.append(dialogue.both())
            bar.advance()
    return tuple(answers)


def _inspect(base: Base, adapter: Adapter) -> Inspection:
    with task("Inspecting the first question", total=1) as bar:
        seen = inspect_prompt(base, adapter, QUESTIONS[0], max_new_tokens=80)
        bar.advance()
    return seen
