"""Designs: what may differ between two ways of handing over the scores.

A design says what the base reads, what the adapter is trained on and how
reports are decoded. `run_design` trains and measures one; the rest of this
module makes the rows of numbers that notebook 10 compares.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from ..course import artifacts
from ..datasets import mesh
from ..datasets.conditions import CONDITIONS, VIEWS
from ..datasets.reports import DATA
from ..evaluation import baselines, metrics, stats
from ..evaluation.clinical import named_scores, true_scores
from ..evaluation.findings import label_report
from ..llm import finetune, generate, models, prompts
from .grounding import GAP, all_swaps

NEW_TOKENS = 120
#: How a column of an interval ends.
ENDS = {"": "value", "_low": "low", "_high": "high"}
#: Settings that no design changes: of every training, then of the adapter's.
TRAINER = {"optim": "adamw_torch_fused", "gradient_checkpointing": False,
            "train_sampling_strategy": "group_by_length",
            "max_length": 2048, "logging_steps": 100}
ADAPTER = TRAINER | {
    "per_device_train_batch_size": 16, "per_device_eval_batch_size": 32,
    "lr_scheduler_type": "linear", "warmup_steps": 30, "weight_decay": 0.01,
    "eval_strategy": "steps", "eval_steps": 0.25, "save_strategy": "steps",
    "save_steps": 0.25}


class Design(NamedTuple):
    """What may differ; ``data/designs.yaml`` lists them. The defaults are the
    course's profile ``cpu`` before this comparison."""

    name: str
    about: str  #: what it changes
    score_format: str = "names"  #: `prompts.build_prompt`
    beta: float = 2.0  #: of the operating points (`prompts`)
    #: Whose conditions the *training* prompts name: the network's
    #: (``scores``), the MeSH headings' (``labels``), or those that the
    #: report itself states (``stated``). Test prompts have the scores.
    train_on: str = "scores"
    #: Kinds of `models.pretraining_pairs`; also ``prompts``, this design's
    #: own from the scores, and ``stated``.
    pretrain: str = "headings, names"
    pretrain_epochs: int = 3
    rank: int = 16
    learning_rate: float = 2e-4
    epochs: int = 1
    guidance: float = 1  #: with `beams`, of `generate.guided`
    beams: int = 1


@lru_cache(maxsize=1)
def designs() -> dict[str, Design]:
    """All designs of ``designs.yaml`` by name; each starts from another."""
    table = {"": Design("", "")}
    text = (DATA / "designs.yaml").read_text("utf-8")
    for name, row in yaml.safe_load(text).items():
        start = table[row.pop("as", "")]
        table[name] = start._replace(name=name, **row)
    del table[""]
    return table


class Data(NamedTuple):
    """A finished run, as `load_data` reads it."""

    folder: Path  #: the run
    images: str
    backbone: str
    base_name: str
    studies: pd.DataFrame  #: those of a split; a few may have no scores
    scores: prompts.Scores
    test: pd.DataFrame  #: the test studies, with both views
    neighbours: list[str]  #: their nearest neighbours' reports
    scratch: Path  #: bases, adapters, unfinished work
    base: Path | None  #: folder of the base; None: that of the run's name
    n_train: int  #: training studies an adapter sees (and a quarter as
    #: many for its validation); 0: all


def load_data(folder: Path, scratch: Path, base: Path | None = None,
              n_test: int = 0, n_train: int = 0, seed: int = 3407) -> Data:
    """Studies, scores and nearest neighbours of a run (notebooks 01-03);
    `n_test` and `n_train` are sizes of samples, 0 takes all."""
    table = artifacts.load(folder, "image_scores")
    scores = prompts.by_study(table)
    studies = artifacts.load(folder, "studies").query("split != 'none'")
    whole = table.dropna(subset=list(CONDITIONS)).groupby("study_id").size()
    n_views = studies["study_id"].map(whole).fillna(0)
    test = studies[studies["split"].eq("test") & n_views.eq(len(VIEWS))]
    if n_test:
        test = test.sample(min(n_test, len(test)), random_state=seed)
    train = studies[studies["split"].eq("train") & n_views.gt(0)]
    known, asked = (
        prompts.both_views(scores, list(part["study_id"]))
        for part in (train, test))
    near = baselines.nearest_neighbour(known, list(train["findings"]), asked)
    knobs = {name: (artifacts.manifest(folder, name) or {}).get(
                 "parameters", {}) for name in ("image_scores", "tokenizer")}
    return Data(folder, knobs["image_scores"].get("images", ""),
                table["backbone"].iloc[0], knobs["tokenizer"].get("BASE", ""),
                studies, scores, test, near, scratch, base, n_train)


