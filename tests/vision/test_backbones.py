"""Networks by full name: made, trained, saved, and refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from llamaxr_utils.course import artifacts, run
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import downloads
from llamaxr_utils.datasets.conditions import NATIVE_ORDER, by_name
from llamaxr_utils.vision import backbones

SMALL = "densenet-small@phantom"
N = 48


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pictures():
    """Grey squares: bright ones have the first nine conditions."""
    rng = np.random.default_rng(0)
    size = backbones.build(SMALL).resolution
    bright = np.arange(N) % 2
    grey = rng.integers(0, 60, (N, size, size)) + 150 * bright[:, None, None]
    labels = np.zeros((N, 18), int)
    labels[:, :9] = bright[:, None]
    labels[:4, 9:17] = 1  # the last one never occurs
    return grey.astype(np.uint8), labels


@pytest.fixture(scope="module")
def trained(pictures):
    model = backbones.build(SMALL)
    losses = backbones.train(model, *pictures, 8, batch_size=8)
    return model, losses


# --- making -----------------------------------------------------------------


@pytest.mark.parametrize("name", [SMALL, "densenet-small@random"])
def test_the_full_name_and_the_names_of_the_outputs(name):
    model = backbones.build(name)
    assert model.full_name == name
    assert model.pathologies == list(NATIVE_ORDER)
    assert not model.training


def test_the_seed_makes_the_weights():
    import torch

    weights = [
        backbones.build(SMALL, seed).classifier.weight for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_released_architecture_has_the_released_size():
    """6,966,034 parameters, as in torchxrayvision's weight file."""
    model = backbones.build("densenet121@random")
    assert sum(p.numel() for p in model.parameters()) == 6_966_034
    assert model.resolution == 224


def test_an_unknown_backbone_lists_those_there_are():
    with pytest.raises(CourseError) as caught:
        backbones.build("resnet50@phantom")
    assert "densenet-small" in caught.value.why
    assert backbones.RELEASED in caught.value.why


# --- training ---------------------------------------------------------------


def test_training_lowers_the_loss(trained, capsys):
    _, losses = trained
    assert len(losses) == 8
    assert losses[-1] < 0.7 * losses[0]


def test_training_separates_what_can_be_separated(trained, pictures):
    model, _ = trained
    scores = backbones.predict(model, pictures[0])[:, :9].mean(1)
    bright = pictures[1][:, 0].astype(bool)
    assert scores[bright].min() > scores[~bright].max()


def test_the_same_seed_trains_the_same(pictures):
    grey, labels = pictures
    losses = [
        backbones.train(
            backbones.build(SMALL), grey[:16], labels[:16], 1, batch_size=8
        )
        for _ in range(2)
    ]
    assert losses[0] == losses[1]


def test_a_trained_network_is_out_of_training_mode(trained, pictures):
    model, _ = trained
    assert not model.training
    alone = backbones.predict(model, pictures[0][:3])
    among = backbones.predict(model, pictures[0])[:3]
    assert np.allclose(alone, among, atol=1e-5)


def test_scores_are_between_0_and_1_and_batches_do_not_matter(
    trained, pictures
):
    model, _ = trained
    scores = backbones.predict(model, pictures[0])
    assert scores.shape == (N, 18)
    assert scores.min() >= 0
    assert scores.max() <= 1
    small = backbones.predict(model, pictures[0], batch_size=7)
    assert np.allclose(small, scores, atol=1e-5)
    assert backbones.predict(model, pictures[0][:0]).shape == (0, 18)


# --- operating points -------------------------------------------------------


def f1(said, truth):
    return 2 * (said & truth).sum() / max(said.sum() + truth.sum(), 1)


def test_half_is_the_operating_point_of_the_best_f1(trained, pictures):
    """op_norm moves each condition's threshold to 0.5."""
    model, _ = trained
    grey, labels = pictures
    scores = backbones.predict(model, grey) + 1e-6
    for k in range(18):
        truth = labels[:, k].astype(bool)
        if not truth.any():
            continue
        reached = f1(scores[:, k] >= 0.5, truth)
        best = max(f1(scores[:, k] >= t, truth) for t in scores[:, k])
        assert reached == pytest.approx(best), NATIVE_ORDER[k]


