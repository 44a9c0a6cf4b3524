"""What synthesis costs: an estimate before, the count after."""

from dataclasses import dataclass

from loratelier.corpus.synthesize.asked import Answer
from loratelier.kit.errors import InputError

# Characters a token, about: today's tokenizers give Latin text 4 to 5 and Cyrillic 2 to 4.
_LATIN, _OTHER = 4.0, 2.5


def tokens_in(text: str) -> int:
    """Return about how many tokens a text has, without knowing the tokenizer."""
    latin = sum(char.isascii() for char in text)
    return round(latin / _LATIN + (len(text) - latin) / _OTHER) + 1


@dataclass(frozen=True)
class Rates:
    """Prices of a million tokens in and out, in any one currency; both or none.

    Raises:
        InputError: one without the other, or a price below 0.
    """

    prompt: float | None = None
    answer: float | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) != (self.answer is None):
            raise InputError("A price has two parts", "Give --price-in and --price-out, or neither")
        if min(self.prompt or 0.0, self.answer or 0.0) < 0:
            raise InputError("A price is below 0", "Give the price of a million tokens")


@dataclass(frozen=True)
class Cost:
    """Answered requests and their tokens; of ``estimated`` of them the tokens are guessed."""

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    estimated: int = 0

    @classmethod
    def of(cls, answer: Answer) -> "Cost":
        """Return what one answer took."""
        return cls(1, answer.prompt_tokens, answer.answer_tokens, int(answer.estimated))

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.answer_tokens + other.answer_tokens,
            self.estimated + other.estimated,
        )

    def price(self, rates: Rates) -> float | None:
        """Return the price, or None without rates."""
        if rates.prompt is None or rates.answer is None:
            return None
        return (self.prompt_tokens * rates.prompt + self.answer_tokens * rates.answer) / 1e6

    def line(self, rates: Rates) -> str:
        """Say it in one line."""
        price = self.price(rates)
        priced = "" if price is None else f", {price:.4f} by the given prices"
        noun = "request" if self.requests == 1 else "requests"
        guessed = f" (tokens of {self.estimated} estimated)" if self.estimated else ""
        return (
            f"{self.requests} {noun}, {self.prompt_tokens} tokens in, "
            f"{self.answer_tokens} out{guessed}{priced}"
        )
