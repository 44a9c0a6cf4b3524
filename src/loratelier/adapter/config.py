"""``adapter_config.json``: what of PEFT's config we carry out, and what we refuse by name."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from loratelier.adapter.inside import inside
from loratelier.kit.errors import InputError

FILE = "adapter_config.json"

# These decide the update and are carried out.
_UNDERSTOOD = {
    "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
    "bias", "lora_bias", "use_dora", "modules_to_save", "trainable_token_indices",
    "target_parameters", "alora_invocation_tokens",
    # How the base stores its weights is asked of the base, which alone can know.
    "fan_in_fan_out",
}  # fmt: skip
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
_LARGEST = 16 * 2**20  # bytes; a config is a few kilobytes
_BIASES = ("none", "all", "lora_only")


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
    bias: str = "none"
    up_bias: bool = False
    dora: bool = False
    modules_to_save: tuple[str, ...] = ()
    target_parameters: tuple[str, ...] = ()
    invocation: tuple[int, ...] = ()
    tokens: tuple[int, ...] | Mapping[str, tuple[int, ...]] = ()

    def rank_at(self, site: str) -> int:
        """Return the rank that the config gives to a site."""
        return int(by_pattern(self.rank_pattern, site, self.rank))

    def tokens_of(self, module: str) -> tuple[int, ...]:
        """Return which tokens have trained rows in an embedding or output layer."""
        if not isinstance(self.tokens, Mapping):
            return self.tokens
        named = [ids for name, ids in self.tokens.items() if f".{module}".endswith(f".{name}")]
        return named[0] if named else ()

    @property
    def ties(self) -> bool:
        """Whether whole modules may come with the layers that share their weights."""
        return bool(self.modules_to_save and self.raw.get("ensure_weight_tying"))

    def saved_module(self, key: str) -> str | None:
        """Return the module of ``modules_to_save`` that a tensor's name belongs to, or None."""
        parts = key.split(".")
        for end in range(1, len(parts)):
            module = ".".join(parts[:end])
            # PEFT compares with the end of the whole name: 'norm' means 'input_layernorm' too.
            if module.endswith(self.modules_to_save or ("\0",)):
                return module
        return None

    def targets_parameter_of(self, module: str) -> bool:
        """Whether a pair at a module belongs to a parameter that ``target_parameters`` names.

        A bare name, such as ``down_proj``, may be a parameter of any module; then it is what
        ``target_modules`` does not name.
        """
        owners = [target.rpartition(".")[0] for target in self.target_parameters]
        if any(owner and f".{module}".endswith(f".{owner}") for owner in owners):
            return True
        return "" in owners and not self._targets_module(module)

    def _targets_module(self, module: str) -> bool:
        targets = self.raw.get("target_modules") or []
        if isinstance(targets, str):
            return targets == "all-linear" or re.fullmatch(targets, module) is not None
        return any(f".{module}".endswith(f".{target}") for target in targets)

    def scaling_at(self, site: str) -> float:
        """Return ``alpha / r`` (rsLoRA, arXiv 2312.03732: ``alpha / sqrt(r)``) of a site."""
        rank = self.rank_at(site)
        alpha = float(by_pattern(self.alpha_pattern, site, self.alpha))
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def by_pattern(patterns: Mapping[str, float], site: str, default: float) -> float:
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
    path = inside(folder, FILE)
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} is {path.stat().st_size:,} bytes, which no config is")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no adapter: it has no {FILE}") from error
    except (OSError, ValueError, RecursionError) as error:
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
    if not _is_rank(rank):
        raise InputError(f"{where}: the rank r is {rank!r}", "It is a whole number from 1")
    if not _is_number(alpha):
        raise InputError(f"{where}: lora_alpha is {alpha!r}", "It is a number")
    bias = raw.get("bias", "none")
    if bias not in _BIASES:
        raise InputError(f"{where}: bias is {bias!r}", f"It is one of {', '.join(_BIASES)}")
    settings = LoraSettings(
        rank=rank,
        alpha=float(alpha),
        rslora=_flag(raw, "use_rslora", where),
        rank_pattern=_pattern(raw, "rank_pattern", where, _is_rank),
        alpha_pattern=_pattern(raw, "alpha_pattern", where, _is_number),
        raw=dict(raw),
        bias=bias,
        up_bias=_flag(raw, "lora_bias", where),
        dora=_flag(raw, "use_dora", where),
        modules_to_save=_names(raw, "modules_to_save", where),
        target_parameters=_names(raw, "target_parameters", where),
        invocation=_token_ids(raw.get("alora_invocation_tokens"), "alora_invocation_tokens", where),
        tokens=_trained_tokens(raw.get("trainable_token_indices"), where),
    )
    if settings.dora and (settings.up_bias or settings.invocation):
        other = "lora_bias" if settings.up_bias else "alora_invocation_tokens"
        raise InputError(f"{where}: use_dora together with {other} is nothing that PEFT defines")
    return settings


