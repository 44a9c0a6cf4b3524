"""A model in its two steps: the decoder that makes hidden states, and the head that reads them."""

from typing import Any

from torch import Tensor


def hidden_states(model: Any, ids: Tensor) -> Tensor:
    """Return the last hidden states of token rows: [rows, tokens, hidden]; no cache is kept."""
    states: Tensor = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return states


def head_of(model: Any) -> Any:
    """Return the layer that turns hidden states into logits; None where a model has none."""
    return model.get_output_embeddings()
