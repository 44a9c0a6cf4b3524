"""A second model over the same weights: read by one thread while another wears adapters."""

import copy
from dataclasses import replace

from loratelier.base.base import Base


def twin(base: Base) -> Base:
    """Return the base with modules of their own over the very same weights; no memory is added.

    Gates are opened by hooks on modules, so what is worn on the one is not worn by the other. To be
    made before anything is worn: hooks that are there are copied too.
    """
    shared = [*base.model.parameters(), *base.model.buffers()]
    model = copy.deepcopy(base.model, {id(tensor): tensor for tensor in shared})
    return replace(base, model=model)
