"""Batched greedy decoding: order, padding, ends; swapped scores."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pandas as pd
import pytest
import torch
from test_models import PROMPTS, SENTENCES, tiny_tokenizer

from llamaxr_utils.llm import finetune, generate, models

ASKED = list(PROMPTS.values())


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A model that learnt one report by heart for each prompt."""
    tokenizer = tiny_tokenizer()
    model = models.new_llama("random-llama", tokenizer, seed=1)
    rows = [(PROMPTS[word], text) for word, text in SENTENCES.items()]
    pairs = pd.DataFrame(rows, columns=["prompt", "completion"])
    finetune.train(
        model,
        tokenizer,
        pairs.assign(split="train"),
        tmp_path_factory.mktemp("training"),
        dict(
            num_train_epochs=60,
            per_device_train_batch_size=2,
            learning_rate=5e-3,
            gradient_checkpointing=False,
            seed=3,
            optim="adamw_torch",
            save_strategy="no",
            logging_steps=100,
            bf16=False,
        ),
    )
    return model, tokenizer


@pytest.fixture
def decoded(writer, monkeypatch):
    """The batches that reach the model, as texts."""
    batches = []
    decode = generate._decode

    def seen(model, tokenizer, texts, *settings):
        batches.append(texts)
        return decode(model, tokenizer, texts, *settings)

    monkeypatch.setattr(generate, "_decode", seen)
    return batches


def write(writer, prompts, **options):
    return generate.generate_reports(*writer, prompts, **options)


# --- rows -------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
def test_each_prompt_gets_its_own_report_in_order(writer, batch_size):
    rng = np.random.default_rng(batch_size)
    order = rng.permutation(len(ASKED))
    made = write(writer, [ASKED[i] for i in order], batch_size=batch_size)
    reports = list(SENTENCES.values())
    assert list(made["generated"]) == [reports[i] for i in order]
    assert list(made.columns) == [
        "generated", "n_tokens", "finished", "seconds",
    ]


def test_one_by_one_writes_what_a_batch_writes(writer):
    """Left padding: a short prompt in a batch with a long one."""
    longer = ASKED[0].replace("cardiomegaly", "cardiomegaly, " * 9)
    prompts = [*ASKED, longer]
    alone = write(writer, prompts, batch_size=1)
    together = write(writer, prompts, batch_size=8)
    columns = ["generated", "n_tokens", "finished"]
    pd.testing.assert_frame_equal(alone[columns], together[columns])


def test_a_4_bit_model_writes_the_same_at_16_as_at_1(writer, tmp_path):
    """float32 sums, LoRA on top, prompts of eighteen lengths."""
    models.save_model(*writer, tmp_path)
    model, tokenizer = finetune.load_in_4bit(str(tmp_path))
    both = finetune.add_lora(model), tokenizer
    asked = [
        prompt.replace("Input:\n", "Input:\n" + "heart " * n)
        for n in range(3)
        for prompt in ASKED
    ]
    alone = write(both, asked, batch_size=1, max_new_tokens=16)
    together = write(both, asked, batch_size=16, max_new_tokens=16)
    assert alone["generated"].nunique() > 3
    columns = ["generated", "n_tokens", "finished"]
    pd.testing.assert_frame_equal(alone[columns], together[columns])


def test_padding_on_the_right_is_put_right(writer):
    """A tokenizer that was left on the right after training."""
    _, tokenizer = writer
    tokenizer.padding_side = "right"
    prompts = [ASKED[0].replace("cardio", "cardio, " * 9), *ASKED]
    made = write(writer, prompts, batch_size=8)
    assert list(made["generated"][1:]) == list(SENTENCES.values())
    assert tokenizer.padding_side == "left"


def test_prompts_are_batched_by_length(writer, decoded):
    long = [p.replace("\n\n", " a b c d e f g\n\n") for p in ASKED[:2]]
    write(writer, [long[0], *ASKED, long[1]], batch_size=2, max_new_tokens=2)
    assert set(decoded[-1]) == set(long)


# --- the end ----------------------------------------------------------------


def test_writing_stops_at_the_end_token(writer):
    _, tokenizer = writer
    made = write(writer, ASKED, max_new_tokens=60)
    assert made["finished"].all()
    lengths = [
        len(tokenizer(text)["input_ids"]) - 1 for text in SENTENCES.values()
    ]
    assert list(made["n_tokens"]) == lengths  # without the end token
    assert not made["generated"].str.contains("</s>|<pad>").any()


def test_a_report_that_was_cut_says_so(writer):
    lengths = write(writer, ASKED)["n_tokens"]
    limit = int(lengths.min())
    made = write(writer, ASKED, max_new_tokens=limit)
    assert not made["finished"].any()  # no room for the end token
    assert (made["n_tokens"] == limit).all()
    made = write(writer, ASKED, max_new_tokens=limit + 1)
    assert list(made["finished"]) == list(lengths == limit)


def test_padding_that_is_the_end_token_does_no_harm(writer):
    """As with the published Llama 3 tokenizers."""
    _, tokenizer = writer
    own = tokenizer.pad_token
    tokenizer.pad_token = tokenizer.eos_token
    try:
        made = write(writer, ASKED, batch_size=8)
    finally:
        tokenizer.pad_token = own
    assert list(made["generated"]) == list(SENTENCES.values())
    assert made["finished"].all()


# --- prompts ----------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt",
    ["findings: effusion", ASKED[0].rstrip("\n"), ASKED[0] + "The", ""],
)
def test_a_prompt_without_its_header_is_refused(writer, decoded, prompt):
    with pytest.raises(ValueError, match='must end with'):
        write(writer, [ASKED[0], prompt])
    assert decoded == []


