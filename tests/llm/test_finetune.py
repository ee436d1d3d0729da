"""Load in 4 bit, wrap, train, stop early, save, reload: on a tiny Llama.

Interrupted trainings are in test_resume, both backends in test_backends.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_models import PROMPTS, SENTENCES

from llamaxr_utils.course import run
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.llm import finetune, generate, models

SETTINGS = dict(
    num_train_epochs=3,
    per_device_train_batch_size=2,
    learning_rate=5e-3,
    gradient_checkpointing=False,
    seed=3,
    optim="adamw_torch",
    logging_steps=1,
    bf16=False,
)
#: Validation reports that contradict the training ones.
OTHER = "Quite other words stand here."


pytestmark = pytest.mark.usefixtures("one_thread")


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
    result = finetune.train(
        model, tokenizer, pairs, folder, {**SETTINGS, **settings}, on,
        patience,
    )
    return model, result


def loss_on(model, tokenizer, pairs, split="val"):
    """Mean loss a completion token, by hand."""
    import torch

    total = count = 0
    model.eval()
    for row in pairs[pairs["split"] == split].itertuples():
        start = len(tokenizer(row.prompt)["input_ids"])
        text = row.prompt + row.completion + tokenizer.eos_token
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(ids).logits[0, start - 1 : -1].float()
        total += torch.nn.functional.cross_entropy(
            logits, ids[0, start:], reduction="sum"
        ).item()
        count += len(ids[0]) - start
    return total / count


def trained_weights(model):
    return {
        name: weight.detach().clone()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def furthest(a, b):
    assert set(a) == set(b)
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture
def spy(monkeypatch):
    """The trainer that `finetune.train` makes."""
    import trl

    seen = []

    class Spy(trl.SFTTrainer):
        def train(self, *args, **kwargs):
            seen.append(self)
            return super().train(*args, **kwargs)

    monkeypatch.setattr(trl, "SFTTrainer", Spy)
    return seen


# --- loading and wrapping ---------------------------------------------------


def test_the_base_lies_in_nf4_with_double_quantisation(base):
    import torch

    model, tokenizer = finetune.load_in_4bit(base)
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == torch.uint8
    assert weight.quant_state.quant_type == "nf4"
    assert weight.quant_state.nested
    assert weight.quant_state.shape.numel() == 2 * weight.numel()
    assert model.lm_head.weight.dtype != torch.uint8
    assert tokenizer.padding_side == "left"


def test_lora_starts_as_the_base(base):
    import torch

    plain, tokenizer = finetune.load_in_4bit(base)
    ids = tokenizer(OTHER, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        before = plain(ids).logits
        wrapped, _ = fresh(base)
        after = wrapped.eval()(ids).logits
    assert torch.allclose(before, after, atol=1e-5)


def test_lora_is_on_the_seven_linear_layers_and_nothing_else_trains(base):
    model, _ = fresh(base)
    names = [n for n, w in model.named_parameters() if w.requires_grad]
    layers = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in names}
    assert layers == set(finetune.LORA_TARGETS)
    assert all("lora_" in name for name in names)
    assert len(names) == 2 * 7 * 2  # A and B, seven layers, two blocks


def test_the_papers_trainable_parameters():
    """Rank 16 on the seven linear layers of Llama 3.1 8B: 41,943,040."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        intermediate_size=14336,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = get_peft_model(
            LlamaForCausalLM(config),
            LoraConfig(
                r=16,
                target_modules=list(finetune.LORA_TARGETS),
                task_type="CAUSAL_LM",
            ),
        )
    trainable, total = finetune.count_parameters(model)
    assert trainable == 41_943_040
    assert total - trainable == 8_030_261_248


def test_a_4_bit_weight_counts_as_its_originals(base):
    model, tokenizer = fresh(base)
    trainable, total = finetune.count_parameters(model)
    plain = models.new_llama("random-llama", tokenizer)
    assert total - trainable == sum(p.numel() for p in plain.parameters())


