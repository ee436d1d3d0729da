"""What training prompts name, by notebook 03."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import run_cells

from llamaxr_utils.datasets.conditions import CONDITIONS, VIEWS
from llamaxr_utils.evaluation import clinical


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