@pytest.mark.parametrize("scale", [1.0, 0.004], ids=["usual", "rare"])
def test_operating_points_with_ties_and_small_probabilities(scale):
    rng = np.random.default_rng(5)
    scores = (rng.integers(1, 6, (60, 18)) / 6 * scale).astype(np.float32)
    truth = (rng.random((60, 18)) < scores / scale / 2).astype(int)
    truth[:, 3] = 0
    model = backbones.build(SMALL)
    backbones.set_operating_points(model, scores, truth)
    points = model.op_threshs.numpy()
    assert points[3] == 0.5  # never seen
    for k in set(range(18)) - {3}:
        reached = f1(scores[:, k] >= points[k], truth[:, k].astype(bool))
        best = max(
            f1(scores[:, k] >= t, truth[:, k].astype(bool))
            for t in scores[:, k]
        )
        assert reached == pytest.approx(best)


def test_rescaling_keeps_the_order_and_puts_the_point_at_half(pictures):
    import torch

    model = backbones.build(SMALL)
    plain = backbones.predict(model, pictures[0])
    point = float(np.median(plain[:, 0]))
    model.op_threshs = torch.full((18,), point)
    scaled = backbones.predict(model, pictures[0])[:, 0]
    assert (np.argsort(scaled) == np.argsort(plain[:, 0])).all()
    assert ((scaled >= 0.5) == (plain[:, 0] >= point)).all()


def test_a_random_network_is_not_trained_and_may_be_called_twice(
    pictures, capsys
):
    model = backbones.build("densenet-small@random")
    before = model.classifier.weight.clone()
    assert backbones.train_if_needed(model, *pictures) == []
    first = model.op_threshs.clone()
    backbones.train_if_needed(model, *pictures)  # the cell run again
    assert np.allclose(first, model.op_threshs)
    assert (model.classifier.weight == before).all()
    assert "on purpose" in capsys.readouterr().out


def test_the_released_network_is_left_alone(pictures):
    model = backbones.build(backbones.RELEASED)
    assert backbones.train_if_needed(model, *pictures) == []
    assert model.op_threshs is None


# --- files ------------------------------------------------------------------


def test_a_saved_network_gives_the_same_scores(trained, pictures, tmp_path):
    model, _ = trained
    backbones.save(model, tmp_path / "backbone")
    again = backbones.load(tmp_path / "backbone")
    assert again.full_name == SMALL
    assert again.pathologies == model.pathologies
    assert np.array_equal(
        backbones.predict(again, pictures[0]),
        backbones.predict(model, pictures[0]),
    )
    names = {file.name for file in (tmp_path / "backbone").iterdir()}
    assert names == {"model.safetensors", "backbone.json"}  # no pickle


def test_a_network_without_points_stays_without(tmp_path, pictures):
    model = backbones.build(SMALL)
    backbones.save(model, tmp_path)
    again = backbones.load(tmp_path)
    assert again.op_threshs is None
    assert np.array_equal(
        backbones.predict(again, pictures[0][:4]),
        backbones.predict(model, pictures[0][:4]),
    )


