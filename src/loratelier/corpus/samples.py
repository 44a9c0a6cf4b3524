"""The sample vault that travels with the package."""

from pathlib import Path

from loratelier.kit.errors import InputError


def vault() -> Path:
    """Return the sample vault: beside the sources in a checkout, inside the package otherwise.

    Raises:
        InputError: it is in neither place.
    """
    package = Path(__file__).parents[1]
    for place in (package.parents[1] / "examples" / "vault", package / "examples" / "vault"):
        if place.is_dir():
            return place
    raise InputError("The sample vault is missing", "Reinstall loratelier, or clone it anew")
