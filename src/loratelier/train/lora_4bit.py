"""The LoRA layer over a base's layer that bitsandbytes holds in 4 bits (QLoRA, arXiv:2305.14314).

A module of its own, because bitsandbytes is installed only where it is wanted.
"""

from typing import Any

from peft.tuners.lora.bnb import Linear4bit
from torch import Tensor

from loratelier.train.lora_linear import added, factors, plain_adapter


class LoraLinear4bit(Linear4bit):
    """PEFT's layer, with the per-token gate of :class:`loratelier.train.lora_linear.LoraLinear`."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return ``W x + b + gate * scaling * B A x``, W unpacked for the product alone."""
        name = plain_adapter(self, args, kwargs)
        if name is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        a, b = factors(self, name)
        return added(self.base_layer(x), self.lora_dropout[name](x), a, b, self.scaling[name])
