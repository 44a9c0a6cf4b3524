"""What a build is asked to clean."""

from dataclasses import dataclass
from pathlib import Path

from loratelier.kit.errors import InputError, did_you_mean

MASKS = ("pii", "secrets")


@dataclass(frozen=True)
class Hygiene:
    """Which cleaning changes rows; what is only found is reported in any case.

    Attributes:
        mask: kinds of findings to put placeholders for, of :data:`MASKS`.
        decontaminate: files of evaluation items; rows that share thirteen words with one go.
        near_duplicates: rows at least this similar (0 to 1) to an earlier one go; None compares
            nothing.
        strip_boilerplate: take out lines that stand in many conversations.
        include_code: keep code of Nexus notes of ChatGPT origin, which the plugin damages.
    """

    mask: frozenset[str] = frozenset()
    decontaminate: tuple[Path, ...] = ()
    near_duplicates: float | None = None
    strip_boilerplate: bool = False
    include_code: bool = False

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            InputError: an unknown kind to mask, or a similarity that is no share.
        """
        for kind in sorted(self.mask - set(MASKS)):
            raise InputError(f"mask = '{kind}' is unknown", did_you_mean(kind, MASKS))
        near = self.near_duplicates
        if near is not None and not 0 < near <= 1:
            raise InputError(
                f"near-duplicates = {near} is no similarity", "Give a number above 0, up to 1"
            )
