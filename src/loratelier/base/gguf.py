"""GGUF files: dequantised once to safetensors in the home folder, since loading one is slow."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from loratelier.base.folder import require_whole
from loratelier.base.quiet import quiet, reason
from loratelier.kit.errors import InputError
from loratelier.kit.files import atomic_folder
from loratelier.kit.home import room
from loratelier.kit.progress import remark, task

FACTS = "base.json"


def folder_of(file: Path) -> Path:
    """Return the folder with the file's converted weights, converting them if it is new.

    Raises:
        InputError: no GGUF file, or an architecture that transformers cannot read from GGUF.
    """
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise InputError(f"{file} is no GGUF file", "Its first four bytes would be 'GGUF'")
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    target = room("bases") / f"gguf-{digest[:16]}"
    if not target.exists():
        convert(file, target, {"source": file.name, "sha256": digest})
    return target


def convert(file: Path, target: Path, facts: dict[str, Any]) -> None:
    """Write the dequantised weights, fp32, and the tokenizer of a GGUF file to ``target``.

    A process that converts the same file at the same time does no harm: the first folder stays.

    Raises:
        InputError: transformers cannot read the file.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    remark(f"Converting {file.name} to safetensors, once")
    with (
        task("Converting the base", total=3) as bar,
        quiet(),
        tempfile.TemporaryDirectory(prefix="loratelier-") as alone,
    ):
        # Configs, templates and adapters that lie beside the file would be taken for its own.
        (Path(alone) / file.name).symlink_to(file.resolve())
        source = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
        try:
            # fp32 holds every dequantised value exactly; a 16-bit copy would not.
            model, told = AutoModelForCausalLM.from_pretrained(
                alone, dtype=torch.float32, output_loading_info=True, **source
            )
            bar.advance()
            tokenizer = AutoTokenizer.from_pretrained(alone, **source)
            bar.advance()
        except Exception as error:  # transformers raises many kinds for a file it cannot read
            raise InputError(f"{file} cannot be read as a model ({reason(error)})") from error
        require_whole(told, str(file))
        # A model from GGUF is marked as quantised and refuses to be saved until that is cleared.
        if "quantization_config" in model.config.__dict__:
            del model.config.quantization_config
        model.hf_quantizer = None
        try:
            with atomic_folder(target) as scratch:
                model.save_pretrained(scratch)
                tokenizer.save_pretrained(scratch)
                (scratch / FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")
        except (InputError, OSError):
            if not (target / FACTS).exists():
                raise
        bar.advance()
