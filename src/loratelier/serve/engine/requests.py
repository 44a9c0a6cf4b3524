"""From what is asked to a row of the batch; what cannot be answered is refused here."""

from math import isfinite
from typing import Any

from loratelier.base import Base
from loratelier.base.vocabulary import vocabulary_size
from loratelier.kit.errors import InputError
from loratelier.scope.prompt import end_ids
from loratelier.serve.engine.choose import Chooser, Grammar
from loratelier.serve.engine.held import Version
from loratelier.serve.engine.row import Row, Wear, begins_at
from loratelier.serve.engine.ticket import Ticket
from loratelier.serve.engine.writing import Writing


def row_of(
    base: Base, ticket: Ticket, versions: list[Version], knowing: Base, tables: dict[int, Any]
) -> Row:
    """Return the row of a request.

    Args:
        base: that answers.
        ticket: of the request.
        versions: of its adapters, in the order of its mix.
        knowing: the base with the tokens that they brought.
        tables: what was prepared of tokenizers for schemas.

    Raises:
        InputError: nothing asked, more than the base can read, a token or gate or schema that is
            none.
    """
    asked, sampling = ticket.asked, ticket.asked.sampling
    require_readable(base, len(asked.ids), 1)
    size = vocabulary_size(base)
    if not all(0 <= each < size for each in asked.ids):
        raise InputError(f"A token is none of the base's {size}")
    for name, gate in (asked.mix or {}).items():
        if not isfinite(gate):
            raise InputError(f"The gate of '{name}' is {gate}", "A gate is a finite number")
    if sampling.max_tokens < 1:
        raise InputError(f"max_tokens is {sampling.max_tokens}", "Let one token or more be written")
    grammar = None
    if sampling.schema is not None:
        grammar = Grammar(knowing, sampling.schema, size, tables)
    gates = (asked.mix or {}).values()
    worn = tuple(
        Wear(version, float(gate), begins_at(asked.ids, version.invocation, asked.from_token))
        for version, gate in zip(versions, gates, strict=True)
    )
    room = sampling.max_tokens if base.context is None else base.context - len(asked.ids)
    return Row(
        ticket=ticket,
        ids=list(asked.ids),
        worn=worn,
        chooser=Chooser(sampling, asked.ids, grammar),
        writing=Writing(knowing, sampling.stop),
        ends=frozenset() if sampling.ignore_eos else end_ids(base),
        most=min(sampling.max_tokens, room),
    )


def require_readable(base: Base, tokens: int, more: int = 0) -> None:
    """Refuse what the base cannot read.

    Args:
        base: that reads.
        tokens: how many are given.
        more: how many are to be written at least.

    Raises:
        InputError: no token, or too many.
    """
    if not tokens:
        raise InputError("Nothing is asked", "Give at least one token")
    if base.context is not None and tokens + more > base.context:
        raise InputError(
            f"The request has {tokens} tokens, and {base.name} reads {base.context}, its answer "
            "included",
            "Ask less",
        )
