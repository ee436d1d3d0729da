"""ARTIFACT.md names only what is there; croissant.json describes the files."""

import re
import shlex
from pathlib import Path

import mlcroissant
import pandas as pd
import pytest

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course.artifacts import sha256
from llamaxr_utils.datasets import downloads, reports

ROOT = Path(__file__).parents[1]
APPENDIX = (ROOT / "ARTIFACT.md").read_text("utf-8")
#: Code and links.
NAMED = sorted(set(re.findall(r"(?:`|\]\(|\]: )([^`)\n]+)[`)\n]", APPENDIX)))
PATH = r"(tests|figures|notebooks|llamaxr_utils)/|[\w-]+\.(md|json|txt|yml)$"


@pytest.fixture(scope="module")
def described():
    return mlcroissant.Dataset(ROOT / "croissant.json")


def test_the_split_list_is_read_as_described(described):
    assert not described.metadata.ctx.issues.errors
    rows = pd.DataFrame(described.records("r2gen-split")).map(bytes.decode)
    rows.columns = rows.columns.str.removeprefix("r2gen-split/")
    assert (rows["split"] == "test").sum() == 590 and len(rows) == 2955
    pd.testing.assert_frame_equal(rows, reports.r2gen_split())


def test_hashes_and_addresses_are_those_of_the_kit(described):
    files = {node.name: node for node in described.metadata.distribution}
    for path in (reports.DATA / "r2gen_split.csv", reports.bundled_archive()):
        assert files[path.name].sha256 == sha256(path)
        assert files[path.name].content_size == f"{path.stat().st_size} B"
    archive = files[downloads.ARCHIVE].content_url
    assert archive == f"{downloads.OPENI}/{downloads.ARCHIVE}"


@pytest.mark.parametrize("span", NAMED)
def test_what_the_appendix_names_is_there(span):
    words = shlex.split(span)
    for path in filter(re.compile(PATH).match, words):
        assert (ROOT / path).exists(), path
    if "-k" in words:  # at least one test is chosen
        tests = (ROOT / words[0]).read_text("utf-8")
        assert re.search(rf"def test_\w*{words[-1]}", tests)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        for word in words[1:]:
            name, value, _ = word.partition("=")
            name += r" \?=" if value else ":"
            assert re.search(f"^{name}", makefile, re.MULTILINE), word
    if "llamaxr_utils" in words:
        commands._parser().parse_args(words[words.index("-m") + 2 :])
