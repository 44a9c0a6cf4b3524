"""How strongly an adapter may be worn."""

import math

from loratelier.kit.errors import InputError

LOWEST, HIGHEST = -2.0, 4.0


def check_strength(strength: float) -> float:
    """Return the strength if it is one: 1 as trained, 0 off, below 0 away from what was learned.

    Raises:
        InputError: it is no finite number, or so far out that only noise would come.
    """
    if not math.isfinite(strength) or not LOWEST <= strength <= HIGHEST:
        raise InputError(
            f"The strength is {strength:g}",
            f"It is a number from {LOWEST:g} to {HIGHEST:g}; 1 is as trained, 0 is off",
        )
    return strength
