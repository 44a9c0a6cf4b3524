"""A fingerprint of a model's weights: the same weights, however stored in files, the same print.

It covers the name, dtype, shape and bytes of every stored tensor, in the order of the names. A head
that is tied to the embeddings is one tensor, whether a file holds it once or twice.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from loratelier.kit.errors import InputError
from loratelier.kit.files import write_atomic
from loratelier.kit.home import home
from loratelier.kit.progress import task

_CHUNK = 1 << 24
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
    size = sum(end - begin for _, _, _, _, begin, end in tensors.values())
    digest = hashlib.sha256()
    with task("Fingerprint of the weights, MB", total=size // 1_000_000) as bar:
        for name in _distinct(tensors, files):
            _, dtype, shape, file, begin, end = tensors[name]
            digest.update(_label(name, dtype, shape))
            for chunk in _chunks(file, begin, end):
                digest.update(chunk)
                bar.advance(len(chunk) / 1_000_000)
    value = f"sha256:{digest.hexdigest()}"
    write_atomic(_memory(), json.dumps(_read_memory() | {key: value}, indent=1))
    return value


def of_state_dict(model: Any) -> str:
    """Return the fingerprint that the model's folder would have after ``save_pretrained``."""
    state = model.state_dict()
    tied = _tied_head(model)
    if tied and tied in state:
        del state[tied]
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(_label(name, _DTYPES[tensor.dtype], list(tensor.shape)))
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def _tied_head(model: Any) -> str | None:
    if not model.config.get_text_config().tie_word_embeddings:
        return None
    head = model.get_output_embeddings()
    return next((f"{n}.weight" for n, module in model.named_modules() if module is head), None)


def _distinct(tensors: dict[str, Any], files: Sequence[Path]) -> list[str]:
    """Return the sorted names without a head that the config calls tied."""
    names = sorted(tensors)
    config = files[0].parent / "config.json"
    if "lm_head.weight" not in tensors or len(names) == 1 or not config.exists():
        return names
    told = json.loads(config.read_text(encoding="utf-8"))
    tied = told.get("text_config", told).get("tie_word_embeddings", False)
    return [name for name in names if not (tied and name == "lm_head.weight")]


def _label(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    return json.dumps([name, dtype, list(shape)]).encode()


def _entries(file: Path) -> Iterator[tuple[str, str, list[int], Path, int, int]]:
    """Read a safetensors header: (name, dtype, shape, file, first byte, byte after the last)."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise InputError(f"{file} is no safetensors file ({error})") from error
    for name, facts in header.items():
        if name != "__metadata__":
            begin, end = facts["data_offsets"]
            offset = 8 + length
            yield name, facts["dtype"], facts["shape"], file, offset + begin, offset + end


def _chunks(file: Path, begin: int, end: int) -> Iterator[bytes]:
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
