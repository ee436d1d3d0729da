"""Findings as they are counted, and what training prompts name."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import run_cells

from llamaxr_utils.datasets import conditions
from llamaxr_utils.datasets.conditions import CONDITIONS, FINDING_OF, VIEWS
from llamaxr_utils.evaluation import baselines, clinical
from llamaxr_utils.evaluation.findings import FINDINGS


def test_every_condition_has_a_finding_that_its_sentence_states():
    assert set(FINDING_OF) == set(CONDITIONS)
    assert len(conditions.CONDITION_FINDINGS) == 15
    assert set(conditions.NAMED_BY) <= set(FINDINGS[1:])
    for condition, sentence in baselines.SENTENCES.items():
        assert FINDING_OF[condition] in clinical.present(sentence)


@pytest.mark.parametrize(("train_on", "named"), [
    ("scores", set()), ("labels", {"Cardiomegaly"}), ("stated", {"Effusion"})])
def test_training_prompts_name_what_was_asked_for(train_on, named):
    studies = pd.DataFrame({  # one whose report and headings disagree
        "study_id": ["CXR1", "CXR2"],
        "split": ["train", "test"],
        "mesh": [["Cardiomegaly/mild"], ["normal"]],
        "findings": ["There is a small left pleural effusion.", "Clear."],
    })
    both = pd.MultiIndex.from_product([studies["study_id"], VIEWS])
    scores = pd.DataFrame(0.5, both, CONDITIONS)
    space = run_cells("03-22f", pd=pd, clinical=clinical)
    given = space["training_scores"](train_on, studies, scores)
    lateral = given.loc["CXR1", "lateral"]
    assert {*lateral.index[lateral == 1]} == named
    assert (given.loc["CXR2"] == 0.5).all(axis=None)  # test: from the image
    assert (scores == 0.5).all(axis=None)  # not changed
