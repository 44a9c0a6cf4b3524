"""A trained adapter on its base once more, as it was while it was trained."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from peft import LoraConfig, PeftModel

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.base.packed import rows_apart
from loratelier.train.invocation import invocation_of, waiting
from loratelier.train.learner import Learner
from loratelier.train.model import in_full_precision, layers_for, wrap
from loratelier.train.recipe import Recipe


@contextmanager
def put_on(base: Base, adapter: Adapter, recipe: Recipe) -> Iterator[Learner]:
    """Yield the model wearing a trained adapter whose tensors take gradients, without dropout.

    The base is handed back as it came.

    Args:
        base: the base, its tokenizer knowing the adapter's tokens.
        adapter: what is worn; it is not changed.
        recipe: what it was trained by.
    """
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="loratelier-")))
        adapter.save(folder / "worn")
        config = LoraConfig.from_pretrained(folder / "worn")
        config._register_custom_module(layers_for(base))
        # Packed rows are gated by us; PEFT's own way knows padded rows only.
        config.alora_invocation_tokens = None
        peft = PeftModel.from_pretrained(
            base.model, folder / "worn", is_trainable=True, config=config
        )
        opened.callback(_take_off, base, peft)
        yield opened.enter_context(_learner(base, peft, recipe))


@contextmanager
def put_on_fresh(base: Base, recipe: Recipe) -> Iterator[Learner]:
    """Yield what :func:`put_on` does, with the adapter that the recipe's seed begins with."""
    peft = wrap(base, recipe)
    try:
        with _learner(base, peft, recipe) as learner:
            yield learner
    finally:
        _take_off(base, peft)


@contextmanager
def _learner(base: Base, peft: PeftModel, recipe: Recipe) -> Iterator[Learner]:
    in_full_precision(peft)
    peft.eval()
    invocation = invocation_of(base, recipe.invocation) if recipe.invocation else None
    with rows_apart(base.model) as apart, waiting(base.model, invocation):
        yield Learner(base.model, peft, apart, recipe)


def _take_off(base: Base, peft: PeftModel) -> None:
    peft.unload()
    base.model.requires_grad_(False).eval()
