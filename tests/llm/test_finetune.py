"""Load in 4 bit, wrap, compare the loss, train, save, reload: a tiny Llama.

Interrupted trainings are in test_resume, both backends in test_backends.
"""

import shutil
import sys

import pandas as pd
import pytest
import torch
from conftest import cells, run_cells
from test_models import PROMPTS, SENTENCES

from llamaxr_utils.course import run
from llamaxr_utils.course.artifacts import ARTIFACTS
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.llm import finetune, generate, models

SETTINGS = dict(
    num_train_epochs=3, per_device_train_batch_size=2, learning_rate=5e-3,
    gradient_checkpointing=False, seed=3, optim="adamw_torch",
    logging_steps=1)
#: Validation reports that contradict the training ones.
OTHER = "Quite other words stand here."


def make_pairs():
    rows = [("train", PROMPTS[w], text) for w, text in SENTENCES.items()]
    rows += [("val", PROMPTS[w], OTHER) for w in list(SENTENCES)[:3]]
    return pd.DataFrame(rows, columns=["split", "prompt", "completion"])


def fresh(base, rank=16, alpha=16):
    model, tokenizer = finetune.load_in_4bit(base)
    return finetune.add_lora(model, rank, alpha), tokenizer


def train(base, pairs, folder, patience=None, model=None, on="completion",
          **settings):
    model, tokenizer = model or fresh(base)
    result = finetune.train(model, tokenizer, pairs, folder,
                            {**SETTINGS, **settings}, on, patience)
    return model, result


def loss_on(model, tokenizer, pairs, split="val", on="completion"):
    """Mean loss a token of the completion, or of all, by hand."""
    losses = []
    model.eval()
    for row in pairs[pairs["split"] == split].itertuples():
        start = len(tokenizer(row.prompt)["input_ids"])
        start = start if on == "completion" else 1
        text = row.prompt + row.completion + tokenizer.eos_token
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(ids).logits[0, start - 1 : -1].float()
        losses.append(torch.nn.functional.cross_entropy(
            logits, ids[0, start:], reduction="none"))
    return torch.cat(losses).mean().item()


def trained_weights(model):
    return {name: weight.detach().clone() for name, weight
            in model.named_parameters() if weight.requires_grad}


def furthest(a, b):
    assert set(a) == set(b)
    return max((a[name] - b[name]).abs().max().item() for name in a)


def test_the_base_lies_in_nf4_under_seven_pairs_that_change_nothing_yet(base):
    plain, tokenizer = finetune.load_in_4bit(base)
    state = plain.model.layers[0].mlp.up_proj.weight.quant_state
    assert state.quant_type == "nf4" and state.nested
    assert plain.lm_head.weight.dtype != torch.uint8
    switch = "support_avx512bf16_for_cpu"
    assert [vars(part)[switch] for part in plain.modules()
            if hasattr(part, switch)] == [False] * 14
    ids = tokenizer(OTHER, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        before = plain(ids).logits
        wrapped, _ = fresh(base)
        after = wrapped.eval()(ids).logits
    assert torch.allclose(before, after, atol=1e-5)
    # A and B, seven layers, two blocks
    assert len(trained_weights(wrapped)) == 2 * 7 * 2


def test_what_does_not_load_says_what_to_do(base, tmp_path, monkeypatch):
    with pytest.raises(CourseError, match="could not be loaded"):
        finetune.load_in_4bit(str(tmp_path / "nothing"))
    with pytest.raises(CourseError, match="BACKEND = 'sloth' is not known"):
        finetune.load_in_4bit(base, "sloth")
    monkeypatch.setitem(sys.modules, "unsloth", None)
    with pytest.raises(CourseError, match="unsloth could not be imported"):
        finetune.load_in_4bit(base, "unsloth")


def test_a_completion_that_would_be_cut_stops_before_training(base, pairs,
                                                              tmp_path):
    tokenizer = models.load_tokenizer(base)
    texts = list(pairs["prompt"] + pairs["completion"])
    longest = max(map(len, tokenizer(texts)["input_ids"])) + 1
    with pytest.raises(CourseError, match=f"at least {longest}"):
        train(base, pairs, tmp_path, max_length=longest - 1)
    _, result = train(base, pairs, tmp_path, max_length=longest, max_steps=1)
    assert result.facts["steps"] == 1
    with pytest.raises(CourseError, match="LOSS_ON = 'completions'"):
        train(base, pairs, tmp_path, on="completions")


@pytest.mark.parametrize(("on", "own_padding"), [
    ("completion", True), ("completion", False), ("all", False)])
def test_where_the_loss_is_taken(base, pairs, tmp_path, on, own_padding):
    """On the report and its end token, or on all but the padding; in
    float32 (trl's default is bfloat16, slow without AVX512-BF16)."""
    model, tokenizer = fresh(base)
    expected = loss_on(model, tokenizer, pairs, "train", on)
    if not own_padding:  # as the published Llama 3 tokenizers
        tokenizer.pad_token = tokenizer.eos_token
    _, result = train(base, pairs, tmp_path, model=(model, tokenizer), on=on,
                      max_steps=1, per_device_train_batch_size=6)
    assert result.facts["first_batch_loss"] == pytest.approx(expected, 1e-5)


def first_positions(self, model, inputs, *args, **kwargs):
    """The fault that this guard was built after: labels narrowed to the
    columns that have one, paired with the logits of the first positions (as
    unsloth's forward does when it is handed columns to keep)."""
    targets = inputs["labels"][:, 1:]
    columns = (targets != -100).any(dim=0).nonzero()[:, 0]
    narrow = targets[:, columns]
    logits = model(input_ids=inputs["input_ids"]).logits
    flat = logits.flatten(0, 1)[: narrow.numel()]
    return torch.nn.functional.cross_entropy(flat, narrow.flatten())


def first_row_only(self, model, inputs, *args, **kwargs):
    """The right number, but the gradient of one row alone."""
    logits = model(input_ids=inputs["input_ids"]).logits[:, :-1]
    logits = torch.cat([logits[:1], logits[1:].detach()])
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), inputs["labels"][:, 1:].flatten())


