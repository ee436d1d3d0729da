"""Networks by full name: made, trained, saved, and refused."""

import pickle

import numpy as np
import pytest
import torch

from llamaxr_utils.__main__ import main
from llamaxr_utils.course import artifacts, run
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import downloads
from llamaxr_utils.datasets.conditions import NATIVE_ORDER
from llamaxr_utils.vision import backbones

SMALL, EYE = "densenet-small@phantom", "efficientnet-lite0@phantom"


def test_the_full_name_and_the_names_of_the_outputs(monkeypatch):
    model = backbones.build(f"{backbones.RELEASED}@random")
    assert model.pathologies == list(NATIVE_ORDER)
    released = 6_966_034  # parameters of torchxrayvision's weight file
    assert sum(p.numel() for p in model.parameters()) == released
    with pytest.raises(CourseError, match="There is no backbone") as caught:
        backbones.build("resnet50@phantom")
    assert backbones.RELEASED in caught.value.why
    monkeypatch.setattr(backbones, "IMAGENET", "0")
    with pytest.raises(ValueError, match="another file"):
        backbones.build(EYE)


def test_training_separates_what_can_be_separated(model, pictures):
    grey, labels = pictures
    assert model.losses[-1] < 0.7 * model.losses[0]
    scores = backbones.predict(model, grey)
    assert 0 <= scores.min() < scores.max() <= 1
    bright = labels[:, 0].astype(bool)
    mean = scores[:, :9].mean(1)
    assert mean[bright].min() > mean[~bright].max()
    assert np.allclose(backbones.predict(model, grey, 7), scores, atol=1e-5)
    assert backbones.predict(model, grey[:0]).shape == (0, 18)


@pytest.mark.parametrize("name", [SMALL, EYE])
def test_the_same_seed_trains_the_same(pictures, name):
    part = [values[:16] for values in pictures]
    first, again = (backbones.train(backbones.build(name), *part, 1, 8)
                    for _ in range(2))
    assert first == again


def f1(truth, said):
    return 2 * (said & (truth > 0)).sum() / (truth.sum() + said.sum())


def best_f1(scores, truth):
    return max(f1(truth, scores >= t) for t in scores)


def test_half_is_the_operating_point_of_the_best_f1(model, pictures):
    """op_norm moves each condition's threshold to 0.5."""
    scores = backbones.predict(model, pictures[0]) + 1e-6
    for score, truth in zip(scores.T[:17], pictures[1].T):
        assert f1(truth, score >= 0.5) == pytest.approx(best_f1(score, truth))


def test_operating_points_with_ties_and_small_probabilities():
    rng = np.random.default_rng(5)
    scores = (rng.integers(1, 6, (60, 18)) / 1500).astype(np.float32)
    truth = rng.random((60, 18)) < scores * 125
    truth[:, 3] = False
    model = backbones.build(SMALL)
    backbones.set_operating_points(model, scores, truth.astype(int))
    points = model.op_threshs.numpy()
    assert points[3] == 0.5  # never seen
    for k in set(range(18)) - {3}:
        reached = f1(truth[:, k], scores[:, k] >= points[k])
        assert reached == pytest.approx(best_f1(scores[:, k], truth[:, k]))


def test_a_saved_network_gives_the_same_scores(model, pictures, tmp_path):
    from safetensors.torch import load_file, save_file

    for network in (model, *map(backbones.build, (SMALL, EYE))):
        backbones.save(network, tmp_path)
        again = backbones.load(tmp_path)
        assert again.full_name == network.full_name
        scores = backbones.predict(network, pictures[0])
        assert np.array_equal(backbones.predict(again, pictures[0]), scores)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"model.safetensors", "backbone.json"}  # no pickle
    state = load_file(tmp_path / "model.safetensors")
    del state["classifier.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"classifier\.weight"):
        backbones.load(tmp_path)


def test_a_file_with_another_hash_is_refused_before_it_is_opened(tmp_path):
    sprung, file = tmp_path / "sprung", tmp_path / "weights.pt"

    class Trap:
        def __reduce__(self):  # what runs when it is unpickled
            return open, (str(sprung), "w")

    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CourseError) as caught:
        backbones.load_released(file=file)
    assert downloads.FILES[backbones.RELEASED].url in caught.value.do
    assert not sprung.exists()
    pickle.loads(file.read_bytes())  # the trap is real
    assert sprung.exists()


def test_weights_are_kept_without_code(tmp_path, monkeypatch, folders):
    """The real file is not here: a pickled module of its form."""
    from safetensors.torch import save
    from torchxrayvision.datasets import default_pathologies
    from torchxrayvision.models import model_urls

    name = backbones.RELEASED
    file = tmp_path / downloads.file_name(name)
    inside = backbones.build("densenet121@random", seed=4)
    torch.save(inside, file)
    ours = downloads.FILES[name]._replace(sha256=artifacts.sha256(file))
    monkeypatch.setitem(downloads.FILES, name, ours)
    assert main(["fetch", name, "--from", str(file)]) == 0
    kept = run.cache_folder() / "weights"
    assert (kept / f"{name}.safetensors").is_file()
    for bad in (b"", save({"classifier.weight": torch.zeros(18, 5)})):
        (kept / f"{name}.safetensors").write_bytes(bad)  # read anew
        backbones.load_released()
    (kept / file.name).unlink()  # the pickle is not opened again
    for model in (backbones.load_released(), backbones.load_released(file)):
        assert (model.full_name, model.resolution) == (name, 224)
        assert torch.equal(model.classifier.weight, inside.classifier.weight)
        spelled = [n.replace("_", " ") for n in default_pathologies]
        assert model.pathologies == spelled
        points = torch.tensor(model_urls[name]["op_threshs"])
        assert torch.allclose(model.op_threshs, points)
