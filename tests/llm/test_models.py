"""Bases made on the spot: tokenizer, shape, saving; where others come from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.llm import models
from llamaxr_utils.llm.prompts import BLANK, SHORT_TEMPLATE

#: Own sentences: nothing here comes from the data set.
SENTENCES = {
    "cardiomegaly": "The heart is big. Both lungs look clear.",
    "effusion": "Some fluid is seen on the left. The heart looks fine.",
    "nodule": "A small round spot lies in the upper zone.",
    "pneumothorax": "Free air is seen beside the right lung.",
    "no finding": "Nothing unusual is seen in this picture.",
    "hernia": "A part of the stomach lies behind the heart.",
}
PROMPTS = {w: SHORT_TEMPLATE.format(input=w) for w in SENTENCES}


def tiny_tokenizer(vocab_size: int = 400):
    return models.train_tokenizer(
        [*SENTENCES.values(), *PROMPTS.values()] * 3, vocab_size)


def tiny_base(folder: Path, seed: int = 1) -> str:
    """`random-llama` with its tokenizer in a folder; its path."""
    tokenizer = tiny_tokenizer()
    model = models.new_llama("random-llama", tokenizer, seed)
    models.save_model(model, tokenizer, folder)
    return str(folder)


@pytest.mark.parametrize("text", [
    *SENTENCES.values(), "",
    "Words it never met: übergroß, 3.5 cm (XXXX) – “quoted”.\n\tNew line",
])
def test_any_text_survives_the_tokenizer_and_fits_behind_a_prompt(text):
    """trl tokenizes prompt and prompt + report; they must fit together."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer(text + "</s>")["input_ids"] == [
        *ids, tokenizer.eos_token_id]
    for prompt in PROMPTS.values():
        both = tokenizer(prompt + text)["input_ids"]
        assert both == tokenizer(prompt)["input_ids"] + ids[1:]


def test_a_tokenizer_without_padding_token_gets_one(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token, tokenizer.padding_side = None, "right"
    tokenizer.save_pretrained(tmp_path)
    loaded = models.load_tokenizer(str(tmp_path))
    assert loaded.pad_token == loaded.eos_token
    assert loaded.padding_side == "left"


def test_where_a_base_is(folders, tmp_path, monkeypatch):
    """Made here, a local copy, the hub; never the working folder."""
    with pytest.raises(CourseError, match="'llama-4'"):
        models.base("llama-4")
    assert models.locate("small-llama", tmp_path) == str(tmp_path)
    source = models.base("llama-3.2-1b").source
    (tmp_path / Path(source).name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert models.locate("llama-3.2-1b") == source
    copy = tmp_path / "data" / "models" / Path(source).name
    copy.mkdir(parents=True)
    assert models.locate("llama-3.2-1b") == str(copy)


def test_what_a_base_reads_before_it_is_tuned():
    """Never more prompts that say nothing than others."""
    texts, effusion = [*SENTENCES.values()], PROMPTS["effusion"]
    studies = pd.DataFrame({
        "study_id": [f"CXR{i}" for i in range(6)], "findings": texts,
        "mesh": [["Cardiomegaly/mild"], ["Pleural Effusion/left"],
                 *[["normal"]] * 4]})
    pairs = models.pretraining_pairs(studies.head(2), ["headings", "names"])
    assert list(pairs["completion"]) == [*texts[:1] * 2, *texts[1:2] * 2]
    assert list(pairs["prompt"]) == [
        "Indexed as cardiomegaly mild.\nReport:\n", PROMPTS["cardiomegaly"],
        "Indexed as pleural effusion left.\nReport:\n", effusion]
    assert set(models.pretraining_pairs(studies, ["bare"])["prompt"]) == {""}
    own = {"scores": dict.fromkeys(studies["study_id"], BLANK)}
    own["scores"]["CXR1"] = effusion
    pairs = models.pretraining_pairs(studies, ["scores"], own)
    assert list(pairs.loc[pairs["prompt"] == effusion, "completion"]) == [
        texts[1]]
    assert len(pairs) == 2
    with pytest.raises(CourseError, match="bare, headings, names, scores"):
        models.pretraining_pairs(studies, ["guesses"], own)
