"""The losses of a pack's targets, with what the guards add to them.

The base is the same model with the gate closed; the model itself runs once, whatever is made of
what it has seen.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from loratelier.train.guards import Guards
from loratelier.train.packing import Pack

if TYPE_CHECKING:
    from loratelier.train.learner import Learner


def guarded_losses(learner: "Learner", pack: Pack, guards: Guards) -> Tensor:
    """Return what is learned at a pack's targets: float32 [N].

    Rows of the corpus: ``-log p + kl * KL(base || model)``. Replayed rows, whose weights sum to 1
    on their own: ``replay_kl * KL(base || model)``; or, without it, ``-log p`` times
    ``replay / (1 - replay)``, so that each of their tokens weighs what a token of a row weighs.
    """
    pull = guards.pull(replayed=pack.replayed)
    # The base first: closing the gate between a forward and its backward would be no good.
    reference = learner.reference(pack) if pull is not None else None
    seen = learner.seen(pack)
    if reference is None or pull is None:
        share = guards.replay if pack.replayed else None
        factor = share / (1 - share) if share is not None else 1.0
        return learner.reader.nll_of(seen, pack.labels) * factor
    apart = learner.kl_of(seen, reference) * pull
    return apart if pack.replayed else learner.reader.nll_of(seen, pack.labels) + apart
