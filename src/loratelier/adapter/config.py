"""``adapter_config.json``: what of PEFT's config we carry out, and what we refuse by name."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loratelier.kit.errors import InputError

FILE = "adapter_config.json"

# These decide the update and are carried out.
_UNDERSTOOD = {"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"}
# These decide where and how an adapter was trained; the tensors already say the result.
_SETTLED = {
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern", "lora_dropout", "megatron_core", "loftq_config", "eva_config",
    "runtime_config", "qalora_group_size", "ensure_weight_tying",
}  # fmt: skip
# Ways of starting that subtract the start from the base's weights, so that the tensors alone say
# too little.
_SHIFTS_THE_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")


@dataclass(frozen=True)
class LoraSettings:
    """The part of PEFT's LoRA config that decides the update, and the whole of it as it was read.

    ``raw`` is kept so that saving gives back what was read.
    """

    rank: int
    alpha: float
    rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    raw: Mapping[str, Any]

    def rank_at(self, site: str) -> int:
        """Return the rank that the config gives to a site."""
        return int(_by_pattern(self.rank_pattern, site, self.rank))

    def scaling_at(self, site: str) -> float:
        """Return ``alpha / r`` (rsLoRA, arXiv 2312.03732: ``alpha / sqrt(r)``) of a site."""
        rank = self.rank_at(site)
        alpha = float(_by_pattern(self.alpha_pattern, site, self.alpha))
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def _by_pattern(patterns: Mapping[str, float], site: str, default: float) -> float:
    """Return the value of the first pattern that ends the site's name, as PEFT matches them."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", site):
            return value
    return default


def read_settings(folder: Path) -> LoraSettings:
    """Read and check an adapter's config.

    Raises:
        InputError: no config, no JSON, another method than LoRA, a variant that we do not carry
            out (named), or a rank or alpha that makes no sense.
    """
    path = folder / FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no adapter: it has no {FILE}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} is no config: it holds no keys")
    return settings_from(raw, str(path))


def settings_from(raw: Mapping[str, Any], where: str) -> LoraSettings:
    """Check a config that was read already; ``where`` names it in errors."""
    if raw.get("peft_type") != "LORA":
        raise InputError(f"{where}: the method {raw.get('peft_type')} is not LoRA")
    _refuse_variants(raw, where)
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise InputError(f"{where}: the rank r is {rank!r}", "It is a whole number from 1")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise InputError(f"{where}: lora_alpha is {alpha!r}", "It is a number")
    return LoraSettings(
        rank=rank,
        alpha=float(alpha),
        rslora=bool(raw.get("use_rslora")),
        rank_pattern=_pattern(raw, "rank_pattern", where),
        alpha_pattern=_pattern(raw, "alpha_pattern", where),
        raw=dict(raw),
    )


def _refuse_variants(raw: Mapping[str, Any], where: str) -> None:
    init = raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_SHIFTS_THE_BASE):
        raise InputError(
            f"{where}: init_lora_weights = '{init}' changed the base's own weights",
            "Convert it to plain LoRA with PEFT's path_initial_model_for_weight_conversion",
        )
    if raw.get("bias", "none") != "none":
        raise InputError(f"{where}: bias = '{raw['bias']}' is not carried out yet")
    for key, value in raw.items():
        if key in _UNDERSTOOD | _SETTLED | {"init_lora_weights", "bias"}:
            continue
        if value not in (None, False, "", [], {}):
            raise InputError(f"{where}: the variant {key} = {value!r} is not carried out yet")


def _pattern(raw: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    pattern = raw.get(key) or {}
    numbers = isinstance(pattern, dict) and all(
        isinstance(value, int | float) and value > 0 for value in pattern.values()
    )
    if not numbers:
        raise InputError(f"{where}: {key} is no mapping from names to numbers")
    return dict(pattern)
