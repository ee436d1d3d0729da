"""The base of a run: made and pre-trained on the spot, or published.

The small Llama of the laptop profiles is trained by the same function as
everything else (`training.train`); what it reads is decided in `models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..course import artifacts
from ..course.run import Run, read_record
from . import finetune, models
from .models import load_tokenizer
from .training import Training, train


def make_base(
    nb: Run,
    name: str,
    tokenizer_folder: Path,
    corpus: pd.DataFrame,
    settings: Mapping[str, Any],
) -> tuple[str, Training | None]:
    """Where the base is: made and pre-trained now, or published.

    Parameters
    ----------
    nb : Run
        Of the notebook that writes ``base_model``.
    name : str
        A key of `models.BASES`.
    tokenizer_folder : Path
        Artifact ``tokenizer``.
    corpus : DataFrame
        `models.pretraining_pairs`.
    settings : mapping
        For `train`; the loss is taken on all tokens of the report.

    Returns
    -------
    (str, Training or None)
        What `load_in_4bit` takes; the training, when there was one.
    """
    if not models.made_here(name):
        print(f"{name} is published: no pre-training.")
        return models.locate(name), None
    if _left_by_interrupted_run(nb):
        print("The base of the interrupted run is whole: used again.")
        made = artifacts.path_of(nb.folder, "base_model")
        nb.outputs["base_model"] = made
        return str(made), None
    if nb.knobs.get("BACKEND") == "unsloth":
        finetune._unsloth()  # it wants to be imported before trl
    tokenizer = load_tokenizer(str(tokenizer_folder))
    model = models.new_llama(name, tokenizer, int(settings["seed"]))
    result = train(
        model,
        tokenizer,
        corpus.assign(split="train"),
        nb.folder / "checkpoints-base",
        settings,
    )
    nb.save(
        "base_model",
        lambda folder: models.save_model(model, tokenizer, folder),
        inputs=["studies", "tokenizer"],
    )
    return str(nb.outputs["base_model"]), result


def _left_by_interrupted_run(nb: Run) -> bool:
    """True if ``base_model`` is up to date, was made with these knobs, and
    is not the one that the notebook's last *finished* run recorded."""
    made = artifacts.manifest(nb.folder, "base_model")
    if not made or artifacts.stale_because(nb.folder, "base_model"):
        return False
    finished = read_record(nb.folder, nb.notebook) or {"outputs": {}}
    same = made["parameters"] == {"images": nb.images, **nb.knobs}
    return same and made["sha256"] != finished["outputs"].get("base_model")
