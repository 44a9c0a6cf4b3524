"""How well the characters above ASCII stand in a line of English.

English above ASCII is quotes, dashes and a few accented letters: too little for trigrams, and one
such mark alone is often all the evidence there is. So each is weighed by itself and in its place:
what it costs in nats, the less the likelier.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from loratelier.corpus.words import is_known

# What a character costs the first time that it stands in a line, where it fits: minus the logarithm
# of how often it is the one above ASCII in typeset English.
_COSTS = {
    **{"’": 1.0, "“": 1.5, "”": 1.5, "—": 1.5, "–": 2.5, "…": 2.5, "‘": 3.5, "\xa0": 4.0},
    **{"é": 4.0, "•": 5.0, "·": 6.0, "×": 5.5, "−": 5.5, "→": 6.0, "№": 7.0, "„": 6.5},
    **dict.fromkeys("©®™°", 5.0),
    **dict.fromkeys("€£§", 5.5),
    **dict.fromkeys("áàâäãåæçèêëíìîïñóòôöøœúùûüß", 5.5),
    **dict.fromkeys("½¼¾²³µ«»±´", 6.0),
    **dict.fromkeys("†‡‹›≤≥≈≠√∑∞", 7.0),
    **dict.fromkeys("¢¥¡¿ðþýÿ", 8.0),
}
_CAPITAL, _OTHER_LATIN, _GREEK, _SYMBOL, _FOREIGN = 6.5, 7.5, 7.5, 8.5, 10.5
_NEVER = 14.0  # controls
_AGAIN = 0.3  # of its cost, where a character stands in the line already
_KNOWN_WORD, _STRANGE_WORD = (6.0, 0.5), (8.0, 1.0)  # a Cyrillic word by itself; each letter of it

_OUT_OF_PLACE = 7.0
_ALONE = 7.0  # for an accented letter that is no word
_TORN = 9.0  # for a sign inside a word, but for these
_INSIDE = frozenset("’‘—–…·\xa0")

# One of the first tells English from its neighbours, or two of the others.
_ENGLISH = re.compile(
    r"(?<![A-Za-z])(?:the|and|with|that|this|you|your|are|from|have|has|been|which|what|would|there|"
    r"they|their|his|she|her|when|where|how|because|just|should|could|don|doesn|didn|isn|I|"
    r"Figure|Chapter|Table|Example|Section|Appendix)(?![A-Za-z])",
    re.IGNORECASE,
)
_WEAK = re.compile(
    r"(?<![A-Za-z])(?:of|to|is|in|it|an?|on|as|by|be|or|was|were|not|for|at|but|can|do|all|if|we|he|"
    r"my|who|me|am|go|get|no|one|so|more|than|will|must|into|out|up|only|after|any|why|our|its)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
_OTHERWISE = re.compile(
    r"(?<![A-Za-z])(?:di|che|il|la|le|les|des|el|los|una?|der|die|das|und|ist|mit|og|at|er|de|que|para|em|da|"
    r"je|het|een|och|att|du|kan|til|av|af|ich|eine?|nicht|von|zu|auch|med|inte|ett|som|per|non|se|est|pour|dans|sur|nie|na|do|ja|az|egy|hogy|si|nu|en|hvis|klik|eller|flere|ikke|uma|este|esta|como|sul|nella|sie|wenn)(?![A-Za-z])"
)
_NUMBERED = re.compile(r"(?:\d\.|[a-z]{4})[^\x00-\x7f]{1,9}(?:[A-Z]|\d+\.)")
_LETTERS = re.compile("[A-Za-z]+")
_CAPITAL_WORD = re.compile("[A-Z][a-z]")
_WORD = re.compile("[A-Za-z]{2,}")
_FEWEST_WORDS = 3
_HIGH = re.compile(r"[^\x00-\x7f]+")
_ABOUT_LETTERS = re.compile(r"\b(?:letter|character|accent|symbol|press|type|spelt|spelled)", re.I)
_BORROWED = frozenset("éèêëïöüäñçâ")  # in words of English too
_LOWER_WORD = re.compile("(?<![^\\s([“‘«\"'—-])[a-z]+$")
_DRAWING = re.compile("[\u2500-\u259f]+")
_DRAWN = 4.0
_ENDS = frozenset(".,;:!?)]")
_TWINS = frozenset("асеорхуіАВЕКМНОРСТХІ")  # what a slip of the keyboard leaves in a Latin word
_CYRILLIC_WORDS = re.compile("[а-яё]{4}")
_CYRILLIC_WORD = re.compile(r"[А-ЯЁа-яё][а-яё]+|[А-ЯЁ]{2,}")
_LABEL = re.compile(
    r"(?:Figure|Chapter|Table|Example|Section|Appendix|Part|Step|[Pp]age|[Pp]|No|vol)\.?$"
)
_NEGATED = re.compile(
    r"(?:\b(?:do|ca|wo|is|does|did|could|would|should|has|have|had|was|were|are|ai|must|need))n$",
    re.I,
)
_SHORTENED = re.compile(r"(s|t|d|m|re|ve|ll)(?![^\W\d_])", re.IGNORECASE)

# By how many nats a result must be likelier than the line as it is, all odds counted.
PROVEN = 0.5
PROVEN_LATIN = 8.0  # in what may be English or not: a title, names, a list
_LEAST_ODDS = 2.0
_RAREST = 8.0  # what costs more is no cure
_DOUBTFUL = 4.0
_MOST_RUNS = 40


def is_english(line: str) -> bool:
    """Say whether a line is English but for a few characters above ASCII."""
    runs = _HIGH.findall(line)
    letters = sum(map(len, _LETTERS.findall(line)))
    if not 0 < len(runs) <= _MOST_RUNS or letters < 3 * len(runs):
        return False
    strong, weak = set(_ENGLISH.findall(line)), set(_WEAK.findall(line))
    others = len(set(_OTHERWISE.findall(line)))
    if others and 2 * len(strong) + len(weak) <= others:
        return False
    return _NUMBERED.search(line) is not None or (
        2 * len(strong) + len(weak) >= (2 if strong else 3)
        and len(_WORD.findall(line)) >= _FEWEST_WORDS
    )


def _may_be_english(line: str) -> bool:
    """Say whether nothing speaks against English: words in ASCII, and none of another language."""
    words = len(_WORD.findall(line))
    runs = len(_HIGH.findall(line))
    return words >= _FEWEST_WORDS and 0 < runs <= words and not _OTHERWISE.search(line)


def is_odd(line: str) -> bool:
    """Say whether English marks could stand in a line better than what stands there."""
    if len(_CYRILLIC_WORDS.findall(line)) > 1:
        return False
    if is_english(line):
        least = PROVEN
    elif _may_be_english(line):
        least = PROVEN_LATIN
    else:
        return False
    distinct = len({char for char in line if char > "\x7f"})
    return cost(line) - distinct >= least + _LEAST_ODDS


def cost(line: str) -> float:
    """Return what the characters above ASCII cost in English, in nats: 0 where there are none."""
    return sum(_run(line, match.start(), match.end()) for match in _HIGH.finditer(line)) - sum(
        _saved(line)
    )


def _saved(line: str) -> Iterator[float]:
    seen = set()
    for char in line:
        if char > "\x7f":
            if char in seen:
                yield (1 - _AGAIN) * _base(char)
            seen.add(char)


def _run(line: str, start: int, end: int) -> float:
    run = line[start:end]
    beside = line[max(0, start - 1) : start] + line[end : end + 1]
    if _CYRILLIC_WORD.fullmatch(run) and not any(map(str.isalnum, beside)):
        whole, letter = _KNOWN_WORD if is_known(run) else _STRANGE_WORD
        return max(whole + letter * len(run), 0.0)
    if _DRAWING.fullmatch(run) and (len(beside) < 2 or (len(run) > 1 and " " in beside)):
        return _DRAWN + sum(map(_base, run)) - sum(map(_base, set(run)))
    return sum(_base(line[n]) + _misfit(line, n) for n in range(start, end))


@lru_cache(maxsize=4096)
def _base(char: str) -> float:
    if char in _COSTS:
        return _COSTS[char]
    point = ord(char)
    if point < 0xA0:
        return _NEVER
    if point < 0x180 and char.isalpha():
        return _CAPITAL if char.isupper() else _OTHER_LATIN
    if 0x370 <= point < 0x400:
        return _GREEK
    if 0x2190 <= point < 0x2200 or point >= 0x2E80:
        return _SYMBOL
    return _FOREIGN


def _misfit(line: str, place: int) -> float:
    """Return what a character costs besides, for standing where it stands."""
    char = line[place]
    left, right = line[:place], line[place + 1 :]
    if char not in _INSIDE and not char.isalpha() and _letter(left[-1:]) and _letter(right[:1]):
        return _TORN
    rule = _RULES.get(char)
    if rule is not None:
        return rule(left, right)
    if char.isalpha() and char < "\u0250":
        return _accented(char, left, right)
    return _foreign(char, left, right) if _base(char) >= _FOREIGN else 0.0


def _letter(char: str) -> bool:
    return char.isalpha() and char < "\u0250"


def _apostrophe(left: str, right: str) -> float:
    before, after = left[-1:], right[:1]
    short = _SHORTENED.match(right)
    if before.isdigit() and right[:1] == "s":
        return 1.0
    if _letter(before) and short:
        return 5.0 if short[1] in "tT" and not left.endswith(("n", "N")) else 0.0
    if _letter(before) and _letter(after):
        return 1.0 if left[-2:] in ("O", " O", "“O") or left[-1:] in "DO" else 3.0
    if left.rfind("‘") > left.rfind("’") and not before.isspace():
        return 0.5
    if before == "s" and not _letter(after):
        return 1.0
    if not before.strip() and (after.isdigit() or right[:2] in ("em", "ti", "tw")):
        return 2.0
    return 3.0 if before.strip() and not after.isalnum() else _OUT_OF_PLACE


def _opening(closers: str) -> Callable[[str, str], float]:
    def rule(left: str, right: str) -> float:
        if left[-1:].isalnum() or not right[:1].strip() or right[0] in ",;:)]":
            return _OUT_OF_PLACE
        if left[-1:] in _ENDS:
            return 4.0
        return 0.0 if any(char in right for char in closers) else 2.5

    return rule


def _closing(openers: str) -> Callable[[str, str], float]:
    def rule(left: str, right: str) -> float:
        if not left[-1:].strip() or left[-1] in "([" or right[:1].isalnum():
            return _OUT_OF_PLACE
        return 0.0 if any(char in left for char in openers) else 2.5

    return rule


def _dash(left: str, right: str) -> float:
    before, after = left[-1:], right[:1]
    if before in ("", " ", "\xa0") and after in ("", " ", "\xa0"):
        return 0.0 if before and after else 2.0
    if before.isdigit() and after.isdigit():
        return 3.0
    if re.search(r"[A-Za-z]{3}[\"”’)]?$", left) and re.match(r"[“\"(]?(?:[A-Za-z]{3}|I\b)", right):
        return 1.5 if not _SHORTENED.match(right) else 5.0
    if before and after in ("", " ", "\n", "”", '"', "’"):
        return 2.5
    return 4.0 if before.strip() and after.isalpha() and not before.isalnum() else _OUT_OF_PLACE


def _short_dash(left: str, right: str) -> float:
    return -0.5 if left[-1:].isdigit() and right[:1].isdigit() else _dash(left, right)


def _ellipsis(left: str, right: str) -> float:
    after = right[:1]
    if _letter(left[-1:]) and _SHORTENED.match(right):
        return 5.0
    if not after or not after.isalnum():
        return 0.0 if left[-1:].strip() else 1.0
    return 1.5 if left[-1:] in ("", " ", "“", "‘", "[", "(") else 2.5


def _space(left: str, right: str) -> float:
    if not left[-1:].strip() or not right[:1].strip():
        return _OUT_OF_PLACE
    if re.search(r"\d\.$", left) and right[0].isupper():
        return -2.0
    if re.search(r"\d\.?$", left) or (_LABEL.search(left) and right[0].isdigit()):
        return 0.0
    return 2.0 if not (left[-1].isalnum() and right[0].isalnum()) else 3.0


def _beside_number(left: str, right: str) -> float:
    near = f"{left[-2:]} {right[:2]}"
    if _letter(left[-1:]) or _letter(right[:1]):
        return 5.0
    return 0.0 if any(map(str.isdigit, near)) else 4.0


def _after_letter(left: str, right: str) -> float:
    if right[:1].isalnum():
        return _OUT_OF_PLACE
    return 0.0 if left[-1:].isalnum() and not right[:1].isalnum() else 4.0


def _bullet(left: str, right: str) -> float:
    return 0.0 if not left.strip(" >\t") and right[:1].isspace() else 4.0


def _either(left: str, right: str) -> float:
    """Weigh an angle quote, which Germans and Danes set the other way round."""
    return min(_opening("»«")(left, right), _closing("«»")(left, right))


def _middle_dot(left: str, right: str) -> float:
    beside = (left[-1:], right[:1])
    return 0.0 if all(char in ("", " ", "·") for char in beside) else 3.0


def _about(left: str, right: str) -> float:
    """Weigh a sign of relation: at home in formulas, hardly between two words."""
    if re.search(r"[A-Za-z]+[.,]? $", left) and re.match(r" [A-Za-z]{2,}", right):
        return 0.0 if re.search(r"[=+<>%]", left + right) else 3.0
    return 4.0 if _letter(left[-1:]) or _letter(right[:1]) else 0.0


def _foreign(char: str, left: str, right: str) -> float:
    """Weigh what no English line needs: alone, or glued to a word, it is odder still."""
    beside = left[-1:] + right[:1]
    if not left.strip() and right[:2] in ("  ", " |", "\t"):  # the first column of a table
        return -5.0
    if _ABOUT_LETTERS.search(left) or _ABOUT_LETTERS.search(right):
        return -4.0
    if char in _TWINS and _is_twin(char, left, right):
        return -8.0 if _letter(left[-1:]) and _letter(right[:1]) else -2.0
    if any(map(_letter, beside)):
        return 3.0 * sum(map(_letter, beside))
    return 4.0 if char.isalpha() and not beside.strip() else 0.0


def _is_twin(char: str, left: str, right: str) -> bool:
    """Say whether a Cyrillic letter stands where its Latin twin would."""
    near = re.search("[A-Za-z]*$", left), re.match("[A-Za-z]*", right)
    beside = "".join(match[0] for match in near if match)
    if char.isupper():
        return len(beside) > 1 and beside.isupper()
    return len(beside) > 1 and beside.islower() and not _SHORTENED.match(right)


def _accented(char: str, left: str, right: str) -> float:
    before, after = left[-1:], right[:1]
    if _ABOUT_LETTERS.search(left):
        return 0.0
    if before.isdigit() or after.isdigit():
        return 4.0 if not (before + after).isdigit() else 6.0
    inside = _letter(before) or _letter(after)
    if char.isupper():
        odd = before.islower() or (_letter(before) and _SHORTENED.match(right))
        if before == "I" and _SHORTENED.match(right):
            return _TORN
        if odd or (not _letter(before) and (_ENGLISH.match(right) or _CAPITAL_WORD.match(right))):
            return _OUT_OF_PLACE
        return 0.5 if inside else _ALONE
    if not inside:
        return 0.0 if char == "à" else _ALONE
    if _letter(before) and before.islower() and after.isupper():
        return 5.0
    if not _letter(before) and (after.isupper() or _ENGLISH.match(right)):
        return 5.0
    short = _SHORTENED.match(right)
    if short and before and before.isascii():
        if short[1] in "tT":
            return 6.0 if _NEGATED.search(left) else 0.0
        if short[1] in "sS":
            return 4.0 if char != "é" and re.search("[A-Za-z]{2}$", left) else 0.0
        return 3.0 if re.search(r"\b(?:I|[Ww]e|[Tt]hey|[Yy]ou|[Hh]e|[Ss]he|it)$", left) else 0.0
    if not _letter(before) and re.match("[a-z]{3}", right):
        return 1.5
    if not _letter(after):
        return 0.0 if char in "éàèù" else 1.5
    return 2.5 if char not in _BORROWED and _LOWER_WORD.search(left) else 0.0


_RULES: dict[str, Callable[[str, str], float]] = {
    "’": _apostrophe,
    "“": _opening("”"),
    "„": _opening("”“"),
    "‘": _opening("’"),
    "«": _either,
    "”": _closing("“„"),
    "»": _either,
    "‹": lambda left, right: 0.0 if left[-1:].strip() in ("", "[", "(") else _OUT_OF_PLACE,
    "›": lambda left, right: 0.0 if right[:1].strip() in ("", "]", ")") else _OUT_OF_PLACE,
    "—": _dash,
    "–": _short_dash,
    "−": _beside_number,
    "…": _ellipsis,
    "\xa0": _space,
    "•": _bullet,
    "·": _middle_dot,
    "™": _after_letter,
    "®": _after_letter,
    "†": _after_letter,
    "‡": _after_letter,
    "×": lambda left, right: min(_beside_number(left, right), 2.5),
    "©": lambda left, right: 5.0 if left[-1:].isalnum() or _letter(right[:1]) else 0.0,
    **dict.fromkeys("≈≤≥≠", _about),
    **dict.fromkeys("²³", lambda left, right: 0.0 if left[-1:].isalnum() else _OUT_OF_PLACE),
    **dict.fromkeys("€£°½¼¾±№§", _beside_number),
    **dict.fromkeys("¡¿", lambda left, right: 4.0 if left[-1:].isalnum() else 0.0),
}


def _is_set_well(line: str) -> bool:
    """Say whether nothing stands out of place: a cure leaves no riddle."""
    for match in _HIGH.finditer(line):
        for place in range(match.start(), match.end()):
            if _misfit(line, place) >= _DOUBTFUL:
                return False
        if "´" in match.group():
            return False
        if any(map(str.isalpha, match.group())) and not _is_accent(line, match):
            return False
    return True


def _is_accent(line: str, match: re.Match[str]) -> bool:
    """Say whether a run is one accented letter where English has one: rôle, café, Ångström."""
    before, after = line[match.start() - 1 : match.start()], line[match.end() : match.end() + 1]
    char = match.group()
    if len(char) > 1:
        return False
    if char.isupper():
        return not _letter(before) and after.islower()
    return _letter(before) and (_letter(after) or char in "éà")


def gains(line: str, results: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Yield the results that are well set English, and how much less they cost than the line."""
    now = cost(line)
    if now < PROVEN or not (is_english(line) or _may_be_english(line)):
        return
    for text in results:
        if _is_set_well(text):
            yield text, now - cost(text)


def may_stand(text: str) -> bool:
    """Say whether English may hold all the characters of a text."""
    return all(_base(char) <= _RAREST for char in set(text) if char > "\x7f")
