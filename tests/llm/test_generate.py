"""Batched greedy decoding: order, padding, ends; guidance; swapped scores."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_finetune import SETTINGS
from test_models import PROMPTS, SENTENCES, tiny_tokenizer

from llamaxr_utils.llm import finetune, generate, models, prompts

ASKED, REPORTS = list(PROMPTS.values()), list(SENTENCES.values())
TEXT = ["generated", "n_tokens", "finished"]


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A model that learnt one report by heart for each prompt."""
    tokenizer = tiny_tokenizer()
    model = models.new_llama("random-llama", tokenizer, seed=1)
    pairs = pd.DataFrame({"prompt": ASKED, "completion": REPORTS})
    log = finetune.train(
        model, tokenizer, pairs.assign(split="train"),
        tmp_path_factory.mktemp("training"),
        SETTINGS | dict(num_train_epochs=60, save_strategy="no")).log
    assert log["loss"].iloc[0] > 2 and log["loss"].iloc[-1] < 0.2
    return model, tokenizer


def write(writer, prompts, **options):
    return generate.generate_reports(*writer, prompts, **options)


@pytest.mark.parametrize(("batch_size", "padding"), [
    (1, models.PAD), (4, models.EOS), (8, models.PAD)])
def test_each_prompt_gets_its_own_report_in_order(writer, batch_size, padding):
    """To its end token, which counts for nothing; also where padding is the
    end token, as with Llama 3, and where it was left on the right."""
    tokenizer = writer[1]
    tokenizer.pad_token, tokenizer.padding_side = padding, "right"
    order = np.random.default_rng(batch_size).permutation(len(ASKED))
    made = write(writer, [ASKED[i] for i in order], batch_size=batch_size)
    assert list(made["generated"]) == [REPORTS[i] for i in order]
    assert list(made.columns) == [*TEXT, "seconds"]
    assert made["finished"].all()
    assert list(made["n_tokens"]) == [
        len(tokenizer(REPORTS[i])["input_ids"]) - 1 for i in order]
    assert tokenizer.padding_side == "left"


def test_a_report_that_was_cut_says_so(writer):
    lengths = write(writer, ASKED)["n_tokens"]
    limit = int(lengths.min())
    made = write(writer, ASKED, max_new_tokens=limit)
    assert not made["finished"].any()  # no room for the end token
    assert (made["n_tokens"] == limit).all()
    made = write(writer, ASKED, max_new_tokens=limit + 1)
    assert list(made["finished"]) == list(lengths == limit)


def test_the_same_prompt_is_decoded_once_but_for_sampling(writer, monkeypatch):
    decoded, decode = [], generate._decode

    def seen(model, tokenizer, texts, *settings):
        decoded.extend(texts)
        return decode(model, tokenizer, texts, *settings)

    monkeypatch.setattr(generate, "_decode", seen)
    prompts = [ASKED[1], ASKED[0], ASKED[1], ASKED[1]]
    made = write(writer, prompts)
    assert sorted(decoded) == sorted(set(prompts))
    assert list(made["generated"]) == [REPORTS[i] for i in (1, 0, 1, 1)]
    assert len(write(writer, [])) == 0
    decoded.clear()
    torch.manual_seed(0)
    made = write(writer, ASKED[:1] * 6, do_sample=True, temperature=8.0,
                 max_new_tokens=6)
    assert len(decoded) == 6
    assert made["generated"].nunique() > 1


@pytest.fixture(scope="module")
def untaught():
    """Writes at random: a mistake of decoding shows at once."""
    tokenizer = tiny_tokenizer()
    return models.new_llama("random-llama", tokenizer, seed=5), tokenizer


def test_guided_greedy_text_is_that_of_transformers(untaught):
    model, tokenizer = untaught
    blank = tokenizer(prompts.BLANK, return_tensors="pt")["input_ids"]
    made = write(untaught, ASKED, guidance_scale=2.0, max_new_tokens=24)
    for prompt, report in zip(ASKED, made["generated"]):
        asked = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(
                **asked, negative_prompt_ids=blank, guidance_scale=2.0,
                max_new_tokens=24, do_sample=False, pad_token_id=0)
        new = tokenizer.decode(ids[0, asked["input_ids"].shape[1] :],
                               skip_special_tokens=True)
        assert report == new.strip()


def test_guided_beams_are_those_of_readings_without_a_cache(untaught,
                                                            monkeypatch):
    """Beams change places: the second reading has to follow them."""
    def texts(beams):
        return list(write(untaught, ASKED, max_new_tokens=24,
                          **generate.guided(2.0, beams))["generated"])

    def logits(self, rows):
        self.start = getattr(self, "start", rows.shape[1])
        blank = self.blank.expand(len(rows), -1)
        whole = torch.cat([blank, rows[:, self.start :]], dim=1)
        return self.model(whole).logits[:, -1]

    made = texts(beams=4)
    assert texts(beams=1) != made
    monkeypatch.setattr(generate.Guidance, "_logits", logits)
    assert texts(beams=4) == made


@pytest.mark.parametrize("n", [0, 1, 2, 3, 590])
@pytest.mark.parametrize("seed", [0, 3407])
def test_nobody_keeps_the_own_scores_when_swapped(n, seed):
    donors = generate.swap(n, seed)
    assert sorted(donors) == list(range(n))
    assert n == 1 or (donors != np.arange(n)).all()
    assert (donors == generate.swap(n, seed)).all()
