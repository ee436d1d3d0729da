"""Intervals and tests against known answers."""

import itertools

import numpy as np
import pytest
import scipy.stats

from llamaxr_utils.evaluation import metrics, stats

RNG = np.random.default_rng(0)
REFERENCES = """the heart is normal in size and the lungs are clear .
there is a small left pleural effusion .
stable cardiomegaly without edema or effusion .
no acute cardiopulmonary abnormality .
mild degenerative changes of the thoracic spine .
calcified granuloma in the right upper lobe .
low lung volumes with atelectasis at both bases .
the aorta is tortuous , the lungs are clear .""".splitlines()
#: Without their last words, and on the other side.
SYSTEM = [text[:-10].replace(" left", " right") for text in REFERENCES]


def test_interval_of_a_mean_is_that_of_scipy():
    values = RNG.exponential(size=300)
    ours = stats.bootstrap_interval(values, n_samples=4000)
    low, high = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile",
        rng=1).confidence_interval
    assert ours["value"] == pytest.approx(values.mean())
    near = 0.06 * (high - low)
    assert ours["low"] == pytest.approx(low, abs=near)
    assert ours["high"] == pytest.approx(high, abs=near)


def test_columns_a_single_study_and_what_cannot_be_used():
    values = RNG.random((50, 3))
    table = stats.bootstrap_interval(values, seed=1)
    one = stats.bootstrap_interval(values[:, 2], seed=1)
    assert one["low"] == pytest.approx(table["low"][2])
    single = stats.bootstrap_interval([0.25])
    assert single["value"] == 0.25
    assert np.isnan([single["low"], single["high"]]).all()
    for wrong in ([], [0.1, np.nan], [[[0.1]]]):
        with pytest.raises(ValueError):
            stats.bootstrap_interval(wrong)
    # Samples without a value do not count: a third misses a rare positive.
    statistics = np.zeros((30, 2))
    statistics[0] = 1
    with np.errstate(invalid="ignore"):
        result = stats.bootstrap_interval(
            statistics, lambda t: t[..., 0] / t[..., 1])
    assert (result["low"], result["high"]) == (1.0, 1.0)


@pytest.mark.parametrize("protocol", ["llamaxr", "r2gen"])
def test_every_metric_of_a_protocol_gets_its_interval(protocol):
    """On drawn studies, repeats among them: sums give the library's figure
    (with Java, METEOR's statistics are held against the jar)."""
    counts = np.array([2, 1, 1, 3, 1, 1, 1, 1])
    drawn = np.repeat(np.arange(8), counts)
    words = {word for text in REFERENCES for word in text.split()}
    scores = metrics.score_reports(
        [REFERENCES[i] for i in drawn], [SYSTEM[i] for i in drawn],
        protocol, words)
    statistics, function, names = stats.metric_statistics(scores)
    assert set(names) == {k for k, v in scores.items() if type(v) is float}
    expected = [scores[name] for name in names]
    first = np.searchsorted(drawn, np.arange(8))
    assert function(counts @ statistics[first]) == pytest.approx(
        expected, abs=1e-6)
    result = stats.bootstrap_interval(statistics, function)
    assert result["value"] == pytest.approx(expected, abs=1e-6)
    assert (result["low"] < result["value"]).all()
    assert (result["value"] < result["high"]).all()


def test_equal_systems_and_a_clear_difference():
    a = RNG.normal(size=400)
    result = stats.paired_randomisation(a, a)
    assert (result["difference"], result["p"]) == (0.0, 1.0)
    result = stats.paired_randomisation(a, a + 1, n_samples=999)
    assert result["difference"] == pytest.approx(-1)
    assert result["p"] == pytest.approx(1 / 1000)
    with pytest.raises(ValueError, match="same studies"):
        stats.paired_randomisation([0.1, 0.2], [0.1])


def test_systems_are_compared_by_corpus_metrics():
    a = metrics.bleu_statistics(REFERENCES, SYSTEM)
    b = metrics.bleu_statistics(REFERENCES, REFERENCES[:1] * 8)
    bleu = metrics.bleu_from_statistics
    result = stats.paired_randomisation(a, b, bleu)
    gap = bleu(a.sum(axis=0)) - bleu(b.sum(axis=0))
    assert result["difference"] == pytest.approx(gap)
    # against all 2 ** 8 swaps
    masks = np.array(list(itertools.product([0, 1], repeat=8)))
    moved = masks @ (a - b)
    all_gaps = bleu(a.sum(axis=0) - moved) - bleu(b.sum(axis=0) + moved)
    exact = np.mean(np.abs(all_gaps) >= np.abs(gap) - 1e-12, axis=0)
    assert result["p"] == pytest.approx(exact, abs=0.03)


def test_holm_by_hand():
    adjusted = stats.holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    adjusted = stats.holm([0.01, np.nan, 0.02])  # one was not run
    assert adjusted == pytest.approx([0.02, np.nan, 0.02], nan_ok=True)