def test_the_same_prompt_is_decoded_once(writer, decoded):
    prompts = [ASKED[1], ASKED[0], ASKED[1], ASKED[1]]
    made = write(writer, prompts)
    assert sorted(chain(*decoded)) == sorted(set(prompts))
    reports = list(SENTENCES.values())
    assert list(made["generated"]) == [reports[i] for i in (1, 0, 1, 1)]


def test_sampling_decodes_each_one(writer, decoded):
    import torch

    torch.manual_seed(0)
    made = write(
        writer, ASKED[:1] * 6, do_sample=True, temperature=8.0,
        max_new_tokens=6,
    )
    assert len([*chain(*decoded)]) == 6
    assert made["generated"].nunique() > 1


# --- guidance ---------------------------------------------------------------


def test_guidance_leads_away_from_the_other_prompt(writer):
    """What both prompts would write alike is left; what tells them apart
    grows. With a scale near 0 the other prompt's report is written."""
    one, other = ASKED[0], ASKED[1]
    reports = dict(zip(ASKED, SENTENCES.values()))
    made = write(writer, [one], guidance_scale=3.0, against=other)
    assert made["generated"][0] == reports[one]
    made = write(writer, [one], guidance_scale=0.1, against=other)
    assert made["generated"][0] == reports[other]


def test_guidance_does_not_depend_on_the_batch(writer):
    longer = ASKED[0].replace("cardiomegaly", "cardiomegaly, " * 9)
    asked = [*ASKED, longer]
    how = {"guidance_scale": 1.7, "against": ASKED[4]}
    alone = write(writer, asked, batch_size=1, **how)
    together = write(writer, asked, batch_size=8, **how)
    assert list(alone["generated"]) == list(together["generated"])


@pytest.fixture(scope="module")
def untaught():
    """Writes at random: a mistake of decoding shows at once."""
    tokenizer = tiny_tokenizer()
    return models.new_llama("random-llama", tokenizer, seed=5), tokenizer


GUIDED = {"guidance_scale": 2.0, "against": ASKED[-1], "max_new_tokens": 24}


def test_guided_greedy_text_is_that_of_transformers(untaught):
    model, tokenizer = untaught
    other = tokenizer(ASKED[-1], return_tensors="pt")["input_ids"]
    for prompt in ASKED[:3]:
        asked = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(
                **asked, negative_prompt_ids=other, guidance_scale=2.0,
                max_new_tokens=24, do_sample=False, pad_token_id=0,
            )  # fmt: skip
        new = ids[0, asked["input_ids"].shape[1] :]
        text = tokenizer.decode(new, skip_special_tokens=True).strip()
        assert write(untaught, [prompt], **GUIDED)["generated"][0] == text


def test_guided_beams_are_those_of_readings_without_a_cache(
    untaught, monkeypatch
):
    """Beams change places: the second reading has to follow them."""
    made = write(untaught, ASKED, num_beams=4, **GUIDED)

    def logits(self, rows):
        self.start = getattr(self, "start", rows.shape[1])
        other = self.against.expand(len(rows), -1)
        whole = torch.cat([other, rows[:, self.start :]], dim=1)
        return self.model(whole).logits[:, -1]

    monkeypatch.setattr(generate.Guidance, "_logits", logits)
    again = write(untaught, ASKED, num_beams=4, **GUIDED)
    assert list(again["generated"]) == list(made["generated"])
    greedy = write(untaught, ASKED, **GUIDED)
    assert list(greedy["generated"]) != list(made["generated"])


# --- swapped scores ---------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10, 590])
@pytest.mark.parametrize("seed", [0, 1, 3407])
def test_nobody_keeps_the_own_scores_when_swapped(n, seed):
    donors = generate.swap(n, seed)
    assert sorted(donors) == list(range(n))
    assert (donors != np.arange(n)).all()
    assert (donors == generate.swap(n, seed)).all()


def test_one_study_has_nobody_to_swap_with():
    assert list(generate.swap(1, 0)) == [0]
    assert list(generate.swap(0, 0)) == []


# --- the artifact -----------------------------------------------------------


def test_generations_have_their_schema_and_their_references():
    from llamaxr_utils.course.artifacts import ARTIFACTS

    rows = pd.DataFrame(
        {"study_id": ["CXR2", "CXR1"], "completion": ["Two.", "One."]},
        index=[7, 3],
    )
    texts = pd.DataFrame(
        [("two", 1, True, 0.1), ("one", 1, False, 0.1)],
        columns=["generated", "n_tokens", "finished", "seconds"],
    )
    table = generate.as_artifact(
        {("base", "own"): (rows, texts), ("tuned", "shuffled"): (rows, texts)},
        generate.describe_decoding(),
    )
    assert set(table.columns) == set(ARTIFACTS["generations"].columns)
    assert list(table["study_id"]) == ["CXR2", "CXR1"] * 2
    assert list(table["reference"]) == ["Two.", "One."] * 2
    assert list(table["generated"]) == ["two", "one"] * 2
    assert list(table["model"]) == ["base"] * 2 + ["tuned"] * 2
    assert set(table["decoding"]) == {"greedy"}


def test_guidance_is_named_and_off_by_default():
    assert generate.guided(1.0) == {}
    settings = generate.guided(2)
    assert settings["guidance_scale"] == 2.0
    assert "no finding" in settings["against"]
    assert generate.describe_decoding(**settings) == "greedy, guidance 2"
    assert generate.describe_decoding() == "greedy"
    beams = generate.describe_decoding(**generate.guided(2, beams=4))
    assert beams == "4 beams, guidance 2"
    assert generate.guided(1, beams=1) == {}
