"""A fingerprint of a model's weights: the same weights, however stored in files, the same print.

It covers the name, dtype, shape and bytes of every stored tensor, in the order of the names. A head
that repeats the embeddings is one tensor with them, whether a file holds it once or twice. What the
config says about tying does not matter: transformers unties a head whose weights are others.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from loratelier.kit.errors import InputError
from loratelier.kit.files import write_atomic
from loratelier.kit.home import home
from loratelier.kit.progress import task

_CHUNK = 1 << 24
_HEAD = "lm_head.weight"
# A stored tensor: name, dtype, shape, file, its first byte, the byte after its last.
Entry = tuple[str, str, list[int], Path, int, int]
# The names that safetensors gives to torch's dtypes.
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def of_files(files: Sequence[Path]) -> str:
    """Return ``sha256:...`` over the tensors of safetensors files, in bounded memory.

    The result is remembered in the home folder by the files' paths, sizes and times.

    Raises:
        InputError: a file is no safetensors file.
    """
    key = json.dumps([[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    remembered = _read_memory()
    if key in remembered:
        return remembered[key]
    tensors = {entry[0]: entry for file in files for entry in _entries(file)}
    size = sum(end - begin for *_, begin, end in tensors.values())
    digest = hashlib.sha256()
    with task("Fingerprint of the weights, MB", total=size // 1_000_000) as bar:
        for name in sorted(tensors):
            if name.endswith(_HEAD) and _is_repeated(tensors[name], tensors.values()):
                continue
            _, dtype, shape, *_ = tensors[name]
            digest.update(_label(name, dtype, shape))
            for chunk in _chunks(tensors[name]):
                digest.update(chunk)
                bar.advance(len(chunk) / 1_000_000)
    value = f"sha256:{digest.hexdigest()}"
    write_atomic(_memory(), json.dumps(_read_memory() | {key: value}, indent=1))
    return value


def of_state_dict(model: Any) -> str:
    """Return the fingerprint that the model's folder would have after ``save_pretrained``."""
    state = model.state_dict()
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.endswith(_HEAD) and any(
            torch.equal(state[name], other)
            for place, other in state.items()
            if place != name and other.dtype == state[name].dtype
        ):
            continue
        tensor = state[name].detach().cpu().contiguous()
        digest.update(_label(name, _DTYPES[tensor.dtype], list(tensor.shape)))
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def _is_repeated(entry: Entry, entries: Iterable[Entry]) -> bool:
    """Whether another tensor has the same dtype, shape and bytes."""
    name, dtype, shape, *_ = entry
    twins = (other for other in entries if other[0] != name and other[1:3] == (dtype, shape))
    return any(
        all(ours == theirs for ours, theirs in zip(_chunks(entry), _chunks(other), strict=True))
        for other in twins
    )


def _label(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    return json.dumps([name, dtype, list(shape)]).encode()


def _entries(file: Path) -> Iterator[Entry]:
    """Read a safetensors header."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
        entries = [_entry(name, header[name], file, 8 + length) for name in header]
    except (OSError, ValueError, struct.error, RecursionError) as error:
        raise InputError(f"{file} is no safetensors file ({error})") from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file} is no safetensors file (its header is of another form)"
        ) from error
    yield from (entry for entry in entries if entry[0] != "__metadata__")


def _entry(name: str, facts: Any, file: Path, offset: int) -> Entry:
    if name == "__metadata__":
        return name, "", [], file, 0, 0
    begin, end = facts["data_offsets"]
    return name, facts["dtype"], facts["shape"], file, offset + begin, offset + end


def _chunks(entry: Entry) -> Iterator[bytes]:
    *_, file, begin, end = entry
    with file.open("rb") as stream:
        stream.seek(begin)
        left = end - begin
        while left:
            chunk = stream.read(min(_CHUNK, left))
            if not chunk:
                raise InputError(f"{file} ends before its last tensor", "Fetch it again")
            left -= len(chunk)
            yield chunk


def _memory() -> Path:
    return home() / "fingerprints.json"


def _read_memory() -> dict[str, str]:
    try:
        remembered = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # A memory that is missing or damaged costs one more reading of the weights, no more.
        return {}
    return remembered if isinstance(remembered, dict) else {}