def a_little_off(self, model, inputs, *args, **kwargs):
    return 1.02 * model(input_ids=inputs["input_ids"],
                        labels=inputs["labels"]).loss


@pytest.mark.parametrize(("fault", "words"), [
    (first_positions, " of 6 studies"), (first_row_only, " 1 of 6 studies"),
    (a_little_off, " 6 of 6 studies")])
def test_a_wrong_loss_is_refused_before_the_first_step(
    base, pairs, tmp_path, monkeypatch, fault, words
):
    monkeypatch.setattr("trl.SFTTrainer.compute_loss", fault)
    monkeypatch.setattr(
        "torch.optim.AdamW.step", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(CourseError, match="before its first step") as error:
        train(base, pairs, tmp_path, per_device_train_batch_size=6)
    assert words in str(error.value)


def test_other_tokens_than_given_are_refused(base, pairs, tmp_path,
                                             monkeypatch):
    """A tokenizer that puts a second beginning in front, for instance."""
    monkeypatch.setattr(finetune, "completion_lengths", lambda *_: {(0,): 1})
    with pytest.raises(CourseError, match="not a prompt and its report"):
        train(base, pairs, tmp_path)


def test_rows_of_a_batch_with_and_without_padding():
    tokens = torch.arange(8)
    padded = {"input_ids": tokens.view(2, 4), "attention_mask":
              torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]])}
    flat = {"input_ids": tokens[None],
            "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0]])}
    for batch, rows in ((padded, [[1, 2, 3], [4, 5]]),
                        (flat, [[0, 1, 2], [3, 4, 5, 6], [7]])):
        assert [batch["input_ids"][row].tolist()
                for row in finetune.batch_rows(batch)] == rows


def test_a_step_of_the_papers_size_moves_the_adapter(base, pairs, tmp_path):
    """2e-6 is lost in bfloat16: of LoRA's A hardly a weight would move."""
    model = fresh(base)
    before = trained_weights(model[0])
    train(base, pairs, tmp_path, model=model, learning_rate=2e-6,
          num_train_epochs=1)
    after = trained_weights(model[0])
    moved = [(after[n] != before[n]).float().mean() for n in before]
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    assert min(moved) > 0.9


def test_a_reloaded_adapter_writes_the_same(base, pairs, tmp_path):
    model, tokenizer = fresh(base)
    untrained = loss_on(model, tokenizer, pairs)
    train(base, pairs, tmp_path / "c", model=(model, tokenizer),
          num_train_epochs=12, learning_rate=5e-3)
    here = loss_on(model, tokenizer, pairs)
    assert here < untrained - 0.05
    model.save_pretrained(tmp_path / "adapter")
    shutil.copytree(base, tmp_path / "base")
    reloaded = finetune.load_adapter(
        str(tmp_path / "base"), tmp_path / "adapter")
    assert loss_on(*reloaded, pairs) == pytest.approx(here, abs=1e-6)
    one, two = (generate.generate_reports(
        *both, PROMPTS.values(), max_new_tokens=12)["generated"]
        for both in ((model, tokenizer), reloaded))
    assert one.equals(two)


@pytest.mark.parametrize(("rows", "trained"), [("train", [1, 2]),
                                               ("all", [1, 2, 3, 4])])
def test_the_adapter_has_a_model_card(base, folders, rows, trained):
    """Data, licences, settings, metrics, limits; whether it leaks."""
    nb = run.start("04_finetune_qlora", "smoke", change={"ROWS": rows})
    pairs = pd.DataFrame({"study_id": [1, 2, 3, 4],
                          "split": ["train", "train", "val", "test"]})
    cell = run_cells("04-18-2", nb=nb, pairs=pairs, pd=pd)
    chosen = cell["rows"].groupby("split")["study_id"].apply(list)
    assert chosen.to_dict() == {"train": trained, "val": [3]}
    result = finetune.Training(pd.DataFrame(
        columns=ARTIFACTS["training_log"].columns), {"best_val_loss": 2.5})
    run_cells("04-02", "04-30", nb=nb, model=fresh(base)[0], result=result,
              base_name="random-llama", leak=cell["leak"],
              stated=pd.DataFrame({"setting": ["rate"], "this run": ["2e-4"]}))
    card = (folders / "smoke" / "adapter" / "README.md").read_text("utf-8")
    for words in (run.WARNING, "CC BY-NC-ND 4.0", "phantom images",
                  "\n- rate: 2e-4\n", "\n- best_val_loss: 2.5\n",
                  "Built with Llama", "frozen in nf4."):
        assert words in card
    assert str(base) not in card
    assert cells("04")["04-22"].startswith("print(leak or ")  # first of all
    for text in (cell["leak"], card):
        assert ("TEST ROWS INCLUDED" in text) == (rows == "all")
