"""METEOR's two helpers from outside Python, both in pycocoevalcap: WordNet
for nltk's METEOR (nltk's own is a download), and METEOR 1.5, in Java."""

import atexit
import gzip
import hashlib
import re
import subprocess
import threading
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..course import artifacts
from ..course.run import cache_folder, data_folder
from ..datasets.reports import load_studies

#: WordNet's endings (morphy, https://wordnet.princeton.edu/documentation),
#: all parts of speech together, for the jar's table does not tell them apart.
_ENDINGS = [pair.split(":") for pair in (
    "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y es:e es: ed:e "
    "ed: ing:e ing: er: est: er:e est:e").split(" ")]
#: METEOR 1.5 for English (https://aclanthology.org/W14-3348, table 2, task
#: "rank"), and weights of exact, stem, synonym and paraphrase matches.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
JAR, PARAPHRASES = "meteor-1.5.jar", "data/paraphrase-en.gz"
#: Encoding and decimal sign are not left to the locale.
COMMAND = (
    "java -Dfile.encoding=UTF-8 -Duser.language=en -Duser.country=US -Xmx2G "
    "-XX:+UseSerialGC -jar {jar} - - -stdio -l en -norm -a {table}"
).split()
PIECE = 10_000  #: pairs that the jar sums up at a time
TIMEOUT = 600  #: seconds of a piece; then Java is ended
#: Words of a text that the jar sees: thousands of repeated ones take all
#: memory. The longest IU X-ray report has 169.
MAX_WORDS = 1000
BLOCK = 3_000_000  #: lines of the jar's table that are read at once


def _folder() -> Path:
    package = distribution("pycocoevalcap")
    return Path(str(package.locate_file("pycocoevalcap/meteor")))


class JarWordNet:
    """The WordNet 3.0 table of the METEOR jar, in nltk's clothes.

    The table has no parts of speech, so a word may get a synonym too many:
    against the full WordNet, 4 of 10,000 random pairs of reports score
    differently, and their mean by 0.00001.
    """

    def __init__(self) -> None:
        self._words: dict[str, list[str]] = defaultdict(list)
        self._bases: dict[str, list[str]] = defaultdict(list)
        with zipfile.ZipFile(_folder() / JAR) as jar:
            self._offsets = _table(jar.read("synonym/english.synsets"))
            exceptions = _table(jar.read("synonym/english.exceptions"))
        for word, offsets in self._offsets.items():
            for offset in offsets:
                self._words[offset].append(word)
        for base, forms in exceptions.items():
            for form in forms:
                self._bases[form].append(base)

    @lru_cache(maxsize=100_000)  # noqa: B019 (there is one reader)
    def synsets(self, word: str) -> list[Any]:
        """Synonyms of a word (or of a Porter stem: nltk asks for both), by
        its irregular base forms, else by its ending."""
        word = word.lower()
        bases = self._bases.get(word) or [
            word[: -len(old)] + new for old, new in _ENDINGS
            if word.endswith(old)]
        lemmas = [[SimpleNamespace(name=same.__str__)
                   for same in self._words[offset]]
                  for form in {word, *bases}
                  for offset in self._offsets.get(form, ())]
        return [SimpleNamespace(lemmas=each.copy) for each in lemmas]


def _table(content: bytes) -> dict[str, list[str]]:
    """Line pairs (key, values) -> dict."""
    lines = content.decode().splitlines()
    return {k: v.split() for k, v in zip(lines[0::2], lines[1::2])}


wordnet = lru_cache(maxsize=1)(JarWordNet)  # it takes a second to read


def java_version() -> str | None:
    """Version of the Java on the path, e.g. "17.0.15"; None without one."""
    try:
        done = subprocess.run(["java", "-version"], check=True, text=True,
                              capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "([^"]+)"', done.stderr)
    return match[1] if match else None


def words_of(texts: Iterable[str]) -> frozenset[str]:
    """All that the jar's tokeniser could make a word of: runs of letters, of
    digits and of both, words without their signs, "do" of "don't"."""
    words: set[str] = set()
    for word in set(" ".join(texts).lower().split()):
        parts = re.findall(r"[^\W_]+", word)
        words.update(parts, re.findall(r"[^\W\d_]+|\d+", word),
                     ["".join(parts)], re.findall(r"(\w+)n\Wt", word))
    return frozenset(words)


