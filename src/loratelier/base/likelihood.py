"""How likely a model finds a text: the one place where log-probabilities become numbers."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from loratelier.kit.progress import task


def target_losses(
    model: Any, ids: Tensor, positions: Tensor, places: Tensor, labels: Tensor
) -> Tensor:
    """Return ``-log p(label)`` at chosen positions of one sequence, in nats: float32 [N].

    Logits are made only at ``places``: over a large vocabulary they cost more than a layer.

    Args:
        model: a transformers causal model, or a PEFT model around one.
        ids: int64 [1, T].
        positions: int64 [1, T]; they start again at 0 where a packed row begins. The cache is off
            because transformers keeps packed rows apart only then.
        places: int64 [N], positions whose output is compared with ``labels`` (int64 [N]).
    """
    logits = model(
        input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=places
    ).logits
    return F.cross_entropy(logits[0].float(), labels, reduction="none")


@dataclass(frozen=True)
class BitsPerByte:
    """A likelihood that may be compared across tokenizers.

    ``bits`` is ``-sum log2 p`` over all tokens but each text's first, which nothing precedes;
    ``size`` is the UTF-8 bytes of the text that those tokens spell.
    """

    bits: float
    size: int

    @property
    def value(self) -> float:
        """Bits per byte."""
        return self.bits / self.size


@torch.no_grad()
def bits_per_byte(
    model: Any, tokenizer: Any, texts: Sequence[str], *, what: str = "Measuring general text"
) -> BitsPerByte:
    """Measure plain texts, each on its own, without a chat template."""
    bits, size = 0.0, 0
    device = next(model.parameters()).device
    with task(what, total=len(texts)) as bar:
        for text in texts:
            encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            ids = torch.tensor([encoded["input_ids"]], device=device)
            if ids.shape[1] > 1:
                steps = torch.arange(ids.shape[1], device=device)
                losses = target_losses(model, ids, steps[None], steps[:-1], ids[0, 1:])
                bits += float(losses.double().sum()) / math.log(2)
                size += len(text[encoded["offset_mapping"][1][0] :].encode("utf-8"))
            bar.advance()
    return BitsPerByte(bits, size)


def general_text() -> list[str]:
    """Return the neutral English prose on which drift is measured.

    It was written for this purpose: ordinary encyclopaedic, narrative and technical paragraphs
    that share no style with any sample corpus.
    """
    source = files("loratelier.base") / "data" / "general_en.jsonl"
    lines = source.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines if line.strip()]
