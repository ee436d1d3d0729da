"""Soft tokens: the image reaches the text, and the projector learns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_models import PROMPTS, SENTENCES, tiny_base

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import images
from llamaxr_utils.llm import finetune, generate, soft_tokens
from llamaxr_utils.vision import backbones as networks

pytestmark = pytest.mark.usefixtures("one_thread")

N = 2  # soft tokens a study
ASK = PROMPTS["no finding"]
TEXTS = dict(zip(("CXR1", "CXR2"), SENTENCES.values()))
EMBEDDINGS = pd.DataFrame(
    np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32),
    index=list(TEXTS),
)


def asked(study):
    return soft_tokens.words_of(study, N) + ASK


def fresh(source):
    model, tokenizer = finetune.load_in_4bit(source)
    soft_tokens.install(model, tokenizer, EMBEDDINGS, N)
    return soft_tokens.add_lora(model, rank=8, seed=1), tokenizer


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    """Two studies with the same prompt: only the image tells them apart."""
    model, tokenizer = fresh(source)
    pairs = pd.DataFrame(
        {"prompt": map(asked, TEXTS), "completion": TEXTS.values()}
    )
    settings = dict(
        num_train_epochs=90, per_device_train_batch_size=2,
        learning_rate=1e-2, optim="adamw_torch", save_strategy="no",
        gradient_checkpointing=False, logging_steps=500, seed=3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("training")
    finetune.train(
        model, tokenizer, pairs.assign(split="train"), folder, settings
    )
    return model, tokenizer


def write(model, tokenizer):
    made = generate.generate_reports(
        model, tokenizer, list(map(asked, TEXTS)), max_new_tokens=30
    )
    return list(made["generated"])


def test_each_study_has_its_words_in_front(source):
    _, tokenizer = fresh(source)
    first, second = (tokenizer(asked(s))["input_ids"] for s in TEXTS)
    size = len(tokenizer) - N * len(TEXTS)
    assert first[0] == tokenizer.bos_token_id
    assert first[1:3] == [size, size + 1]
    assert second[1:3] == [size + 2, size + 3]
    assert first[3:] == second[3:] == tokenizer(ASK)["input_ids"][1:]


def test_the_gradient_reaches_projector_and_lora_and_nothing_else(source):
    model, tokenizer = fresh(source)
    batch = tokenizer([asked("CXR1") + " " + ASK], return_tensors="pt")
    labels = batch["input_ids"].clone()
    labels[:, :3] = -100
    model(input_ids=batch["input_ids"], labels=labels).loss.backward()
    moved = [n for n, p in model.named_parameters()
             if p.grad is not None and p.grad.abs().sum() > 0]
    assert any("projector" in name for name in moved)
    assert any("lora_B" in name for name in moved)
    assert all("projector" in n or "lora_" in n for n in moved)


def test_the_text_follows_the_image_alone(trained):
    assert write(*trained) == list(TEXTS.values())


def test_zeroed_embeddings_change_the_text(trained):
    model, tokenizer = trained
    kept = model.get_base_model().image_embeddings.clone()
    soft_tokens.blind(model)
    try:
        first, second = write(model, tokenizer)
    finally:
        model.get_base_model().image_embeddings.copy_(kept)
    assert first == second  # nothing is left to tell them apart
    assert [first, second] != list(TEXTS.values())


def test_the_projector_is_saved_with_the_adapter(trained, source, tmp_path):
    from safetensors import safe_open

    trained[0].save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    with safe_open(str(file), "pt") as opened:
        names = list(opened.keys())
    assert any("projector" in name for name in names)
    assert not any("embed_tokens" in name for name in names)
    turned = EMBEDDINGS.iloc[::-1]  # other ids, the same images
    again = soft_tokens.load(source, tmp_path, turned, N)
    assert write(*again) == list(TEXTS.values())


def test_words_are_installed_once(source):
    model, tokenizer = finetune.load_in_4bit(source)
    soft_tokens.install(model, tokenizer, EMBEDDINGS, N)
    with pytest.raises(CourseError, match="The tokenizer has"):
        soft_tokens.install(model, tokenizer, EMBEDDINGS, N)


def test_the_embedding_of_a_missing_view_is_the_other_ones(monkeypatch):
    backbone = networks.build("densenet-small@random")
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 255, (3, 64, 64)).astype(np.uint8)
    views = pd.DataFrame(
        [("CXR1", "frontal", 0), ("CXR2", "lateral", 1),
         ("CXR1", "lateral", 2)],
        columns=["study_id", "view", "path"],
    )  # fmt: skip
    monkeypatch.setattr(
        images, "read_views",
        lambda some, size: (pictures[some["path"]], some.reset_index()),
    )
    table = soft_tokens.study_embeddings(backbone, views, batch_size=2)
    half = table.shape[1] // 2
    assert list(table.index) == ["CXR1", "CXR2"]
    assert not np.allclose(table.loc["CXR1"][:half], table.loc["CXR1"][half:])
    assert (table.loc["CXR2"].to_numpy()[:half]
            == table.loc["CXR2"].to_numpy()[half:]).all()


def test_images_that_are_not_there_are_an_error():
    backbone = networks.build("densenet-small@random")
    views = pd.DataFrame(
        [("CXR1", "frontal", "nowhere/a.png")],
        columns=["study_id", "view", "path"],
    )
    with pytest.raises(CourseError, match="LLAMAXR_DATA"):
        soft_tokens.study_embeddings(backbone, views)
