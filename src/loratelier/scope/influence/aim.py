"""The move that a person points at, as the trained model reads it."""

import torch
from torch import Tensor

from loratelier.scope.spellings import padded
from loratelier.scope.targets import Target
from loratelier.train.learner import Learner


def value_of(target: Target, learner: Learner) -> Tensor:
    """Return a target's value: a number with a gradient over what the learner trains.

    Args:
        target: what is looked at.
        learner: the model; rows are read as it keeps them apart.
    """

    rows = torch.tensor(padded(list(target.text.rows)))
    count, width = rows.shape
    first = width - target.text.kept
    places = torch.arange(count * width).view(count, width)[:, first:].flatten()
    ids = rows if learner.reader.apart == "padding" else rows.view(1, -1)
    device = next(learner.parameters()).device
    logits = learner.reader.logits(ids.to(device), (width,) * count, places.to(device))
    return target.score(logits.view(1, count, target.text.kept, -1))[0]