def paraphrases(words: frozenset[str]) -> tuple[Path, frozenset[str]]:
    """A table of those of the jar's 5 million paraphrases that texts of these
    words can match, and the words that it lacks: Java reads the whole in ten
    seconds, this in one. Entries with a sign or a foreign letter stay."""
    folder = cache_folder() / "meteor"
    given = data_folder() / "meteor"  # of a class, which may be read-only
    for file in (*given.glob("*.lacks"), *folder.glob("*.lacks")):
        lacks = frozenset(file.read_text("utf-8").split())
        if words.isdisjoint(lacks):
            return file.with_suffix(".gz"), lacks
    words |= words_of(load_studies()[["findings", "impression"]].stack())
    name = hashlib.sha256(" ".join(sorted(words)).encode()).hexdigest()[:16]
    table, missed = folder / f"{name}.gz", set[str]()

    def write(path: Path) -> None:
        lines = csv.read_csv(
            _folder() / PARAPHRASES, csv.ReadOptions(column_names=["line"]),
            csv.ParseOptions(delimiter="\x01", quote_char=False),
            csv.ConvertOptions(column_types={"line": pa.string()}))["line"]
        with gzip.open(path, "wb", 1) as kept:
            for first in range(0, len(lines), BLOCK):
                block = lines.slice(first, BLOCK).combine_chunks()
                split = pc.split_pattern(block, " ")
                found = split.values.dictionary_encode()
                names = found.dictionary.to_pylist()
                new = {w for w in names if w.isascii() and w.isalnum()} - words
                missed.update(new)
                foreign = np.array([name in new for name in names])
                lost = np.logical_or.reduceat(
                    foreign[found.indices], split.offsets[:-1])
                # An entry is three lines: a probability, two phrases.
                keep = ~lost.reshape(-1, 3)[:, 1:].any(axis=1).repeat(3)
                entries = block.filter(pa.array(keep)).to_pylist()
                kept.write("\n".join([*entries, ""]).encode())

    artifacts.write_whole(table, write)
    artifacts.write_whole(table.with_suffix(".lacks"), lambda path:
                          path.write_text(" ".join(sorted(missed)), "utf-8"))
    return table, frozenset(missed)


_running: list[Any] = []  # one process, kept, and what its table lacks


@atexit.register
def stop_meteor() -> None:
    while _running:
        process, _ = _running.pop()
        process.kill()
        process.communicate()


def _process(words: frozenset[str]) -> Any:
    """The Java process; another one where its table lacks some words."""
    for process, lacks in _running:
        if process.poll() is None and words.isdisjoint(lacks):
            return process
    stop_meteor()
    table, lacks = paraphrases(words)
    # In the table's folder: the jar can't read it from a path that has a
    # blank. And stderr, which nobody reads, must not fill up.
    process = subprocess.Popen(
        [part.format(jar=_folder() / JAR, table=table.name)
         for part in COMMAND], cwd=table.parent, bufsize=1, encoding="utf-8",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL)
    _running.append((process, lacks))
    return process


def run_meteor(references: Sequence[str], generated: Sequence[str]
               ) -> tuple[float, list[float], np.ndarray]:
    """METEOR 1.5 of pairs: the corpus figure (from summed statistics: not
    the mean), one score a pair, statistics of shape (n, 23). OSError,
    EOFError or ValueError if Java is missing, ends early or is ended."""
    # The line protocol carries neither breaks nor separators.
    pairs = [[" ".join(text.replace("|||", " ").split()[:MAX_WORDS])
              for text in pair]
             for pair in zip(references, generated, strict=True)]
    process = _process(words_of(text for pair in pairs for text in pair))
    watchdog = threading.Timer(
        TIMEOUT * (1 + len(pairs) // PIECE), process.kill)
    watchdog.start()
    try:
        lines, segments = [], []
        for pair in pairs:
            print("SCORE", *pair, sep=" ||| ", file=process.stdin)
            lines.append(process.stdout.readline().strip())
            if len(lines[-1].split()) != 23:
                raise EOFError(f"METEOR answered {lines[-1]!r}")
        for first in range(0, len(lines), PIECE):
            piece = lines[first : first + PIECE]
            print("EVAL", *piece, sep=" ||| ", file=process.stdin)
            *each, corpus = (
                float(process.stdout.readline()) for _ in (*piece, "all"))
            segments += each
    except BaseException:
        stop_meteor()  # out of step with its protocol: start afresh
        raise
    finally:
        watchdog.cancel()
    sums = _summable(lines)
    if len(lines) > PIECE:
        corpus = float(meteor_from_statistics(sums.sum(axis=0)))
    return corpus, segments, sums


def _summable(lines: list[str]) -> np.ndarray:
    """The jar's statistics of pairs, (n, 23): length, and number of function
    words, of candidate and reference; matched content and function words of
    both for each of the four kinds of match; chunks; matched words of both.
    As in the jar, a pair that matches in full, in one chunk, adds no chunk
    (forgotten, a corpus figure comes out 0.0002 too low)."""
    s = np.array([line.split() for line in lines], dtype=float)
    matched = s[:, 4:20].reshape(-1, 4, 2, 2).sum(axis=(1, 2))
    perfect = (matched == s[:, 0:2]).all(axis=1) & (s[:, 20] == 1)
    s[perfect, 20] = 0
    return s


def meteor_from_statistics(statistics: np.ndarray) -> np.ndarray:
    """METEOR 1.5 as in the jar, in [0, 1], shape (...), from `run_meteor`'s
    statistics or sums of them, shape (..., 23)."""
    s = np.asarray(statistics, dtype=float)
    length, function = s[..., 0:2], s[..., 2:4]
    stages = s[..., 4:20].reshape(*s.shape[:-1], 4, 2, 2)
    # Content words count delta, function words 1 - delta.
    worth = np.array([DELTA, 1 - DELTA])
    matches = np.einsum("...kft,k,f->...t", stages, WEIGHTS, worth)
    whole = DELTA * (length - function) + (1 - DELTA) * function
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.moveaxis(matches / whole, -1, 0)
        mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        fragments = s[..., 20] / s[..., 21:23].mean(axis=-1)
        score = mean * (1 - GAMMA * fragments**BETA)
    return np.maximum(np.nan_to_num(score, nan=0.0), 0.0)
