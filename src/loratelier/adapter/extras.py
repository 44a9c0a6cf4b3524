"""What an adapter may hold beside the low-rank pairs of linear layers and embeddings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Extras:
    """The rest of what PEFT writes, by the module that it changes.

    Attributes:
        embeddings: which sites of the pairs are embeddings; their A is [r, vocabulary].
        up_biases: ``lora_bias``: site -> [d_out], added to ``B A x`` before the scaling.
        magnitudes: DoRA (arXiv 2402.09353): site -> [d_out], the length of each row of the weight.
        biases: module -> its trained bias, which stands in place of the base's.
        tokens: embedding or output layer -> trained rows [n, d] of the tokens in the config.
        modules: ``modules_to_save``: module -> its whole state.
        experts: ``target_parameters``: module, with PEFT's ``.base_layer`` for each further one ->
            (A [experts * r, d_in], B [d_out, r * experts]).
        copies: layer -> digests, by dtype, of the base's weight that PEFT saved beside a pair.
    """

    embeddings: frozenset[str] = frozenset()
    up_biases: Mapping[str, Tensor] = field(default_factory=dict)
    magnitudes: Mapping[str, Tensor] = field(default_factory=dict)
    biases: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    modules: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    experts: Mapping[str, Pair] = field(default_factory=dict)
    copies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor with a name of its own, in a fixed order."""
        for kind in ("up_biases", "magnitudes", "biases", "tokens"):
            table: Mapping[str, Tensor] = getattr(self, kind)
            for site in sorted(table):
                yield f"{kind} {site}", table[site]
        for module in sorted(self.modules):
            for key in sorted(self.modules[module]):
                yield f"modules {module} {key}", self.modules[module][key]
        for site in sorted(self.experts):
            for side, half in zip("AB", self.experts[site], strict=True):
                yield f"experts {site} {side}", half

    @property
    def sites(self) -> frozenset[str]:
        """The modules that are changed other than through a low-rank pair."""
        return frozenset((*self.biases, *self.tokens, *self.modules, *self.experts))
