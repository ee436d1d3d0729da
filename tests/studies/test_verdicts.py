"""Four words with a rule, and the paper's rows that carry them."""

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.studies import audit

NO, GO = "not comparable", "make course PROFILE=paper"
ROW = {"system": "this run", "protocol": "r2gen", "split": "random",
       "images": "real", "n": 590, "metric": "METEOR", "note": ""}


@pytest.mark.parametrize(("numbers", "change", "word", "reason"), [
    ((0.433, 0.43, 0.42, 0.44), {}, "reproduced", "inside"),
    # 0.433 as the paper rounds
    ((0.433, 0.43, 0.4334, 0.44), {}, "reproduced", "inside"),
    ((0.433, 0.43, 0.40, 0.433), {}, "reproduced", "inside"),
    ((0.433, 0.43, 0.4336, 0.44), {}, "differs", "outside"),
    ((0.433, 0.41, 0.40, 0.4325), {}, "differs", "outside"),
    # Not even where the number is the paper's to the last digit.
    ((0.433, 0.433, 0.42, 0.44), {"split": "r2gen"}, NO, "split: random"),
    ((0.433, 0.433, 0.42, 0.44), {"images": "phantom"}, NO, "drawings"),
    ((np.nan, 0.4, 0.3, 0.5), {}, NO, "prints no number"),
    ((0.4, 0.4, None, np.nan), {}, NO, "no interval"),
    # Not run comes first.
    ((0.433, np.nan, None, None), {"images": "phantom"}, "not run", GO),
    ((0.433, None, None, None), {"note": "no Java"}, "not run", "no Java"),
])
def test_the_rule(numbers, change, word, reason):
    paper, value, low, high = numbers
    ours = pd.Series(ROW | {"value": value, "low": low, "high": high} | change)
    verdict, why = audit.verdict(paper, ours, "random", GO)
    assert verdict == word and reason in why


OWN = {"protocol": "llamaxr", "value": 0.336, "low": 0.33, "high": 0.34}


@pytest.mark.parametrize(("paper", "taken", "changes", "word", "reason"), [
    ("CvT-DistilGPT2", None, {}, "reproduced", "0.193"),
    ("CvT-DistilGPT2", None, {"low": 0.195}, "differs", "0.193"),
    ("CvT-DistilGPT2", None, {"n": 100}, NO, "r2gen"),
    ("LLaMA-XR", None, OWN, NO, "no list published"),
    ("LLaMA-XR", "r2gen", OWN, "reproduced", "split to be r2gen"),
    ("LLaMA-XR", "r2gen", {}, "not run", GO),  # protocol r2gen
])
def test_a_run_beside_a_row_of_the_paper(paper, taken, changes, word, reason):
    row = ROW | {"split": "r2gen test", "value": 0.2, "low": 0.19,
                 "high": 0.21} | changes
    table = audit.compare_with_paper(
        pd.DataFrame([row]), paper=paper, paper_split=taken)
    meteor = table.set_index("metric").loc["METEOR"]
    assert meteor["verdict"] == word and reason in meteor["why"]
    gap = meteor["this run"] - meteor["paper"]
    expected = gap if word in ("reproduced", "differs") else np.nan
    assert meteor["difference"] == pytest.approx(expected, nan_ok=True)
    assert set(table["verdict"][:5]) == {"not run"}
