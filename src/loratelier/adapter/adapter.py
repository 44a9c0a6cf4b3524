"""The adapter: pairs of small matrices, one pair a site, and where they come from."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from loratelier.adapter import config
from loratelier.adapter.card import FILE as CARD_FILE
from loratelier.adapter.card import Card, read_card
from loratelier.adapter.extras import Extras, Pair
from loratelier.adapter.fit import ExpertFit, require_fit
from loratelier.adapter.inside import inside
from loratelier.adapter.model_card import FILE as README
from loratelier.adapter.model_card import render
from loratelier.adapter.tensors import FILE as TENSORS_FILE
from loratelier.adapter.tensors import Contents, flat, in_order, read_contents, read_outline, sort
from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.kit.files import atomic_folder

# What belongs in an adapter's folder; whatever else ships along is left alone and named.
BEHAVIOUR_FILE = "behaviour.yaml"
_OURS = frozenset({config.FILE, TENSORS_FILE, CARD_FILE, README, BEHAVIOUR_FILE})


class Deltas(Mapping[str, Tensor]):
    """``site -> s B A``: dense float32 [d_out, d_in], made when asked for and not kept.

    For the low-rank pairs of linear layers and embeddings (whose d_in is the vocabulary).
    """

    def __init__(self, adapter: "Adapter") -> None:
        self._adapter = adapter

    def __getitem__(self, site: str) -> Tensor:
        down, up = self._adapter.tensors[site]
        return self._adapter.scaling(site) * (up.float() @ down.float())

    def __iter__(self) -> Iterator[str]:
        return iter(self._adapter.tensors)

    def __len__(self) -> int:
        return len(self._adapter.tensors)


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA adapter (arXiv 2106.09685); equal and hashed by its content.

    ``tensors`` maps a site, such as ``model.layers.11.mlp.down_proj``, to its pair
    (A [r, d_in], B [d_out, r]); the update of the site is ``scaling(site) * B @ A``. ``extras``
    holds whatever PEFT writes beside such pairs. ``ignored`` names what lay in its folder and was
    not read: code, tokenizers, templates. ``behaviour`` is the text of its behaviour tests, which
    travel with it.
    """

    name: str
    settings: config.LoraSettings
    tensors: Mapping[str, Pair] = field(repr=False)
    card: Card = field(repr=False)
    extras: Extras = field(default=Extras(), repr=False)
    ignored: tuple[str, ...] = ()
    behaviour: str | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> "Adapter":
        """Read an adapter's folder; other files in it (tokenizers, code) are ignored and named.

        Raises:
            InputError: no such folder, or an adapter that is damaged, unsafe, or of a variant that
                is not carried out; one line that names the file and the tensor.
        """
        return cls._read(path, read_contents)

    @classmethod
    def outline(cls, path: str | Path) -> "Adapter":
        """Read an adapter's form without its values: tensors have shapes and hold nothing.

        Enough for :meth:`require_fit`, so that a file that does not fit is never read whole.

        Raises:
            InputError: as :meth:`load`, but for what only the values show.
        """
        return cls._read(path, read_outline)

    @classmethod
    def _read(
        cls, path: str | Path, read: Callable[[Path, config.LoraSettings], Contents]
    ) -> "Adapter":
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise InputError(f"There is no adapter folder {folder}")
        settings = config.read_settings(folder)
        contents, card = read(folder, settings), read_card(folder)
        extras = replace(contents.extras, copies={**card.base.weights, **contents.extras.copies})
        ignored = tuple(sorted(p.name for p in folder.iterdir() if p.name not in _OURS))
        return cls(
            folder.resolve().name,
            settings,
            contents.pairs,
            card,
            extras,
            ignored,
            _behaviour(folder),
        )

    @classmethod
    def from_peft(
        cls, model: Any, card: Card, name: str, *, weights: Mapping[str, Tensor] | None = None
    ) -> "Adapter":
        """Take the adapter of a live PEFT model, exactly as PEFT would save it.

        Args:
            model: PEFT's model.
            card: where it comes from.
            name: what it is called.
            weights: the model's trained weights by name, where its own are shared out over
                processes.
        """
        with tempfile.TemporaryDirectory(prefix="loratelier-") as scratch:
            # Whether embeddings were resized is asked of the hub unless it is told no.
            model.save_pretrained(
                scratch,
                save_embedding_layers=False,
                state_dict=dict(weights) if weights is not None else None,
            )
            saved = cls.load(scratch)
        raw = {**saved.settings.raw, "base_model_name_or_path": card.base.spec}
        return cls(name, config.settings_from(raw, name), saved.tensors, card, saved.extras)

    @classmethod
    def from_tensors(
        cls,
        pairs: Mapping[str, Pair],
        card: Card,
        name: str,
        *,
        alphas: float | Mapping[str, float] | None = None,
    ) -> "Adapter":
        """Make an adapter of pairs; ranks may differ by site, and PEFT reads it with equal deltas.

        Args:
            pairs: ``site -> (A [r, d_in], B [d_out, r])``.
            card: where it comes from; ``base.spec`` becomes PEFT's ``base_model_name_or_path``.
            name: what it is called.
            alphas: alpha for all sites or by site. Without it alpha is the rank everywhere, so
                that the update of a site is ``B @ A`` as it stands.

        Raises:
            InputError: no pairs, a site without its alpha, or tensors that are misshapen, not
                finite, or of a type that is not a float.
        """
        ranks = {site: down.shape[0] for site, (down, _) in pairs.items()}
        if not ranks:
            raise InputError(f"The adapter '{name}' would have no sites")
        if not isinstance(alphas, Mapping):
            alphas = {site: rank if alphas is None else alphas for site, rank in ranks.items()}
        if alphas.keys() != ranks.keys():
            odd = sorted(alphas.keys() ^ ranks.keys())[0]
            raise InputError(f"The adapter '{name}': {odd} has a pair or an alpha, not both")
        settings = config.settings_for(ranks, alphas, card.base.spec)
        return cls(name, settings, sort(flat(pairs, Extras()), settings, name).pairs, card)

    @classmethod
    def from_modules(
        cls, modules: Mapping[str, Mapping[str, Tensor]], card: Card, name: str, *, tied: bool
    ) -> "Adapter":
        """Make an adapter of whole modules that stand in place of the base's, as PEFT reads them.

        Args:
            modules: module -> its state; tensors that share no memory.
            card: where it comes from.
            name: what it is called.
            tied: the base's output layer has the weight of its input embedding.

        Raises:
            InputError: no modules, or a tensor that is not finite or no float.
        """
        settings = config.settings_for_modules(list(modules), card.base.spec, tied=tied)
        extras = Extras(modules=modules)
        return cls(name, settings, {}, card, sort(flat({}, extras), settings, name).extras)

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Write a PEFT folder with the card, whole or not at all.

        Raises:
            InputError: the folder exists and ``replace`` is false, or it holds something else
                than an adapter, or it cannot be written.
        """
        target = Path(path).expanduser()
        if replace:
            _require_replaceable(target)
        weights = {site: dict(digests) for site, digests in self.extras.copies.items()}
        base = self.card.base.model_copy(update={"weights": weights})
        card = self.card.model_copy(update={"effect": self.has_effect, "base": base})
        with atomic_folder(target, replace=replace) as scratch:
            text = json.dumps(self.settings.raw, indent=2, sort_keys=True)
            (scratch / config.FILE).write_text(text, encoding="utf-8")
            save_file(
                flat(self.tensors, self.extras), scratch / TENSORS_FILE, metadata={"format": "pt"}
            )
            (scratch / CARD_FILE).write_text(card.model_dump_json(indent=2), encoding="utf-8")
            (scratch / README).write_text(self.describe(), encoding="utf-8")
            if self.behaviour is not None:
                (scratch / BEHAVIOUR_FILE).write_text(self.behaviour, encoding="utf-8")

    def describe(self) -> str:
        """Return the model card, Markdown with the hub's front matter."""
        return render(
            name=self.name,
            card=self.card,
            rank=self.rank,
            alpha=self.settings.alpha,
            sites=len(self.tensors),
            modules=len(self.extras.modules),
            has_effect=self.has_effect,
        )

    @property
    def sites(self) -> tuple[str, ...]:
        """What the adapter changes, by layer: gates may be set for each of them."""
        if not self.extras.sites:
            return tuple(self.tensors)
        return tuple(in_order(dict.fromkeys((*self.tensors, *self.extras.sites))))

    @property
    def deltas(self) -> Deltas:
        """The dense updates, ``site -> s B A``, each made when asked for."""
        return Deltas(self)

    @property
    def rank(self) -> int:
        """The largest rank of any site."""
        return max((down.shape[0] for down, _ in self.tensors.values()), default=self.settings.rank)

    @property
    def parameters(self) -> int:
        """How many numbers the adapter holds."""
        return sum(tensor.numel() for tensor in self._all())

    @property
    def bytes(self) -> int:
        """How many bytes the tensors take, in the dtype that they are stored in."""
        return sum(tensor.nbytes for tensor in self._all())

    def _all(self) -> Iterator[Tensor]:
        for pair in self.tensors.values():
            yield from pair
        for _, tensor in self.extras.named():
            yield tensor

    def scaling(self, site: str) -> float:
        """Return what ``B @ A`` is multiplied with at a site."""
        return self.settings.scaling_at(site)

    @cached_property
    def has_effect(self) -> bool:
        """Whether any site's update is other than zero (a fresh adapter has B = 0).

        What stands in place of the base's weights (magnitudes, biases, modules, tokens) counts as
        an effect, because without the base it cannot be told whether it differs.
        """
        extras = self.extras
        if extras.magnitudes or extras.biases or extras.modules or extras.tokens:
            return True
        if any(bool(bias.any()) for bias in extras.up_biases.values()):
            return True
        return any(
            self.scaling(site) != 0
            and bool(up.any())
            and bool(down.any())
            and bool(torch.any(up.float() @ down.float() != 0))
            for site, (down, up) in {**self.tensors, **extras.experts}.items()
        )

    @cached_property
    def digest(self) -> str:
        """``sha256:...`` over everything that decides the update: tensors and scalings."""
        digest = hashlib.sha256()
        for site, (down, up) in self.tensors.items():
            label = [site, self.scaling(site), str(down.dtype), list(down.shape), list(up.shape)]
            digest.update(json.dumps(label).encode())
            for half in (down, up):
                raw = half.detach().cpu().contiguous().view(-1).view(torch.uint8)
                digest.update(raw.numpy().tobytes())
        self._digest_extras(digest)
        return f"sha256:{digest.hexdigest()}"

    def _digest_extras(self, digest: "hashlib._Hash") -> None:
        """Add what a plain adapter does not have, so that plain ones keep their digests."""
        settings = self.settings
        for label, tensor in self.extras.named():
            digest.update(json.dumps([label, str(tensor.dtype), list(tensor.shape)]).encode())
            raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(raw.numpy().tobytes())
        if self.extras.experts:
            form = [settings.rank, settings.alpha, settings.rslora, settings.target_parameters]
            patterns = [sorted(p.items()) for p in (settings.rank_pattern, settings.alpha_pattern)]
            digest.update(json.dumps([*form, *patterns]).encode())
        if self.extras.tokens:
            ids = {module: settings.tokens_of(module) for module in sorted(self.extras.tokens)}
            digest.update(json.dumps(ids).encode())
        if settings.invocation:
            digest.update(json.dumps(["invocation", settings.invocation]).encode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adapter) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def fits(self, base: Base) -> bool:
        """Whether :meth:`require_fit` would let the adapter be worn by this base."""
        try:
            self.require_fit(base)
        except InputError:
            return False
        return True

    def require_fit(self, base: Base) -> None:
        """Make sure that the adapter was made for this base.

        Raises:
            InputError: the card names other weights, or a site is missing or misshapen.
        """
        self.require_sites(base.model)

    def require_sites(self, model: nn.Module) -> tuple[ExpertFit, ...]:
        """Make sure that the adapter may be worn by a model, which may come from a Base or not.

        Returns:
            Where its pairs for parameters of experts belong in this model.

        Raises:
            InputError: the model's fingerprint is known and is not the card's, or something is
                missing, left over or misshapen; see :func:`loratelier.adapter.fit.require_fit`.
        """
        return require_fit(self, model)


def _behaviour(folder: Path) -> str | None:
    """Return the text of an adapter's behaviour tests, if it brings any."""
    path = inside(folder, BEHAVIOUR_FILE)
    if not path.exists():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a text file") from error


def _require_replaceable(folder: Path) -> None:
    """Refuse to replace, which deletes, a folder of something else than an adapter."""
    if not folder.exists():
        return
    held = {entry.name for entry in folder.iterdir()} if folder.is_dir() else {folder.name}
    if held and config.FILE not in held:
        raise InputError(
            f"{folder} is no adapter and would be deleted with what it holds",
            "Name a folder that is not there yet",
        )
