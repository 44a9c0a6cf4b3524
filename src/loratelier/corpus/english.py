"""Whether a line is English, by its small words: Latin letters alone do not tell."""

import re

# One of the first tells English from its neighbours, or three of the others.
ENGLISH = re.compile(
    r"(?<![A-Za-z])(?:the|and|with|that|this|you|your|are|from|have|has|been|which|what|would|there|"
    r"they|their|his|she|her|when|where|how|because|just|should|could|don|doesn|didn|isn|(?-i:I)|another|other|some|these|those|every|never|people|like|says?|said|did|very|"
    r"been|now|may|about|over|use|using|"
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
    r"(?<![A-Za-z])(?:"
    r"di|che|il|la|le|les|des|el|los|una?|der|die|das|und|ist|mit|og|at|er|"
    r"de|que|para|em|da|je|het|een|och|att|du|kan|til|av|af|ich|eine?|nicht|"
    r"von|zu|auch|med|inte|ett|som|per|non|se|est|pour|dans|sur|nie|na|do|ja|"
    r"az|egy|hogy|si|nu|en|hvis|klik|eller|flere|ikke|uma|este|esta|como|sul|"
    r"nella|sie|wenn|nel|del|della|con|gli|sono|questi|tutti|[eioy]"
    r")(?![A-Za-z])"
)
_SHORTENED = re.compile(r"(?<=[A-Za-z])[^\x00-\x7f]{1,9}(s|t|re|ve|ll)(?![^\W\d_])")  # it’s, don’t
_NUMBERED = re.compile(r"(?:\d\.|[a-z]{4})[^\x00-\x7f]{1,9}(?:[A-Z]|\d+\.)")
_LETTERS = re.compile("[A-Za-z]+")
_WORD = re.compile("[A-Za-z]{2,}")
_FEWEST_WORDS = 3
_MOST_RUNS = 40
_HIGH = re.compile(r"[^\x00-\x7f]+")


def is_english(line: str) -> bool:
    """Say whether a line is English but for a few characters above ASCII."""
    runs = _HIGH.findall(line)
    letters = sum(map(len, _LETTERS.findall(line)))
    if not 0 < len(runs) <= _MOST_RUNS or letters < 3 * len(runs):
        return False
    strong, weak = set(ENGLISH.findall(line)), set(_WEAK.findall(line))
    weak |= set(_SHORTENED.findall(line))
    others = len(set(_OTHERWISE.findall(line)))
    if others and 2 * len(strong) + len(weak) <= others:
        return False
    return _NUMBERED.search(line) is not None or (
        2 * len(strong) + len(weak) >= (2 if strong else 3)
        and len(_WORD.findall(line)) >= _FEWEST_WORDS
    )


def may_be_english(line: str) -> bool:
    """Say whether nothing speaks against English: words in ASCII, and none of another language."""
    words = len(_WORD.findall(line))
    runs = len(_HIGH.findall(line))
    return words >= _FEWEST_WORDS and 0 < runs <= words and not _OTHERWISE.search(line)
