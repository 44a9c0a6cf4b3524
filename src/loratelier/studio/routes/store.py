"""What is there: adapters, bases, corpora, folders to take notes from."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from loratelier.adapter import Adapter, store
from loratelier.corpus.folder import MANIFEST
from loratelier.kit.errors import InputError
from loratelier.kit.home import home, room
from loratelier.studio.room import Here
from loratelier.studio.work import corpus_folder

if TYPE_CHECKING:
    from loratelier.corpus import Corpus

router = APIRouter()
_FOLDERS = 300  # that are shown of one
_PAGE = 30  # rows that are sent at once


@router.get("/store")
def everything(here: Here) -> dict[str, Any]:
    """Return the adapters, the bases that are on this machine or loaded, and the corpora."""
    from loratelier.base.shelf import known_bases

    known = known_bases()
    loaded = [spec for spec in here.desk.loaded if spec not in {each.spec for each in known}]
    return {
        "home": str(home()),
        "adapters": [_entry(each) for each in store.entries()],
        "bases": [
            {"spec": each.spec, "source": each.source, "present": each.present, "bytes": each.size}
            for each in known
        ]
        + [{"spec": spec, "source": spec, "present": True, "bytes": 0} for spec in loaded],
        "corpora": corpora(),
    }


def _entry(entry: store.Entry) -> dict[str, Any]:
    if entry.adapter is None:
        return {"name": entry.name, "error": entry.error}
    return {"name": entry.name, "error": None, **_facts(entry.adapter)}


def _facts(adapter: Adapter) -> dict[str, Any]:
    card = adapter.card
    return {
        "base": card.base.spec,
        "fingerprint": card.base.fingerprint,
        "rank": adapter.rank,
        "sites": len(adapter.sites),
        "parameters": adapter.parameters,
        "effect": adapter.has_effect,
        "strength": card.strength,
        "created": card.created,
        "method": card.method,
        "metrics": card.metrics,
        "verdict": card.verdict,
        "corpus": card.corpus.model_dump(mode="json") if card.corpus else None,
        "parents": card.parents,
    }


@router.delete("/adapters/{name}")
def remove(name: str, here: Here) -> dict[str, bool]:
    """Delete an adapter of the store."""
    store.remove(name)
    here.changed("store")
    return {"ok": True}


@router.get("/folders")
def folders(path: str = "") -> dict[str, Any]:
    """Return the folders in a folder and how many files it holds, to choose notes from."""
    from loratelier.corpus.samples import vault

    at = Path(path).expanduser() if path else Path.home()
    try:
        inside = sorted(at.iterdir(), key=lambda each: each.name.lower())
        kinds = [(each, each.is_dir()) for each in inside if not each.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{at} cannot be read ({error.strerror})", "Choose another one") from error
    return {
        "path": str(at.resolve()),
        "parent": str(at.resolve().parent),
        "folders": [each.name for each, is_folder in kinds if is_folder][:_FOLDERS],
        "files": sum(not is_folder for _, is_folder in kinds),
        "names": [each.name for each, is_folder in kinds if not is_folder][:8],
        "sample": str(vault()),
    }


def corpora() -> list[dict[str, Any]]:
    """Return the corpora of the home by name, with their counts, or what is wrong with them."""
    from loratelier.corpus.folder import read_manifest

    found: list[dict[str, Any]] = []
    for folder in sorted(each for each in room("corpora").iterdir() if each.is_dir()):
        if folder.name.startswith("."):
            continue
        try:
            report = read_manifest(folder)
        except InputError as error:
            found.append({"name": folder.name, "error": str(error)})
            continue
        facts = {"format": report.format, "learn": report.learn, "hash": report.hash}
        found.append({"name": folder.name, "error": None, "counts": report.counts(), **facts})
    return found


@router.get("/corpora/{name}")
def corpus(name: str) -> dict[str, Any]:
    """Return a corpus' counts, files and reasons."""
    from loratelier.corpus.folder import read_manifest

    report = read_manifest(corpus_folder(name))
    return {
        "name": name,
        "counts": report.counts(),
        "reasons": report.reasons,
        "format": report.format,
        "learn": report.learn,
        "hash": report.hash,
        "scores": [note.model_dump(mode="json") for note in report.scores],
        "files": [
            {"file": note.file, "state": note.state, "repairs": len(note.repairs)}
            for note in report.files
        ],
    }


@router.get("/corpora/{name}/rows")
def rows(name: str, start: int = 0, split: str = "") -> dict[str, Any]:
    """Return some rows with their lineage and scores."""
    import pyarrow.compute as pc

    table = _loaded(name).rows
    if split:
        table = table.filter(pc.equal(table["split"], split))
    return _page(table, start)


@router.get("/corpora/{name}/dropped")
def dropped(name: str, start: int = 0) -> dict[str, Any]:
    """Return some of what is in no row, with the reason."""
    return _page(_loaded(name).dropped, start)


@router.get("/corpora/{name}/repairs")
def repairs(name: str, start: int = 0) -> dict[str, Any]:
    """Return some of the lines that were mended, before and after."""
    return _page(_loaded(name).repairs, start)


def _loaded(name: str) -> "Corpus":
    folder = corpus_folder(name)
    manifest = folder / MANIFEST
    return _load(folder, manifest.stat().st_mtime_ns if manifest.exists() else 0)


@lru_cache(maxsize=2)
def _load(folder: Path, changed: int) -> "Corpus":
    """Load a corpus once for all its pages; ``changed`` tells a rebuilt one."""
    from loratelier.corpus import Corpus

    return Corpus.load(folder)


def _page(table: Any, start: int) -> dict[str, Any]:
    start = max(0, start)
    return {
        "total": table.num_rows,
        "start": start,
        "rows": table.slice(start, _PAGE).to_pylist(),
    }
