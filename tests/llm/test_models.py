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
    texts = [*SENTENCES.values(), *PROMPTS.values()] * 3
    return models.train_tokenizer(texts, vocab_size)


def tiny_base(folder: Path, seed: int = 1) -> str:
    """`random-llama` with its tokenizer in a folder; its path."""
    tokenizer = tiny_tokenizer()
    model = models.new_llama("random-llama", tokenizer, seed)
    models.save_model(model, tokenizer, folder)
    return str(folder)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.mark.parametrize("text", [
    *SENTENCES.values(), "",
    "Words it never met: übergroß, 3.5 cm (XXXX) – “quoted”.\n\tNew line",
])
def test_any_text_survives_the_tokenizer(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer(text + "</s>")["input_ids"] == [
        *ids, tokenizer.eos_token_id]


def test_a_report_is_the_same_tokens_alone_and_behind_its_prompt(tokenizer):
    """trl tokenizes prompt and prompt + report; they must fit together."""
    for word, report in SENTENCES.items():
        prompt = tokenizer(PROMPTS[word])["input_ids"]
        both = tokenizer(PROMPTS[word] + report)["input_ids"]
        assert both == prompt + tokenizer(report)["input_ids"][1:]


def test_a_tokenizer_without_padding_token_gets_one(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(tmp_path)
    loaded = models.load_tokenizer(str(tmp_path))
    assert loaded.pad_token == loaded.eos_token
    assert loaded.padding_side == "left"


def test_where_a_base_is(tmp_path, monkeypatch):
    """Made here, a local copy, the hub; never the working folder."""
    with pytest.raises(CourseError, match="'llama-4'"):
        models.base("llama-4")
    with pytest.raises(CourseError, match="04_finetune_qlora"):
        models.locate("small-llama")
    assert models.locate("small-llama", tmp_path) == str(tmp_path)
    source = models.base("llama-3.2-1b").source
    copy = tmp_path / source.rsplit("/", 1)[1]
    copy.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLAMAXR_MODELS", raising=False)
    assert models.locate("llama-3.2-1b") == source
    monkeypatch.setenv("LLAMAXR_MODELS", str(tmp_path))
    assert models.locate("llama-3.2-1b") == str(copy)


def test_pre_training_pairs_end_with_the_response_header():
    studies = pd.DataFrame({
        "mesh": [["Cardiomegaly/mild"], ["Pleural Effusion/left"]],
        "findings": [*SENTENCES.values()][:2],
    })
    pairs = models.pretraining_pairs(studies, ["headings", "names"])
    assert list(pairs["completion"]) == list(studies["findings"].repeat(2))
    assert pairs["prompt"].str.endswith("### Response:\n").all()
    assert list(pairs["prompt"])[:2] == [
        SHORT_TEMPLATE.format(input="cardiomegaly mild"),
        PROMPTS["cardiomegaly"]]
    bare = models.pretraining_pairs(studies, ["bare"])
    assert set(bare["prompt"]) == {""}


def test_a_base_can_read_prompts_of_ones_own():
    studies = pd.DataFrame({
        "study_id": [f"CXR{i}" for i in range(6)],
        "mesh": [["normal"]] * 6,
        "findings": [f"Report {i}." for i in range(6)],
    })
    own = {"scores": {f"CXR{i}": BLANK for i in range(4)}}
    own["scores"]["CXR1"] = PROMPTS["effusion"]
    pairs = models.pretraining_pairs(studies, ["scores"], own=own)
    told = pairs["prompt"] == PROMPTS["effusion"]
    assert list(pairs.loc[told, "completion"]) == ["Report 1."]
    assert len(pairs) == 2  # as many that say nothing as others
    with pytest.raises(CourseError, match="bare, headings, names, scores"):
        models.pretraining_pairs(studies, ["guesses"], own=own)