def test_unsloth_that_does_not_import_says_what_to_do(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    with pytest.raises(CourseError) as caught:
        finetune.load_in_4bit(base, "unsloth")
    assert "unsloth could not be imported" in caught.value.what
    assert 'BACKEND = "peft"' in caught.value.do


def test_a_base_that_is_not_there(tmp_path):
    with pytest.raises(CourseError) as caught:
        finetune.load_in_4bit(str(tmp_path / "nothing"))
    assert "could not be loaded" in caught.value.what


# --- before a step is taken -------------------------------------------------


def test_a_completion_that_would_be_cut_stops_before_training(
    base, pairs, tmp_path, spy
):
    model, tokenizer = fresh(base)
    texts = list(pairs["prompt"] + pairs["completion"])
    longest = max(map(len, tokenizer(texts)["input_ids"])) + 1
    before = trained_weights(model)
    with pytest.raises(CourseError) as caught:
        train(base, pairs, tmp_path, model=(model, tokenizer),
              max_length=longest - 1)
    assert f"at least {longest}" in caught.value.do
    assert spy == []
    assert furthest(before, trained_weights(model)) == 0
    train(base, pairs, tmp_path, model=(model, tokenizer),
          max_length=longest, num_train_epochs=1)
    lengths = [len(row["input_ids"]) for row in spy[0].train_dataset]
    assert max(lengths) <= longest
    assert len(lengths) == len(SENTENCES)


def test_nothing_to_train_on(base, pairs, tmp_path):
    with pytest.raises(CourseError, match="nothing to train on"):
        train(base, pairs.assign(split="test"), tmp_path)


def test_an_unknown_place_of_the_loss_is_no_silent_all(
    base, pairs, tmp_path
):
    with pytest.raises(CourseError, match="LOSS_ON = 'completions'"):
        train(base, pairs, tmp_path, on="completions")


@pytest.mark.parametrize("own_padding", [True, False])
@pytest.mark.parametrize("on", ["completion", "all"])
def test_where_the_loss_is_taken(base, pairs, tmp_path, spy, on, own_padding):
    """On the report and its end token, or on all but the padding."""
    model, tokenizer = fresh(base)
    if not own_padding:  # as the published Llama 3 tokenizers
        tokenizer.pad_token = tokenizer.eos_token
    train(base, pairs, tmp_path, model=(model, tokenizer), on=on,
          num_train_epochs=1, per_device_train_batch_size=6)
    batch = next(iter(spy[0].get_train_dataloader()))
    assert len(batch["labels"]) == len(SENTENCES)
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        kept = labels != -100
        text = tokenizer.decode(ids[kept])
        assert tokenizer.eos_token_id == labels[kept][-1]
        report = text.rsplit("### Response:\n", 1)[-1]
        assert report.removesuffix(tokenizer.eos_token) in SENTENCES.values()
        assert ("### Input:" in text) == (on == "all")
        assert (labels[kept] == tokenizer.eos_token_id).sum() == 1


# --- training ---------------------------------------------------------------


def test_training_learns_the_reports_and_their_end(base, pairs, tmp_path):
    """After some seconds: each prompt gets its own report, to its end."""
    tokenizer = models.load_tokenizer(base)
    model = models.new_llama("random-llama", tokenizer, seed=1)
    _, result = train(
        base, pairs[pairs["split"] == "train"], tmp_path,
        model=(model, tokenizer), num_train_epochs=60, logging_steps=30,
        save_strategy="no",
    )
    losses = result.log["loss"]
    assert losses.iloc[-1] < 0.2
    assert losses.iloc[0] > 2
    made = generate.generate_reports(model, tokenizer, [*PROMPTS.values()])
    assert list(made["generated"]) == [*SENTENCES.values()]
    assert made["finished"].all()


def test_a_step_of_the_papers_size_moves_the_adapter(base, pairs, tmp_path):
    """2e-6 is lost in bfloat16: of LoRA's A hardly a weight would move."""
    import torch

    model, tokenizer = fresh(base)
    before = trained_weights(model)
    train(base, pairs, tmp_path, model=(model, tokenizer), learning_rate=2e-6,
          num_train_epochs=1)
    after = trained_weights(model)
    moved = [(after[n] != before[n]).float().mean() for n in before]
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    assert min(moved) > 0.9


def test_early_stopping_restores_the_best_checkpoint(base, pairs, tmp_path):
    """The validation reports say other words: their loss falls, then
    rises. Training stops, and the model is the one of the lowest point."""
    model, result = train(
        base, pairs, tmp_path / "c", patience=2, num_train_epochs=40
    )
    val = result.log[result.log["split"] == "val"]
    best = val["loss"].idxmin()
    assert val["loss"].iloc[-1] > val["loss"].min() + 0.01  # it has risen
    assert len(val) == list(val.index).index(best) + 1 + 2  # and stopped
    assert result.facts["steps"] == val["step"].iloc[-1] < 120
    assert result.facts["best_checkpoint"] == (
        f"checkpoint-{val.loc[best, 'step']}"
    )
    assert result.facts["best_val_loss"] == pytest.approx(val["loss"].min())
    _, tokenizer = finetune.load_in_4bit(base)
    now = loss_on(model, tokenizer, pairs)
    assert now == pytest.approx(val["loss"].min(), abs=2e-3)
    assert not (tmp_path / "c").exists()


def test_the_log_is_the_artifact(base, pairs, tmp_path):
    from llamaxr_utils.course.artifacts import ARTIFACTS

    _, result = train(base, pairs, tmp_path, patience=2)
    columns = ARTIFACTS["training_log"].columns
    assert tuple(result.log.columns) == columns
    assert list(result.log["step"]) == [1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9]
    assert result.log["loss"].notna().all()
    rates = result.log["learning_rate"].dropna()
    assert rates.is_monotonic_decreasing
    assert rates.max() <= SETTINGS["learning_rate"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("adamw_torch", "torch AdamW, 0 of 28 states in 8 bit"),
        # Weights under 4,096 elements keep 32-bit states, all of LoRA's
        # here.
        ("adamw_8bit", "bitsandbytes AdamW, 0 of 28 states in 8 bit"),
    ],
)
def test_the_optimizer_that_really_ran(base, pairs, tmp_path, asked, says):
    _, result = train(base, pairs, tmp_path, optim=asked, num_train_epochs=1)
    assert result.facts["optimizer"] == says