def test_weights_that_lack_a_layer_are_not_taken(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    backbones.save(trained[0], tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["classifier.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"classifier\.weight"):
        backbones.load(tmp_path)


# --- published weights ------------------------------------------------------


class Trap:
    """Code that runs when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def pin(monkeypatch, name, file):
    """Let a file of our own pass for the published one."""
    known = dict(downloads.table())
    digest = artifacts.sha256(file)
    known[name] = known[name]._replace(sha256=digest)
    monkeypatch.setattr(downloads, "table", lambda: known)


def test_a_file_with_another_hash_is_refused_before_it_is_opened(tmp_path):
    sprung = tmp_path / "sprung"
    file = tmp_path / "weights.pt"
    file.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(CourseError) as caught:
        backbones.load_released(file=file)
    assert "was not opened" in caught.value.why
    assert downloads.table()[backbones.RELEASED].url in caught.value.do
    assert not sprung.exists()
    pickle.loads(file.read_bytes())  # the trap is real
    assert sprung.exists()


@pytest.mark.parametrize(
    "name", ["densenet121-res224-nih", "resnet50-res512-all"]
)
def test_without_a_published_hash_no_code_is_let_in(name, tmp_path):
    import torch

    sprung, file = tmp_path / "sprung", tmp_path / "weights.pt"
    torch.save({"state": Trap(sprung)}, file)
    with pytest.raises(CourseError, match="could not be read as weights"):
        backbones.load_released(name, file)
    assert not sprung.exists()


def test_missing_weights_say_where_they_come_from(folders):
    with pytest.raises(CourseError) as caught:
        backbones.make(backbones.RELEASED)
    assert "not on this machine" in caught.value.what
    assert downloads.table()[backbones.RELEASED].url in caught.value.do
    assert "densenet-small@iu-train" in caught.value.do


@pytest.mark.parametrize(
    "name", [backbones.RELEASED, "densenet121-res224-nih"]
)
def test_a_module_of_the_published_form_is_loaded(
    name, tmp_path, monkeypatch, folders
):
    """The real file is not here: a pickled module of the same shape."""
    import torch

    inside = backbones.build("densenet121@random", seed=9)
    file = tmp_path / "weights.pt"
    torch.save(inside, file)
    if name == backbones.RELEASED:
        pin(monkeypatch, name, file)
    model = backbones.load_released(name, file)
    assert model.full_name == name
    assert torch.equal(model.classifier.weight, inside.classifier.weight)
    names, points = downloads.facts(name)
    assert model.pathologies == [n.replace("_", " ") for n in names]
    assert torch.allclose(
        model.op_threshs, torch.tensor(points), equal_nan=True
    )
    grey = np.zeros((2, 224, 224), np.uint8)
    assert backbones.predict(model, grey).shape == (2, 18)
    # Read once, kept as safetensors: the pickle is not opened again.
    file.unlink()
    again = backbones.make(name)
    assert torch.equal(again.classifier.weight, inside.classifier.weight)


def test_weights_are_fetched_from_a_mirror_and_kept_without_code(
    tmp_path, monkeypatch, folders, capsys
):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    import torch

    from llamaxr_utils.__main__ import main

    name, site = backbones.RELEASED, tmp_path / "site"
    site.mkdir()
    inside = backbones.build("densenet121@random", seed=4)
    torch.save(inside, site / downloads.file_name(name))
    serve = partial(SimpleHTTPRequestHandler, directory=site)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", print)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}/"
        assert main(["fetch", name, "--mirror", mirror]) == 1
        error = capsys.readouterr().err
        assert "SHA-256 is not" in error.replace("\n", " ")
        pin(monkeypatch, name, site / downloads.file_name(name))
        assert main(["fetch", name, "--mirror", mirror]) == 0
        server.shutdown()
    kept = run.cache_folder() / "weights" / f"{name}.safetensors"
    assert kept.is_file()
    model = backbones.make(name)
    assert torch.equal(model.classifier.weight, inside.classifier.weight)


def test_weights_from_a_file_are_checked_too(tmp_path, folders, monkeypatch):
    file = tmp_path / "mine.pt"
    file.write_bytes(b"something else")
    with pytest.raises(CourseError, match="not the released file"):
        downloads.fetch(backbones.RELEASED, str(file))
    pin(monkeypatch, backbones.RELEASED, file)
    saved = downloads.fetch(backbones.RELEASED, str(file))
    assert saved.name == downloads.file_name(backbones.RELEASED)
    with pytest.raises(CourseError, match="cannot be fetched"):
        downloads.fetch("densenet169")


def test_a_network_for_one_collection_has_nan_for_what_it_lacks():
    names, _ = downloads.facts("densenet121-res224-rsna")
    named = by_name(np.arange(18.0), names)
    known = {name for name, value in named.items() if not np.isnan(value)}
    assert known == {"Pneumonia", "Lung Opacity"}
    assert named["Pneumonia"] == 8.0  # its place in that network


def test_torchxrayvisions_other_architecture_reads_512_pixels(
    tmp_path, folders
):
    import torch

    name = "resnet50-res512-all"
    inside = backbones.build("resnet50-res512@random", seed=2)
    torch.save(inside.state_dict(), tmp_path / "weights.pt")
    model = backbones.load_released(name, tmp_path / "weights.pt")
    assert model.resolution == 512
    assert backbones.predict(model, np.zeros((1, 512, 512), "u1")).shape == (
        1, 18,
    )  # fmt: skip


def test_the_pinned_hash_is_the_released_files():
    weights = downloads.table()[backbones.RELEASED]
    assert weights.size == 28_382_008
    assert weights.sha256 == (
        "56524913dd16a906422e8d8b66a7a5c46be1d82eb7ac012d8103776f1aa68899"
    )
    assert "nih-pc-chex-mimic_ch-google-openi-kaggle" in weights.url


# --- substitutes ------------------------------------------------------------


@pytest.fixture(params=sorted(downloads.IMAGENET))
def substitute(request, monkeypatch, folders):
    """A network on an ImageNet trunk; the trunk's file is a stand-in of the
    published form: 1,000 classes."""
    import torch
    from torchvision.models import get_model

    name = request.param
    torch.manual_seed(5)
    shape = name.removesuffix("-imagenet").replace("-", "_")
    file = run.data_folder() / "weights" / downloads.file_name(name)
    file.parent.mkdir(parents=True)
    torch.save(get_model(shape, num_classes=1000).state_dict(), file)
    pin(monkeypatch, name, file)
    return backbones.make(f"{name}@iu-train")


def test_an_imagenet_trunk_gets_a_head_of_18(substitute, capsys):
    import torch

    labels = np.zeros((8, 18), int)
    labels[::2, 4] = 1
    grey = np.full((8, 224, 224), 60) + 120 * labels[:, 4, None, None]
    before = {k: v.clone() for k, v in substitute.state_dict().items()}
    losses = backbones.train_if_needed(
        substitute, grey.astype(np.uint8), labels
    )
    assert losses[-1] < losses[0]
    head = backbones.architecture(substitute.full_name).head
    changed = {
        name
        for name, value in substitute.state_dict().items()
        if name in before and not torch.equal(value, before[name])
    }
    assert changed == {f"{head}.weight", f"{head}.bias"}


def test_a_head_alone_separates_what_its_trunk_sees(pictures):
    grey, labels = pictures
    model = backbones.build("densenet-small@random")
    backbones.train_head(model, grey, labels)
    scores = backbones.predict(model, grey)[:, 0]
    bright = labels[:, 0].astype(bool)
    assert scores[bright].min() >= 0.5 > scores[~bright].max()


def test_the_trunk_is_imagenets(substitute):
    import torch

    name = substitute.full_name.partition("@")[0]
    state, own = downloads.state_dict(name), substitute.state_dict()
    same = [key for key in own if torch.equal(own[key], state[key])]
    assert len(own) - len(same) == 2  # the head


def test_imagenets_range_is_its_own():
    """Black is -1024 here and (0 - mean) / std there."""
    import torch

    black = torch.full((1, 1, 2, 2), -1024.0)
    there = backbones._as_imagenet(black)
    assert there.shape == (1, 3, 2, 2)
    assert there[0, 0, 0, 0] == pytest.approx(-0.485 / 0.229)
    white = backbones._as_imagenet(-black)
    assert white[0, 2, 0, 0] == pytest.approx((1 - 0.406) / 0.225)


def test_the_embedding_is_what_the_last_layer_reads():
    import torch

    model = backbones.build("densenet121@random")
    batch = backbones.to_batch(np.full((2, 224, 224), 70, np.uint8))
    embedding = backbones.embed(model, batch)
    assert embedding.shape == (2, 1024)
    with torch.inference_mode():
        again = model.classifier(embedding)
        assert torch.allclose(again, backbones.logits(model, batch))
