"""The files of an adapter's folder: read from inside it only."""

from pathlib import Path

from loratelier.kit.errors import InputError


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder, whether it is there or not.

    Raises:
        InputError: it is a link that leads out of the folder, so that an adapter from elsewhere
            could have any file of this machine read and copied.
    """
    path = folder / name
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{path} is a link that leads out of the folder",
            "Copy the folder with its files (cp -rL), and take the copy",
        )
    return path