def points_of(data: Data, beta: float) -> dict[str, float]:
    """Operating points against the training studies' MeSH labels."""
    known = data.studies.query("split == 'train' and status != 'not indexed'")
    truth = pd.DataFrame([mesh.labels(m) for m in known["mesh"]],
                         index=known["study_id"])
    table = prompts.operating_points(data.scores, truth, beta)
    return dict(zip(table["condition"], table["operating_point"]))


# --- what is read -----------------------------------------------------------

def prompts_of(data: Data, design: Design, points: Mapping[str, float],
               source: str = "") -> dict[str, str]:
    """Study -> prompt, from ``source`` (as `Design.train_on`)."""
    source = source or design.train_on
    if source != "scores":  # 0 or 1, also for what the network never names
        points = dict.fromkeys(CONDITIONS, 0.5)
    built = {}
    for row in data.studies.itertuples():
        if source != "scores":
            scores = named_scores(source, row.mesh, row.findings)
        elif row.study_id in data.scores.index:
            scores = data.scores.loc[row.study_id]
        else:
            continue  # no image
        if (design.score_format in prompts.WORDS
                or len(scores.dropna()) == len(VIEWS)):
            # Numbers have no way to say that a view is missing.
            built[row.study_id] = prompts.build_prompt(
                scores, design.score_format, points)
    return built


