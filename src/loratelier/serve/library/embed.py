"""Vectors of texts from an embedding model that a person has: any encoder of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from loratelier.kit.errors import InputError

_AT_ONCE, _LONGEST = 16, 512


class Embedder:
    """Mean pooling over the last hidden states, length 1 (Reimers and Gurevych, arXiv:1908.10084).

    Args:
        path: a folder, or what transformers fetches by that name.

    Raises:
        InputError: there is no such model.
    """

    def __init__(self, path: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.path = str(Path(path).resolve()) if Path(path).exists() else path
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(self.path)
            self._model: Any = AutoModel.from_pretrained(self.path).eval()
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path} is no embedding model ({reason})",
                "Give the folder of one, as of multilingual-e5-small, or leave it out",
            ) from error

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text."""
        made: list[list[float]] = []
        for at in range(0, len(texts), _AT_ONCE):
            given = self._tokenizer(
                list(texts[at : at + _AT_ONCE]),
                padding=True,
                truncation=True,
                max_length=_LONGEST,
                return_tensors="pt",
            )
            states = self._model(**given).last_hidden_state.float()
            mask = given["attention_mask"][..., None].float()
            mean = (states * mask).sum(1) / mask.sum(1).clamp_min(1)
            made += (mean / mean.norm(dim=-1, keepdim=True).clamp_min(1e-12)).tolist()
        return made
