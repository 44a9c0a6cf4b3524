"""The input side of an edit: directions that the edited places have and general text has not.

A change B A of a layer acts on an input x through A x. For the inputs K [d_in, r] at the edited
places, A is made such that A K = 1 while A x is small over general text and at the places to be
left alone: with M = C + c sum k_n k_n^T,

    A = (K^T M^-1 K)^-1 K^T M^-1,

the minimiser of trace(A M A^T) under A K = 1. C is the covariance of the layer's inputs over
general text, k_n are inputs at places to be left alone. For r = 1 and c = 0 it is the key of ROME
(arXiv 2202.05262), of several keys at once as in MEMIT (arXiv 2210.07229).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loratelier.base import Base
from loratelier.base.above import read_through
from loratelier.base.likelihood import general_text
from loratelier.edit.ground import COVERED
from loratelier.kit.files import atomic_file
from loratelier.kit.home import room
from loratelier.kit.progress import task

_RIDGE = 0.01  # of the mean diagonal: general text is short and leaves directions unseen
_LENGTH = 256


def covariances(base: Base, look: str, sites: Sequence[str]) -> dict[str, Tensor]:
    """Return C for each site, float32 [d_in, d_in], from the home folder where it was made before.

    The model is read in the look that is active; ``look`` says which (an adapter's digest).
    """
    files = {site: _file(base, look, site) for site in sites}
    missing = [site for site, path in files.items() if not path.exists()]
    if missing:
        for site, matrix in _measure(base, missing).items():
            with atomic_file(files[site]) as scratch:
                save_file({"covariance": matrix}, scratch)
    return {site: load_file(path)["covariance"].to(base.device) for site, path in files.items()}


def _file(base: Base, look: str, site: str) -> Path:
    label = "\n".join((base.fingerprint, str(base.dtype), str(base.quantization), look, site))
    return room("covariances") / f"{hashlib.sha256(label.encode()).hexdigest()[:32]}.safetensors"


def _measure(base: Base, sites: Sequence[str]) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    count = 0
    texts = general_text()[COVERED.start : COVERED.stop]
    with task("Reading general text, once for this base", total=len(texts)) as bar:
        for text in texts:
            ids = torch.tensor([base.tokenizer(text)["input_ids"][:_LENGTH]], device=base.device)
            passed = read_through(base.model, ids, sites, [(0, 0)])
            for site in sites:
                x = passed.inputs[site][0].float()
                sums[site] = sums.get(site, torch.zeros(())).to(x.device) + x.T @ x
            count += ids.shape[1]
            bar.advance()
    return {site: (total / count).cpu().contiguous() for site, total in sums.items()}


def input_side(covariance: Tensor, keys: Tensor, others: Tensor, weight: float) -> Tensor:
    """Return A, float32 [r, d_in], by the formula above.

    Args:
        covariance: C, [d_in, d_in].
        keys: the inputs at the edited places, [r, d_in].
        others: the inputs at places to be left alone, [n, d_in].
        weight: c.
    """
    matrix = covariance.double()
    matrix = matrix + weight * others.double().T @ others.double()
    matrix.diagonal().add_(_RIDGE * covariance.double().diagonal().mean())
    wanted = keys.double()
    solved = torch.cholesky_solve(wanted.T, torch.linalg.cholesky(matrix))  # M^-1 K
    gram = wanted @ solved
    # Two places with one input have one direction between them.
    gram.diagonal().add_(1e-6 * gram.diagonal().mean())
    down: Tensor = torch.linalg.solve(gram, solved.T).float()
    return down
