"""Read a chest X-ray report: which findings it reports, doubts or denies.

The rules are a table, ``data/findings_rules.csv`` (CONTRIBUTING.md says how
a row is read), made for the language of IU X-ray reports and checked against
their MeSH headings. They compare reports; they are neither a diagnosis nor
the CheXpert labeller, whose names they borrow.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import permutations
from pathlib import Path

import pandas as pd

from .metrics import plain

#: From strongest to weakest: the strongest mention decides for the report.
STATES = ("present", "uncertain", "absent")
RANKS = (*STATES, "hint")
#: Who has the first has the second.
IMPLIES = {"Pacemaker": "Support Devices", "Central Line": "Support Devices"}
#: What a hint (a blunted angle) gives way to in its own sentence.
CAUSES = {"Pleural Effusion", "Pleural Other", "Fibrosis"}
RULES_FILE = Path(__file__).parents[1] / "data" / "findings_rules.csv"

#: Where a sentence ends ("atelectasis vs. scar" is one).
END = re.compile(
    r"(?<=[.?!;])(?<!\bvs\.)\s+"
    r"|(?<!\s)(?=[^\S\r\n]*+[\r\n])\s++(?=[A-Z0-9*-])"
    r"|(?<=[A-Za-z]\.)(?<!\bvs\.)(?=[A-Za-z])")
#: Where a clause ends: a contrast, or a comma that begins a new statement.
CLAUSE = re.compile(
    r" (?:but|however|except|although|though|aside from|apart from|other than"
    r"|whereas|while|nevertheless|(?:, and|,|and) there (?:is|are|has)"
    r"|(?:, and|,|and(?= the))(?= (?:the (?:\w+ ){1,7}"
    r"|(?:(?!(?:and|n?or) )\w+ ){1,3})"
    r"(?:is|are|appears?|remains?|demonstrates?) "
    r"(?!seen|identified|noted|present|evident|demonstrated|visuali|apprec"
    r"|detected|visible|found|not)))(?= )")
#: Where a denial and a hedge end inside a clause.
_STOP = (
    r" (?:(?<!consistent )(?<!compatible )(?<!associated )with"
    r"|(?:seen|identified|noted) ,|(?:,|and) (?:stable|unchanged|persistent"
    r"|mild(?:ly)?|minimal(?:ly)?|moderate|possible|probable|likely|again)")
STOP = {
    "no": re.compile(_STOP + "|due to|secondary to|because of) "),
    "maybe": re.compile(_STOP + ") "),
}
#: "atelectasis or scar": one of the two, so neither is certain.
OR = re.compile(r"(?: ,)?(?: \w+){0,4} (?:or|versus|/)(?: \w+){0,2} ")
VERB = re.compile(r"\b(?:is|are|was|has|have|with|remains?|as)\b")
#: Sentences that speak of the examination, not of the patient.
ADVICE = re.compile(r"\b(?:please note|more sensitive|evaluation for)\b")
#: Words after which a sentence is cut: a model that never stops, not prose.
LONGEST = 150

Span = tuple[int, int]


def _read_rules() -> tuple[dict[str, re.Pattern[str]], list[tuple]]:
    """The table -> cues by name, rules as (finding, says, pattern)."""
    table = pd.read_csv(RULES_FILE)
    rows = list(table.assign(phrases=table["phrases"].str.split(";"))
                .itertuples(index=False, name=None))
    words = {name: items for name, says, items in rows if says == "words"}
    special = {"..": r"(?: [^ ,]+){0,7}?", "...": r"(?: [^ ]+){0,11}?",
               "^": "^", "$": "(?= $)"}

    def token(text: str) -> str:
        if text in special:
            return special[text]
        if text.endswith("+"):
            return rf"(?:{token(text[:-1])})*"
        options = [w for o in text.split("/") for w in words.get(o, [o])]
        escaped = [re.escape(o.strip()) for o in options]
        return rf" (?:{'|'.join(escaped)})".replace(r"\*", r"\w*")

    def pattern(phrases: list[str]) -> re.Pattern[str]:
        each = ["".join(map(token, phrase.split())) for phrase in phrases]
        return re.compile(rf"(?:{'|'.join(each)})(?!\w)".replace(r"\ ", " "))

    rules = [(name, says, pattern(items)) for name, says, items in rows
             if says != "words"]
    cues = {name: regex for name, says, regex in rules if says == "cue"}
    return cues, [rule for rule in rules if rule[1] != "cue"]


CUES, RULES = _read_rules()
#: CheXpert's 14 names (Irvin et al. 2019, arXiv 1901.07031), then 11 of ours,
#: as they stand in the table.
FINDINGS = ("No Finding", *dict.fromkeys(name for name, *_ in RULES))
CONDITION, ORGANS = CUES.pop("condition"), CUES.pop("organs")
WORDS = re.findall(r"\b([a-z]+)(\*?)", RULES_FILE.read_text("utf-8"))


def _slips(stem: str) -> Iterator[str]:
    """One letter gone, wrong or too many (of the word's own), two swapped."""
    for i in range(1, len(stem) - 1):
        a, b, c = stem[:i], stem[i], stem[i + 1 :]
        yield a + c[0] + b + c[1:]
        yield from (a + x + end for x in ("", *stem) for end in (c, b + c))


SPELT = {slip + star: stem for stem, star in sorted(WORDS) if len(stem) > 6
         for slip in _slips(stem)} | {a + star: a for a, star in WORDS}


@lru_cache(maxsize=20_000)
def _spelt(word: str) -> str:
    """A word with the letters that the table gives to it or its stem."""
    stems = (f"{word[:end]}*" for end in range(min(len(word), 99), 5, -1))
    key = next((k for k in (word, *stems) if k in SPELT), word)
    return SPELT.get(key, word) + word[len(key.rstrip("*")) :]


def _touches(span: Span, others: list[Span]) -> bool:
    return any(start < span[1] and span[0] < end for start, end in others)


def _reached(span: Span, kind: str, cues: dict, clause: str) -> bool:
    """Does a cue of this kind ("no", "maybe") reach the mention?

    From before: it begins before the mention ends ("heart is not enlarged")
    and nothing between stops it. From behind: one verb between, not two.
    """
    return any(
        start < span[1] and not STOP[kind].search(clause, end, span[1])
        for start, end in cues[f"{kind} before"]
    ) or any(
        start >= span[1] and len(VERB.findall(clause[span[1] : start])) < 2
        for start, _ in cues[f"{kind} after"])


def _state(says: str, span: Span, cues: dict, clause: str) -> str:
    if says == "absent" or _reached(span, "no", cues, clause):
        return "absent"
    if _reached(span, "maybe", cues, clause):
        return "uncertain"
    return "present" if says == "as worded" else says


def _label_clause(clause: str) -> list[tuple[str, str]]:
    """(finding, state) for every mention; a state may still be "hint"."""
    cues = {name: [match.span() for match in pattern.finditer(clause)]
            for name, pattern in CUES.items()}
    for name in ("no before", "no after"):
        cues[name] = [span for span in cues[name] if not _touches(
            span, cues["no denial"] + cues["no health"])]
    spans = [(finding, says, match.span()) for finding, says, pattern in RULES
             for match in pattern.finditer(clause)]
    mentions = []
    for finding, says, span in spans:
        other = [s for f, word, s in spans
                 if (f, word) == (finding, "not meant")]
        # "the lungs are not clear" names nothing, but health is denied
        unclear = says == "absent" and CUES["no health"].search(clause, *span)
        if says != "not meant" and not _touches(span, other):
            state = _state(says, span, cues, clause)
            mentions.append((FINDINGS[0] if unclear else finding, state, span))
    either: set[Span] = set()
    for (first, state, one), (second, state_2, two) in permutations(
            mentions, 2):
        possible = state == "present" and state_2 != "absent"
        between = any(one[1] <= span[0] < two[0] for *_, span in mentions)
        if (first != second and possible and not between
                and OR.fullmatch(clause[one[1] : two[0] + 1])):
            either |= {one, two}
    return [(finding, "uncertain" if span in either else state)
            for finding, state, span in mentions]


@lru_cache(maxsize=20_000)
def _label_sentence(sentence: str) -> tuple[tuple[str, str], ...]:
    if ADVICE.search(sentence):
        return ()
    text = CONDITION.sub("", f" {' '.join(map(_spelt, sentence.split()))} ")
    # what is said of the last organ is said of all: no clause ends there
    text = ORGANS.sub(lambda found: re.sub(" ,| and", "", found[0]), text)
    pairs = [p for clause in CLAUSE.split(text) for p in _label_clause(clause)]
    stated = {finding for finding, state in pairs if state != "hint"}
    return tuple(p for p in pairs if p[1] != "hint" or not stated & CAUSES)


def sentences(text: str | None) -> list[str]:
    """The sentences of a report as written, white space folded.

    A full stop ends a sentence unless it stands inside a number; so do
    ``?``, ``!``, ``;``, and a line break before a capital, digit or bullet.
    """
    parts = END.split(text) if isinstance(text, str) else []
    folded = (" ".join(plain(part).split()) for part in parts)
    return [part for part in folded if part]


def _as_read(sentence: str) -> list[str]:
    """A sentence as the rules read it, cut after each `LONGEST` words: lower
    case, ASCII, hyphens and colons as blanks, commas and slashes alone."""
    text = re.sub(r"[^ -~]+", " ", sentence.lower()).strip().rstrip(".?!;")
    text = re.sub(r"\band ?/ ?or\b|\bvs\b\.?", "versus", text)
    text = re.sub(r"[,()\[\]\"]", " , ", text).replace("/", " / ")
    words = re.sub("[:-]", " ", text).split()
    starts = range(0, len(words) if re.search("[a-z]", text) else 0, LONGEST)
    return [" ".join(words[i : i + LONGEST]) for i in starts]


def label_report(text: str | None) -> dict[str, str]:
    """Finding -> "present", "uncertain" or "absent", in the order of
    `FINDINGS`; a finding that is not mentioned has no key.

    The strongest mention wins. ``No Finding`` is present when nothing else is
    present or uncertain, else absent; a text without a word gives {}.
    Consolidation, pneumonia and atelectasis are not also counted as lung
    opacity, nor a calcified granuloma as calcification, as in MeSH.
    """
    read = [clause for s in sentences(text) for clause in _as_read(s)]
    pairs = [pair for clause in read for pair in _label_sentence(clause)]
    pairs += [(IMPLIES[name], state) for name, state in pairs
              if name in IMPLIES and state != "absent"]
    # the weakest first: the last one stays
    ranked = sorted(pairs, key=lambda p: RANKS.index(p[1]), reverse=True)
    states = {name: "uncertain" if state == "hint" else state
              for name, state in ranked}
    if read and FINDINGS[0] not in states:
        healthy = set(states.values()) <= {"absent"}
        states["No Finding"] = "present" if healthy else "absent"
    return {name: states[name] for name in FINDINGS if name in states}