def test_nothing_is_bfloat16_unless_asked_for(
    base, pairs, tmp_path, spy
):
    """trl's own default is; without AVX512-BF16 it takes 11 times as long."""
    model, tokenizer = fresh(base)
    settings = {k: v for k, v in SETTINGS.items() if k != "bf16"}
    finetune.train(
        model, tokenizer, pairs, tmp_path, settings | {"max_steps": 1}
    )
    assert spy[0].args.bf16 is False
    assert spy[0].args.fp16 is False


def test_progress_is_one_line_a_log(base, pairs, tmp_path, capsys):
    train(base, pairs, tmp_path, patience=2)
    out = capsys.readouterr().out
    assert out.count("train loss") == 9
    assert out.count("val   loss") == 3
    assert "step     9/9" in out
    assert "'loss'" not in out  # the Trainer's own dicts


# --- a base made on the spot ------------------------------------------------


def notebook_04(tokenizer_at):
    """The run of notebook 04, with what it reads."""
    from llamaxr_utils.course import artifacts

    nb = run.start("04_finetune_qlora", "smoke")
    columns = artifacts.ARTIFACTS["studies"].columns
    studies = pd.DataFrame({column: ["x"] for column in columns})
    artifacts.save(nb.folder, "studies", studies, writer="01_explore_data")
    artifacts.save(
        nb.folder,
        "tokenizer",
        lambda folder: shutil.copytree(tokenizer_at, folder),
        writer="03_build_prompts",
    )
    return nb


def test_a_base_is_made_saved_and_then_loads_in_4_bit(base, pairs, folders):
    nb = notebook_04(base)
    corpus = pairs.loc[pairs["split"] == "train", ["prompt", "completion"]]
    made, result = finetune.make_base(
        nb, "random-llama", nb.folder / "tokenizer", corpus,
        {**SETTINGS, "num_train_epochs": 12, "save_strategy": "no"},
    )
    assert result.log["loss"].iloc[-1] < result.log["loss"].iloc[0] - 0.5
    assert Path(made) == nb.load("base_model")
    assert not (nb.folder / "checkpoints-base").exists()
    model, tokenizer = finetune.load_in_4bit(made)
    train_pairs = pairs[pairs["split"] == "train"]
    loss = loss_on(model, tokenizer, train_pairs, "train")
    assert loss < result.log["loss"].iloc[0] - 0.5


