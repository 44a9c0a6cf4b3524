"""The tuned lens: an affine translator per layer, trained on a person's own text.

The logit lens reads a layer's states as if no layer came after it, and early layers speak another
dialect. A tuned lens (Belrose et al., "Eliciting Latent Predictions from Transformers with the
Tuned Lens", arXiv:2303.08112) puts ``h + W h + b`` before the final norm, one pair for each layer,
that minimises KL(the model's output || the lens). It begins at the logit lens (W = b = 0).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.kit.files import write_atomic

_FORM = "loratelier tuned lens 1"


@dataclass(frozen=True, eq=False)
class TunedLens:
    """A translator for each depth but the last, for one base.

    Attributes:
        fingerprint: the base's.
        base: its name.
        weight: float32 [L, d, d]; ``bias`` float32 [L, d].
        plain: mean KL(output || logit lens) in nats at each depth, on text held out; L values.
        tuned: the same of the tuned lens.
        tokens: tokens that it was trained on, with repetition.
        held_out: tokens that ``plain`` and ``tuned`` were measured on.
    """

    fingerprint: str
    base: str
    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    plain: tuple[float, ...]
    tuned: tuple[float, ...]
    tokens: int
    held_out: int

    def translate(self, depth: int, states: Tensor) -> Tensor:
        """Return the states [..., d] of a depth (0 to L - 1) in the language of the last one."""
        weight, bias = self.weight[depth].to(states), self.bias[depth].to(states)
        return states + states @ weight.T + bias

    def require(self, base: Base) -> None:
        """Make sure that the lens was trained for this base.

        Raises:
            InputError: it was not.
        """
        if base.fingerprint != self.fingerprint:
            raise InputError(
                f"The tuned lens was trained for {self.base}, and {base.name} has other weights",
                "Train one for this base, or leave it out",
            )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all."""
        facts = {
            "fingerprint": self.fingerprint,
            "base": self.base,
            "plain": self.plain,
            "tuned": self.tuned,
            "tokens": self.tokens,
            "held_out": self.held_out,
        }
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        metadata = {"form": _FORM, "facts": json.dumps(facts)}
        write_atomic(Path(path).expanduser(), save(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: str | Path, base: Base) -> "TunedLens":
        """Read a lens for a base.

        Raises:
            InputError: no such file, no tuned lens, or one of another base.
        """
        target = Path(path).expanduser()
        if not target.is_file():
            raise InputError(f"There is no tuned lens {target}")
        try:
            with safe_open(target, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("form") != _FORM:
                    raise InputError(f"{target} is no tuned lens of this version")
                facts = json.loads(metadata["facts"])
                weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
            lens = cls(
                fingerprint=str(facts["fingerprint"]),
                base=str(facts["base"]),
                weight=weight,
                bias=bias,
                plain=tuple(float(value) for value in facts["plain"]),
                tuned=tuple(float(value) for value in facts["tuned"]),
                tokens=int(facts["tokens"]),
                held_out=int(facts["held_out"]),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{target} is no tuned lens ({error})") from error
        lens.require(base)
        if weight.ndim != 3 or weight.shape[:2] != bias.shape:
            raise InputError(f"{target} is no tuned lens (its tensors do not belong together)")
        return lens
