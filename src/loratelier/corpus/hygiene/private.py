"""Personal data and secrets: patterns with their check digits.

Luhn: ISO/IEC 7812-1. IBAN: ISO 13616, modulo 97. INN and SNILS: the check digits of the Russian tax
and pension numbers. A number without a check digit counts only beside the word that names it.
"""

import ipaddress
import math
import re
from collections import Counter

from loratelier.corpus.hygiene.found import PII, SECRETS, Finding, Pattern, apart


def find_private(text: str) -> list[Finding]:
    """Return personal data and secrets in a text, not overlapping, in order."""
    if not _WORTH.search(text):
        return []
    return apart(finding for pattern in PATTERNS for finding in pattern.search(text))


# No finding is without a digit, an at sign, or one of these words.
_WORTH = re.compile(r"[\d@]|PRIVATE KEY|://|(?i:t\.me/|vk\.com/|passw|парол|secret|token)")


def _digits(value: str) -> list[int]:
    return [int(char) for char in value if char.isdigit()]


def luhn(value: str) -> bool:
    """Say whether the last digit checks a card number of 13 to 19 digits."""
    digits = _digits(value)
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    total = sum(digits[-1::-2]) + sum(doubled)
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and total % 10 == 0


_INN_10 = (2, 4, 10, 3, 5, 9, 4, 6, 8)
_INN_12 = (7, 2, 4, 10, 3, 5, 9, 4, 6, 8), (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)


def _weighed(digits: list[int], weights: tuple[int, ...]) -> int:
    return sum(a * b for a, b in zip(digits, weights, strict=False)) % 11 % 10


def inn(value: str) -> bool:
    """Say whether a tax number of 10 or 12 digits checks."""
    digits = _digits(value)
    if len(digits) == 10:
        return _weighed(digits, _INN_10) == digits[9]
    return len(digits) == 12 and all(
        _weighed(digits, weights) == digits[place]
        for weights, place in zip(_INN_12, (10, 11), strict=True)
    )


def snils(value: str) -> bool:
    """Say whether a pension number of 11 digits checks."""
    digits = _digits(value)
    total = sum(digit * weight for digit, weight in zip(digits, range(9, 0, -1), strict=False))
    return len(digits) == 11 and total % 101 % 100 == digits[9] * 10 + digits[10]


def iban(value: str) -> bool:
    """Say whether an account number checks modulo 97."""
    plain = re.sub(r"\s", "", value).upper()
    turned = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def _address(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _phone(value: str) -> bool:
    return 10 <= len(_digits(value)) <= 15


def entropy(value: str) -> float:
    """Return the bits a character that a string's own letter counts give (Shannon)."""
    counts = Counter(value)
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())


_ENTROPY = 4.2  # random base64 of 24 characters and more; words and paths stay below


def _random(value: str) -> bool:
    kinds = (str.islower, str.isupper, str.isdigit)
    mixed = all(any(kind(char) for char in value) for kind in kinds)
    digits = sum(char.isdigit() for char in value)
    return mixed and digits >= 3 and value.count("/") < 2 and entropy(value) >= _ENTROPY


def _given(value: str) -> bool:
    # `token = get_token()` and `password=********` hold nothing.
    return not re.fullmatch(r"[*x.…•<>_-]+|[A-Za-z_.]+\(.*|\$?\{.*|[a-z_]+", value)


def _pii(kind: str, pattern: str, **more: object) -> Pattern:
    return Pattern(PII, kind, re.compile(pattern, re.IGNORECASE), **more)  # type: ignore[arg-type]


def _secret(kind: str, pattern: str, **more: object) -> Pattern:
    return Pattern(SECRETS, kind, re.compile(pattern), **more)  # type: ignore[arg-type]


_KEY_WORDS = r"(?i:pass(?:word|wd)?|пароль|secret|token|api[_-]?key|access[_-]?key|auth)"

PATTERNS = (
    _pii(
        "email",
        r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)*\.[a-zа-я]{2,24}(?![\w-])",
        signs=("@",),
    ),
    _pii(
        "phone",
        r"(?<![\w+.,-])(?:\+7|8)[ \u00a0-]?\(?\d{3}\)?[ \u00a0-]?\d{3}"
        r"[ -]?\d{2}[ -]?\d{2}(?![\w-])",
    ),
    _pii(
        "phone",
        r"(?<![\w+])\+(?!7[ (-]?\d)\d{1,3}[ -]?\(?\d{1,4}\)?(?:[ -]?\d{2,4}){2,4}(?![\w-])",
        hold=_phone,
        signs=("+",),
    ),
    _pii("card", r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])", hold=luhn),
    _pii("inn", r"инн\W{0,5}(?P<found>\d{10}(?:\d\d)?)(?!\d)", hold=inn),
    _pii("snils", r"(?<![\w-])\d{3}-\d{3}-\d{3}[ -]\d{2}(?![\w-])", hold=snils),
    _pii("snils", r"снилс\W{0,5}(?P<found>\d{11})(?!\d)", hold=snils),
    _pii(
        "passport",
        r"(?:паспорт\w*|passport)[^\d\n]{0,30}(?P<found>\d{2} ?\d{2}[ №]{0,3}\d{6})(?!\d)",
        signs=("аспорт", "assport", "ПАСПОРТ"),
    ),
    _pii(
        "iban", r"(?<!\w)[a-z]{2}\d{2}(?: ?[a-z0-9]{4}){2,7}(?: ?[a-z0-9]{1,3})?(?!\w)", hold=iban
    ),
    _pii("ip address", r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)", hold=_address),
    _pii("ip address", r"(?<![\w:.])(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{1,4}(?![\w:])", hold=_address),
    _pii(
        "account",
        r"(?<![\w/.])(?:https?://)?(?:www\.)?(?:t\.me|vk\.com|instagram\.com|facebook\.com|"
        r"(?:x|twitter)\.com|linkedin\.com/in)/@?[\w.-]{3,40}\w",
        signs=(".me/", ".com/"),
    ),
    _secret(
        "private key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        signs=("PRIVATE KEY",),
    ),
    _secret(
        "aws key",
        r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}(?![A-Za-z0-9])",
        signs=("AKIA", "ASIA"),
    ),
    _secret(
        "github token",
        r"(?<!\w)(?:gh[pousr]_\w{30,}|github_pat_\w{40,})",
        signs=("gh", "github_pat_"),
    ),
    _secret("gitlab token", r"(?<!\w)glpat-[\w-]{20,}", signs=("glpat-",)),
    _secret("api key", r"(?<!\w)sk-[\w-]{20,}", signs=("sk-",)),
    _secret("hub token", r"(?<!\w)hf_[A-Za-z0-9]{30,}", signs=("hf_",)),
    _secret("google key", r"(?<!\w)AIza[\w-]{35}(?![\w-])", signs=("AIza",)),
    _secret("slack token", r"(?<!\w)xox[abprs]-[\w-]{10,}", signs=("xox",)),
    _secret("bot token", r"(?<!\w)\d{8,10}:[\w-]{35}(?![\w-])"),
    _secret("web token", r"(?<!\w)eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{5,}", signs=("eyJ",)),
    _secret(
        "password in address", r"\w+://[^\s/:@]{1,64}:(?P<found>[^\s/@]{3,64})@", signs=("://",)
    ),
    _secret(
        "secret",
        _KEY_WORDS + r"[\"']?\s{0,3}[=:]\s{0,3}[\"']?(?P<found>[^\s\"',;]{8,200})",
        hold=_given,
    ),
    _secret("random string", r"(?<![\w/+=.-])[\w+/-]{24,200}={0,2}(?![\w/+=])", hold=_random),
)