def settings_for(
    ranks: Mapping[str, int], alphas: Mapping[str, float], base: str | None
) -> LoraSettings:
    """Return the config under which PEFT gives each site its rank and alpha.

    The commonest values become ``r`` and ``lora_alpha``, since tools that know no patterns read
    those; sites that differ are named in full, longest first, because the first pattern that ends
    a site's name is taken.
    """
    from peft import LoraConfig

    (rank, _), (alpha, _) = (
        Counter(values).most_common(1)[0] for values in (ranks.values(), alphas.values())
    )
    raw = LoraConfig(
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=base,
        r=rank,
        lora_alpha=alpha,
        target_modules=list(ranks),
        rank_pattern=_exceptions(ranks, rank),
        alpha_pattern=_exceptions(alphas, alpha),
    ).to_dict()
    raw["target_modules"] = list(ranks)  # PEFT makes it a set, which has no order and no JSON
    return settings_from(json.loads(json.dumps(raw)), "the adapter that is being made")


def settings_for_modules(modules: Sequence[str], base: str | None, *, tied: bool) -> LoraSettings:
    """Return the config under which PEFT puts whole modules in the place of the base's.

    There is no low-rank pair; PEFT wants a rank and targets all the same, and has a name for
    targets that are none.

    Args:
        modules: their names, in full.
        base: what the adapter was made for.
        tied: the input embedding and the output layer among them share one weight.
    """
    from peft import LoraConfig
    from peft.utils.constants import DUMMY_TARGET_MODULES

    raw = LoraConfig(
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=base,
        r=1,
        lora_alpha=1,
        target_modules=DUMMY_TARGET_MODULES,
        modules_to_save=list(modules),
        ensure_weight_tying=tied,
    ).to_dict()
    return settings_from(json.loads(json.dumps(raw)), "the adapter that is being made")


def _exceptions(values: Mapping[str, float], usual: float) -> dict[str, float]:
    """Return patterns for the sites whose value is not the usual one."""
    odd = {site for site, value in values.items() if value != usual}
    # A site that ends with an odd one's name would be caught by its pattern.
    caught = {site for site in values for other in odd if site.endswith(f".{other}")}
    return {re.escape(site): values[site] for site in sorted(odd | caught, key=len, reverse=True)}


def _refuse_variants(raw: Mapping[str, Any], where: str) -> None:
    init = raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_SHIFTS_THE_BASE):
        raise InputError(
            f"{where}: init_lora_weights = '{init}' changed the base's own weights",
            "Convert it to plain LoRA with PEFT's path_initial_model_for_weight_conversion",
        )
    for key, value in raw.items():
        if key in _UNDERSTOOD | _SETTLED | {"init_lora_weights"}:
            continue
        if value not in (None, False, "", [], {}):
            raise InputError(f"{where}: the variant {key} = {value!r} is not carried out")


def _is_rank(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> TypeGuard[int | float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _flag(raw: Mapping[str, Any], key: str, where: str) -> bool:
    value = raw.get(key) or False
    if not isinstance(value, bool):
        raise InputError(f"{where}: {key} is {value!r}", "It is true or false")
    return value


def _names(raw: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = raw.get(key) or []
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise InputError(f"{where}: {key} is {value!r}", "It is a list of names")
    return tuple(value)


def _token_ids(value: object, key: str, where: str) -> tuple[int, ...]:
    if value is None:
        return ()
    whole = isinstance(value, list) and all(
        isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in value
    )
    if not isinstance(value, list) or not whole:
        raise InputError(f"{where}: {key} is {value!r}", "It is a list of token numbers")
    return tuple(value)


def _trained_tokens(value: object, where: str) -> tuple[int, ...] | Mapping[str, tuple[int, ...]]:
    key = "trainable_token_indices"
    if not isinstance(value, dict):
        return _distinct(_token_ids(value, key, where), key, where)
    return {
        name: _distinct(_token_ids(ids, f"{key}.{name}", where), f"{key}.{name}", where)
        for name, ids in value.items()
    }


def _distinct(ids: tuple[int, ...], key: str, where: str) -> tuple[int, ...]:
    if len(set(ids)) != len(ids):
        raise InputError(f"{where}: {key} names a token twice")
    return ids


def _pattern(
    raw: Mapping[str, Any], key: str, where: str, is_allowed: Callable[[object], bool]
) -> dict[str, Any]:
    pattern = raw.get(key) or {}
    if not isinstance(pattern, dict):
        raise InputError(f"{where}: {key} is no mapping from names to numbers")
    for name, value in pattern.items():
        if not is_allowed(value):
            raise InputError(f"{where}: {key} gives '{name}' the value {value!r}")
        try:
            re.compile(name)
        except re.error as error:
            raise InputError(
                f"{where}: {key} names '{name}', which is no regular expression"
            ) from error
    return pattern