def test_a_killed_notebook_does_not_pre_train_again(base, pairs, folders):
    corpus = pairs.loc[pairs["split"] == "train", ["prompt", "completion"]]
    settings = {**SETTINGS, "num_train_epochs": 1, "save_strategy": "no"}

    def result(nb):
        tokenizer = nb.folder / "tokenizer"
        return finetune.make_base(
            nb, "random-llama", tokenizer, corpus, settings
        )[1]

    first = notebook_04(base)
    assert result(first) is not None
    again = run.Run(first.notebook, first.profile, None)
    again.knobs = first.knobs
    assert result(again) is None  # killed before the end: taken up
    other = run.Run(first.notebook, first.profile, None)
    other.knobs = {"PRETRAIN_EPOCHS": 9}
    assert result(other) is not None  # another knob: made anew
    other.finish()
    assert result(other) is not None  # a finished run that is run again


def test_a_published_base_needs_no_pre_training(base, pairs, folders, capsys):
    nb = notebook_04(base)
    source, result = finetune.make_base(
        nb, "smollm2-135m", nb.folder / "tokenizer", pairs, SETTINGS
    )
    assert source == models.base("smollm2-135m").source
    assert result is None
    assert "no pre-training" in capsys.readouterr().out


# --- the adapter elsewhere --------------------------------------------------


def test_a_reloaded_adapter_writes_the_same(base, pairs, tmp_path):
    model, tokenizer = fresh(base)
    prompts = [*PROMPTS.values()]
    untrained = generate.generate_reports(
        model, tokenizer, prompts, max_new_tokens=12
    )
    train(base, pairs, tmp_path / "c", model=(model, tokenizer),
          num_train_epochs=12, learning_rate=2e-2)
    here = generate.generate_reports(
        model, tokenizer, prompts, max_new_tokens=12
    )
    assert list(here["generated"]) != list(untrained["generated"])
    model.save_pretrained(tmp_path / "adapter")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "adapter", elsewhere / "adapter")
    shutil.copytree(base, elsewhere / "base")
    model, tokenizer = finetune.load_adapter(
        str(elsewhere / "base"), elsewhere / "adapter"
    )
    assert not model.training
    again = generate.generate_reports(
        model, tokenizer, prompts, max_new_tokens=12
    )
    assert list(again["generated"]) == list(here["generated"])


def test_the_adapter_folder_is_small_and_holds_no_pickle(base, tmp_path):
    model, _ = fresh(base)
    model.save_pretrained(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    assert "adapter_model.safetensors" in names
    assert not {n for n in names if n.endswith((".bin", ".pt", ".pkl"))}


def saved(base_model, folders, rows="train"):
    """An adapter saved as notebook 04 does; its folder and its card."""
    nb = run.start("04_finetune_qlora", "smoke", change={"ROWS": rows})
    model, _ = fresh(base_model)
    finetune.save_adapter(
        nb, model, "random-llama", {"learning rate": "2e-4"},
        {"best_val_loss": 2.5},
    )
    folder = folders / "smoke" / "adapter"
    return folder, (folder / "README.md").read_text("utf-8")


def test_the_adapter_has_a_model_card(base, folders):
    """Data, licences, settings, metrics, limits; safetensors beside it."""
    folder, card = saved(base, folders)
    assert (folder / "adapter_model.safetensors").is_file()
    assert not list(folder.glob("*.bin"))
    for heading in ("Base", "Data", "Licence", "Settings", "Metrics",
                    "Limits", "Use"):
        assert f"\n## {heading}\n" in card
    for words in (run.WARNING, "CC BY-NC-ND 4.0", "phantom images",
                  "learning rate: 2e-4", "best_val_loss: 2.5",
                  "Built with Llama", "training split"):
        assert words in card
    assert "More Information Needed" not in card
    assert str(base) not in card
    assert "TEST ROWS" not in card


def test_the_card_tells_of_the_leak(base, folders):
    _, card = saved(base, folders, rows="all")
    assert "TEST ROWS INCLUDED" in card
    assert "training split" not in card