def training_pairs(data: Data, given: Mapping[str, str],
                   seed: int) -> pd.DataFrame:
    """``split`` (train, val), ``prompt``, ``completion``; `given`: study ->
    prompt."""
    known = [study for study in given if study in data.scores.index]
    table = data.studies[data.studies["study_id"].isin(known)]
    train = table.query("split == 'train'").sample(frac=1, random_state=seed)
    train = train.head(data.n_train or len(train))
    val = table.query("split == 'val'").head(data.n_train // 4 or len(table))
    rows = pd.concat([train, val])
    return pd.DataFrame({
        "split": rows["split"], "prompt": rows["study_id"].map(given),
        "completion": rows["findings"],
    }).reset_index(drop=True)


# --- one design in, one row of numbers out ----------------------------------

def run_design(design: Design, data: Data, seed: int,
               n_samples: int = 1000) -> dict[str, Any]:
    """Train over ``data.base``, generate, measure; one row of numbers.

    Killed and called again, it goes on from its last checkpoint; designs
    that differ in decoding alone share an adapter (its seconds are those of
    the first time). The row has `measure`'s numbers, what training took
    (`adapter_of`) and the mean ``tokens`` of prompt and report.
    """
    points = points_of(data, design.beta)
    base = str(data.base or models.locate(data.base_name))
    given = prompts_of(data, design, points)
    pairs = training_pairs(data, given, seed)
    model, tokenizer, facts = adapter_of(base, data, design, pairs, seed)
    began = time.perf_counter()
    asked = prompts_of(data, design, points, "scores")
    texts = [asked[study] for study in data.test["study_id"]]
    reports = generate.generate_reports(
        model, tokenizer, texts, batch_size=64, max_new_tokens=NEW_TOKENS,
        **generate.guided(design.guidance, design.beams))
    decode_seconds = time.perf_counter() - began
    lengths = prompts.count_tokens(tokenizer, texts)
    return {
        "design": design.name, "images": data.images,
        "backbone": data.backbone, "seed": seed,
        **measure(data, list(reports["generated"]), n_samples),
        "prompt_tokens": lengths.mean(),
        "tokens": (lengths + reports["n_tokens"]).mean(),
        **facts,
        "base_seconds": float("nan"),  # known to who pre-trained the base
        "decode_seconds": decode_seconds,
    }


def key_of(*facts: Any) -> str:
    """A name for what was made from these facts."""
    return hashlib.sha256(repr([*facts]).encode()).hexdigest()[:16]


def adapter_of(base: str, data: Data, design: Design, pairs: pd.DataFrame,
               seed: int) -> tuple[Any, Any, dict[str, float]]:
    """Model with its trained part, tokenizer, and what training took."""
    same = design._replace(name="", about="", guidance=1, beams=1)
    key = key_of(artifacts.sha256(Path(base)), same, seed, pairs.to_csv())
    folder = data.scratch / "trained" / key
    note = folder / "facts.json"
    facts = artifacts.read_json(
        note, val_loss=float, trainable=int, step_seconds=float)
    if facts:
        return *finetune.load_adapter(base, folder), facts
    model, tokenizer = finetune.load_in_4bit(base)
    model = finetune.add_lora(model, design.rank, seed=seed)
    began = time.perf_counter()
    settings = ADAPTER | {
        "num_train_epochs": design.epochs, "seed": seed,
        "learning_rate": design.learning_rate}
    result = finetune.train(model, tokenizer, pairs,
                            data.scratch / "work" / key, settings, patience=2)
    seconds, steps = 60 * result.facts["minutes"], result.facts["steps"]
    facts = {"val_loss": result.facts["best_val_loss"],
             "trainable": model.get_nb_trainable_parameters()[0],
             "step_seconds": seconds / max(steps, 1),
             "train_seconds": time.perf_counter() - began}

    def write(part: Path) -> None:
        model.save_pretrained(part)
        (part / note.name).write_text(json.dumps(facts))

    artifacts.write_whole(folder, write)
    return model, tokenizer, facts


def measure(data: Data, texts: Sequence[str],
            n_samples: int = 1000) -> dict[str, float]:
    """Numbers about the reports of ``data.test`` (`n_samples` bootstraps by
    study): findings F1 and its loss under another study's report
    (`grounding.all_swaps`); r2gen's BLEU-4, ROUGE-L, CIDEr, and the first
    and last minus the nearest neighbour's; ``distinct`` reports;
    ``normal_called`` and ``abnormal_called``: share of the normal studies,
    and of the abnormal ones with one of the 18 conditions, whose report is
    abnormal."""
    truth, texts = list(data.test["findings"]), list(texts)
    tests = {row["measure"]: row
             for row in all_swaps(truth, texts, n_samples)}
    status = data.test["status"].to_numpy()
    has = [any(mesh.labels(m).values()) for m in data.test["mesh"]]
    called = pd.Series(
        [label_report(t).get("No Finding") == "absent" for t in texts])
    ours, nearest = (metrics.score_reports(truth, one, "r2gen", meteor=False)
                     for one in (texts, data.neighbours))
    row: dict[str, float] = {
        "n": len(truth), "f1": tests["findings F1, own"]["value"],
        "f1_shuffled": tests["findings F1, shuffled"]["value"],
        **{f"gap{end}": tests[GAP][which] for end, which in ENDS.items()},
        "bleu4": ours["BLEU-4"], "rouge_l": ours["ROUGE-L"],
        "cider": ours["CIDEr"],
    }
    counts, function, names = stats.metric_statistics(ours)
    over = stats.paired_interval(counts, stats.metric_statistics(nearest)[0],
                                 function, n_samples=n_samples)
    for key, name in (("bleu4", "BLEU-4"), ("cider", "CIDEr")):
        row |= {f"{key}_over_nn{end}": float(over[which][names.index(name)])
                for end, which in ENDS.items()}
    return row | {
        "distinct": len(set(texts)),
        "distinct_abnormal": pd.Series(texts)[status == "abnormal"].nunique(),
        "normal_called": called[status == "normal"].mean(),
        "abnormal_called": called[(status == "abnormal") & has].mean(),
    }


def baseline_rows(data: Data, n_samples: int = 1000) -> pd.DataFrame:
    """The same numbers for writers that learn no language: the nearest
    neighbour, and the template on the same scores and on true labels."""

    def template(scores: list, points: Mapping[str, float]) -> list[str]:
        named = [prompts.names_above(one, points) or [] for one in scores]
        return [baselines.template_report(names) for names in named]

    scores = [data.scores.loc[study] for study in data.test["study_id"]]
    truth = [true_scores(mesh.labels(m)) for m in data.test["mesh"]]
    texts = {
        "nearest neighbour": data.neighbours,
        "template, F1 points": template(scores, points_of(data, 1.0)),
        "template, F2 points": template(scores, points_of(data, 2.0)),
        "template, true labels": template(
            truth, dict.fromkeys(CONDITIONS, 0.5))}
    return pd.DataFrame(
        [{"design": name, "images": data.images,
          "backbone": data.backbone, "seed": 0}
         | measure(data, reports, n_samples)
         for name, reports in texts.items()])
