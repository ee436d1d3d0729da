"""Dense conditioning: the image embedding as soft tokens before the prompt.

Each study gets words of its own. Where the language model looks these words
up, a small projector puts the study's image embedding in place of a row of
the table; it is trained together with LoRA and saved with the adapter.
Nothing here is needed for prompts of text, and no image network is trained.

After LLaVA (Liu et al. 2023, arXiv 2304.08485), with one vector an image
instead of a grid of patches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..course.machine import seed_everything
from ..datasets import images
from ..datasets.conditions import VIEWS
from ..vision import backbones
from .finetune import LORA_TARGETS, keep_weights_packed_once, load_in_4bit

#: Name of the module that peft trains and saves with the adapter.
PROJECTOR = "projector"


def study_embeddings(
    backbone: Any, views: pd.DataFrame, batch_size: int = 32
) -> pd.DataFrame:
    """What the image network's last layer reads, for every study.

    Parameters
    ----------
    backbone
        Of `backbones.load`.
    views : DataFrame
        Schema ``views``.
    batch_size : int

    Returns
    -------
    DataFrame
        Index ``study_id``; float32 columns, the frontal view's embedding,
        then the lateral's. A view that is missing takes the other's; a study
        without a readable image has no row.

    Raises
    ------
    CourseError
        If no image can be read.
    """
    import torch

    parts, rows = [], []
    for first in range(0, len(views), batch_size):
        some = views.iloc[first : first + batch_size]
        grey, read = images.read_views(some, backbone.resolution)
        if not len(read):
            continue
        with torch.inference_mode():
            batch = backbones.to_batch(grey)
            parts.append(backbones.embed(backbone, batch).cpu().numpy())
        rows.append(read)
    if not rows:
        raise CourseError(
            "No image could be read.",
            f"The {len(views)} views begin with {views['path'].iloc[0]}.",
            "Set LLAMAXR_DATA to the folder that notebook 01 used.",
        )
    table = pd.DataFrame(np.concatenate(parts))
    key = pd.concat(rows, ignore_index=True)
    views_of = {
        view: table[key["view"] == view].set_axis(
            key.loc[key["view"] == view, "study_id"]
        )
        for view in VIEWS
    }
    studies = key["study_id"].drop_duplicates()
    front, side = (v.reindex(studies) for v in views_of.values())
    both = pd.concat([front.fillna(side), side.fillna(front)], axis=1)
    return both.set_axis(range(both.shape[1]), axis=1).astype(np.float32)


def words_of(study_id: str, n_tokens: int) -> str:
    """The words that stand for a study's image."""
    return "".join(f"<|{study_id}:{i}|>" for i in range(n_tokens))


def install(
    model: Any, tokenizer: Any, embeddings: pd.DataFrame, n_tokens: int
) -> None:
    """Teach a model and its tokenizer the words of these studies, in place.

    Parameters
    ----------
    model
        A causal language model, before `add_lora`.
    tokenizer
        Gets ``n_tokens`` words a study (`words_of`).
    embeddings : DataFrame
        Of `study_embeddings`.
    n_tokens : int
        Soft tokens a study.

    Raises
    ------
    CourseError
        If the tokenizer has more words than the model: these ids would be
        taken for images.
    """
    import torch
    from torch import nn

    table = model.get_input_embeddings()
    size, hidden = table.weight.shape
    if len(tokenizer) != size:
        raise CourseError(
            f"The tokenizer has {len(tokenizer)} words, the model {size}.",
            "Ids from the model's size on stand for images.",
            "Load both anew from one folder, then install once.",
        )
    tokenizer.add_tokens(
        [
            f"<|{study}:{i}|>"
            for study in embeddings.index
            for i in range(n_tokens)
        ],
        special_tokens=True,
    )
    n_features = embeddings.shape[1]
    projector = nn.Sequential(
        nn.LayerNorm(n_features),
        nn.Linear(n_features, hidden),
        nn.GELU(),
        nn.Linear(hidden, n_tokens * hidden),
        nn.Unflatten(-1, (n_tokens, hidden)),
        nn.LayerNorm(hidden),
    )
    # Soft tokens start as long as the words of the table.
    length = table.weight.detach().std().item()
    nn.init.constant_(projector[-1].weight, length)
    model.add_module(PROJECTOR, projector.to(table.weight.device))
    values = torch.tensor(np.array(embeddings, np.float32, order="C"))
    model.register_buffer(
        "image_embeddings", values.to(table.weight.device), persistent=False
    )
    look_up = table.forward

    def forward(ids: Any) -> Any:
        vectors = look_up(ids.clamp(max=size - 1))
        soft = ids >= size
        if not soft.any():
            return vectors
        place = ids[soft] - size
        rows = torch.div(place, n_tokens, rounding_mode="floor")
        seen, which = rows.unique(return_inverse=True)
        # By name: peft puts a wrapper in the projector's place.
        made = getattr(model, PROJECTOR)(model.image_embeddings[seen])
        return vectors.masked_scatter(
            soft[..., None], made[which, place % n_tokens].to(vectors.dtype)
        )

    table.forward = forward


def blind(model: Any) -> None:
    """Set every image embedding to zero: what is the text without them?"""
    base = getattr(model, "get_base_model", lambda: model)()
    base.image_embeddings.zero_()


def add_lora(
    model: Any, rank: int = 16, alpha: int = 16, seed: int = 3407
) -> Any:
    """As `finetune.add_lora`, and the projector is trained too.

    Returns
    -------
    peft.PeftModel
    """
    from peft import LoraConfig, get_peft_model
    from peft import prepare_model_for_kbit_training as prepare

    seed_everything(seed)
    model = prepare(model, use_gradient_checkpointing=False)
    shape: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "bias": "none"}
    config = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=list(LORA_TARGETS),
        modules_to_save=[PROJECTOR],
        **shape,
    )
    return get_peft_model(model, config)


def load(
    source: str, adapter: Path, embeddings: pd.DataFrame, n_tokens: int
) -> tuple[Any, Any]:
    """Base in 4 bit with adapter and projector, for these studies.

    Parameters
    ----------
    source : str
        The base (`models.locate`).
    adapter : Path
        Folder that ``model.save_pretrained`` wrote after `add_lora`.
    embeddings, n_tokens
        As for `install`: of any studies, with as many tokens as in training.

    Returns
    -------
    model, tokenizer
    """
    from peft import PeftModel

    model, tokenizer = load_in_4bit(source)
    install(model, tokenizer, embeddings, n_tokens)
    model = PeftModel.from_pretrained(model, str(adapter))
    keep_weights_packed_once(model)
    return model.eval(), tokenizer
