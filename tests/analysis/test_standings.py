from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaincinv
from scipy.stats import binomtest, friedmanchisquare

from harness.analysis.standings import (
    Case,
    critical_difference,
    friedman,
    holm,
    nemenyi,
    p_of_differences,
    standings,
)

NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
# AUC of four variants of C4.5 on 14 datasets (Demsar 2006, table 6). On the dataset "voting", C4.5+cf and C4.5+m+cf are
# both printed as 0.975, but have the ranks 2 and 3.
AUC = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.975 0.9749
0.957 0.978 0.946 0.970
"""


def single(dataset: str, *values: float, higher: bool = True, **more: object) -> Case:
    """Return a case with one value for each contender."""
    return Case(dataset, tuple({(None, 0): value} for value in values), higher_is_better=higher, **more)  # type: ignore[arg-type]


def test_example_of_demsar() -> None:
    cases = [single(str(n), *map(float, line.split())) for n, line in enumerate(AUC.split("\n")[1:-1])]
    found = standings(cases, NAMES, 0)
    ranks = {one.name: round(one.mean_rank, 3) for one in found.contenders}
    assert ranks == {"C4.5": 3.143, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    assert found.friedman_chi2 == pytest.approx(9.28, abs=0.005)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert found.friedman_p is not None
    assert 0.01 < found.friedman_p < 0.03  # 0.020 by the F distribution with F(3, 39) = 3.69
    assert [one.name for one in found.contenders] == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]


def test_critical_values_of_nemenyi() -> None:
    # Demsar 2006, table 5a: critical values q at 5%
    for k, q in {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 10: 3.164}.items():
        assert nemenyi(k, 1) == pytest.approx(q * math.sqrt(k * (k + 1) / 6), abs=0.004)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("n", [2, 4, 5, 8, 9, 14])
def test_critical_difference_is_exceeded_by_chance_in_at_most_five_percent(k: int, n: int) -> None:
    rng, samples = np.random.default_rng(1), 20_000
    sums = sum(rng.permuted(np.tile(np.arange(k), (samples, 1)), axis=1) for _ in range(n))
    limit = critical_difference(k, n)
    if limit is not None:
        assert (np.ptp(np.asarray(sums), axis=1) / n >= limit - 1e-9).mean() < 0.054  # 0.05 + 2.6 standard errors


def test_two_candidates_need_six_datasets_for_a_significant_difference() -> None:
    assert [critical_difference(2, n) is None for n in range(1, 8)] == [True] * 5 + [False] * 2


@pytest.mark.parametrize("n", [1, 4, 5, 6, 12, 40])
def test_p_of_two_candidates_is_that_of_the_sign_test(n: int) -> None:
    for wins in range(n + 1):
        p = p_of_differences(np.repeat([1.0, -1.0], [wins, n - wins]))
        assert p == pytest.approx(binomtest(wins, n).pvalue, abs=1e-12 if n <= 12 else 0.025)


def test_p_does_not_depend_on_other_candidates() -> None:
    """Two candidates that are best or worst at random do not differ, however many candidates rank between them."""
    rng = np.random.default_rng(0)
    significant = [p_of_differences(rng.choice([-9.0, 9.0], 10)) <= 0.05 for _ in range(500)]
    assert np.mean(significant) < 0.05


def test_p_of_ties_is_one() -> None:
    assert p_of_differences(np.zeros(7)) == p_of_differences(np.zeros(70)) == 1.0


def test_friedman_equals_scipy_without_ties() -> None:
    values = np.random.default_rng(0).normal(size=(30, 5)) + 0.25 * np.arange(5)
    chi2, p = friedman(np.argsort(np.argsort(-values, axis=1), axis=1) + 1.0)
    expected = friedmanchisquare(*values.T)
    assert chi2 == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue, abs=0.02)


def test_friedman_p_of_the_same_order_everywhere_is_exact() -> None:
    chi2, p = friedman(np.array([[1.0, 2.0, 3.0]] * 3))
    assert chi2 == pytest.approx(6.0)
    assert p == pytest.approx(1 / 36, abs=0.008)  # 6 of 6**3 permutations have the same order everywhere


def test_friedman_of_ties_only_has_p_one() -> None:
    assert friedman(np.full((4, 3), 2.0)) == (0.0, 1.0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_ranks_wins_and_ratios_by_hand() -> None:
    cases = [single("x", 1.0, 2.0, 2.0, geometric=True), single("y", 4.0, 2.0, 1.0, geometric=True)]
    found = {one.name: one for one in standings(cases, "abc", 0).contenders}
    assert {name: one.mean_rank for name, one in found.items()} == {"a": 2.0, "b": 1.75, "c": 2.25}
    assert {name: one.win_rate for name, one in found.items()} == {"a": 0.5, "b": 0.625, "c": 0.375}
    assert {name: (one.wins, one.ties, one.losses) for name, one in found.items()} == {
        "a": (2, 0, 2),
        "b": (2, 1, 1),
        "c": (1, 1, 2),
    }
    assert found["b"].ratio == pytest.approx(1.0)
    assert found["c"].ratio == pytest.approx(math.sqrt(0.5))


def test_lower_is_better_inverts_ranks_and_ratios() -> None:
    (first, second) = standings([single("x", 4.0, 1.0, higher=False)], "ab", 0).contenders
    assert (first.name, first.mean_rank, first.ratio) == ("b", 1.0, pytest.approx(4.0))
    assert (second.mean_rank, second.ratio) == (2.0, 1.0)


def test_tied_pairs_share_the_rank_even_if_ties_are_not_transitive() -> None:
    case = single("x", 3.0, 2.0, 1.0, tied=frozenset({(0, 1), (1, 2)}))
    ranks = {one.name: one.mean_rank for one in standings([case], "abc", 0).contenders}
    assert ranks == {"a": 1.5, "b": 2.0, "c": 2.5}


def test_datasets_have_equal_weights() -> None:
    cases = [single("x", 1.0, 2.0)] * 9 + [single("y", 2.0, 1.0)]
    found = standings(cases, "ab", 0)
    assert (found.datasets, found.cases) == (2, 10)
    assert [one.mean_rank for one in found.contenders] == [1.5, 1.5]


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_ratio_is_missing_for_zero_and_negative_values(value: float) -> None:
    for values, missing in (((1.0, value), {"b"}), ((value, 1.0), {"b"})):
        found = standings([single(str(n), *values) for n in range(6)], "ab", 0)
        assert {one.name for one in found.contenders if one.ratio is None} == missing


def test_interval_of_ranks_is_exact_if_one_contender_always_wins() -> None:
    """For values 0 and 1, the interval is that of Clopper and Pearson."""
    for n in (3, 5, 20):
        found = standings([single(str(d), 2.0, 1.0) for d in range(n)], "ab", 0, resamples=20_000)
        best = found.contenders[0]
        assert best.win_rate_low == pytest.approx(float(betaincinv(n, 1, 0.025)), abs=0.02)
        assert best.win_rate_high == 1.0


def test_too_few_datasets_have_no_interval() -> None:
    def missing(n: int) -> tuple[bool, bool]:
        one = standings([single(str(d), 1.0, 2.0 + d) for d in range(n)], "ab", 0).contenders[0]
        return one.mean_rank_low is None, one.ratio_low is None

    assert [missing(n) for n in (1, 2, 3)] == [(True, True), (True, True), (False, False)]


def test_interval_of_ratios_by_hand() -> None:
    """The upper end is that of Student's interval for the logarithms 0, 1, 2 and 1 + (1 + 7 / 2) * 1 = 5.5."""
    (found,) = (
        one
        for one in standings([single(str(d), 1.0, math.exp(d)) for d in range(3)], "ab", 0).contenders
        if one.name == "b"
    )
    end = 2.125 + 3.18245 * np.std([0.0, 1.0, 2.0, 5.5], ddof=1) / 2
    assert found.ratio == pytest.approx(math.e)
    assert found.ratio_high == pytest.approx(math.exp(end), rel=1e-4)
    assert found.ratio_low == pytest.approx(math.exp(2 - end), rel=1e-4)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_interval_of_ratios_contains_the_true_ratio_of_a_skewed_distribution(n: int) -> None:
    """The limit is two standard errors below 93%. `benchmarks/rank_coverage.py` measures the coverage more exactly."""
    rng = np.random.default_rng(0)
    logs = 0.2 * (np.exp(rng.standard_normal((n, 1000))) - math.exp(0.5))
    cases = [single(str(d), 1.0, *np.exp(each), geometric=True) for d, each in enumerate(logs)]
    found = standings(cases, ["base", *map(str, range(1000))], 0, resamples=2).contenders
    ends = [(one.ratio_low, one.ratio_high) for one in found if one.name != "base"]
    assert sum(low <= 1 <= high for low, high in ends if low is not None and high is not None) >= 914


def test_seeds_widen_the_intervals() -> None:
    def width(noise: float) -> float:
        cases = [
            Case(
                str(d),
                (
                    {(None, s): 1.0 + noise * (s - 2) for s in range(5)},
                    {(None, s): 1.3 + 0.05 * d for s in range(5, 10)},
                ),
                higher_is_better=True,
            )
            for d in range(6)
        ]
        best = standings(cases, "ab", 0).contenders[0]
        assert best.mean_rank_low is not None
        assert best.mean_rank_high is not None
        return best.mean_rank_high - best.mean_rank_low

    assert width(0.3) > 1.1 * width(0.0)


def test_overlap_of_folds_widens_the_intervals() -> None:
    def width(overlap: float) -> float:
        rng = np.random.default_rng(0)
        values = [{(fold, 0): 0.8 + rng.normal(0, 0.02) for fold in range(5)} for _ in range(10)]
        cases = [
            Case(str(n), (base, other), higher_is_better=True, overlap=overlap)
            for n, (base, other) in enumerate(zip(values[::2], values[1::2], strict=True))
        ]
        (best, _) = standings(cases, ("a", "b"), 0).contenders
        assert best.mean_rank_high is not None
        assert best.mean_rank_low is not None
        return best.mean_rank_high - best.mean_rank_low

    assert width(0.25) > width(0.0)


def test_equal_contenders_with_equal_seeds_tie_in_every_resample() -> None:
    values = {(None, seed): float(seed) for seed in range(5)}
    cases = [Case(str(d), (values, dict(reversed(values.items()))), higher_is_better=True) for d in range(6)]
    for one in standings(cases, "ab", 0).contenders:
        assert (one.mean_rank, one.ties) == (1.5, 6)
        assert one.ratio in (1.0, None)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda k: st.lists(
            st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1e-300, 1e300]), min_size=k, max_size=k),
            min_size=1,
            max_size=6,
        )
    ),
    st.booleans(),
    st.booleans(),
)
def test_invariants(rows: list[list[float]], higher: bool, geometric: bool) -> None:
    names = "abcd"[: len(rows[0])]
    cases = [single(str(d), *row, higher=higher, geometric=geometric) for d, row in enumerate(rows)]
    found = standings(cases, names, 0, resamples=50)
    k = len(names)
    assert math.fsum(one.mean_rank for one in found.contenders) == pytest.approx(k * (k + 1) / 2)
    assert sum(one.wins for one in found.contenders) == sum(one.losses for one in found.contenders)
    for one in found.contenders:
        assert one.wins + one.ties + one.losses == len(rows) * (k - 1)
        assert one.win_rate == pytest.approx((one.wins + one.ties / 2) / (len(rows) * (k - 1)))
        if one.mean_rank_low is not None and one.mean_rank_high is not None:
            assert 1 <= one.mean_rank_low <= one.mean_rank + 1e-9
            assert one.mean_rank - 1e-9 <= one.mean_rank_high <= k
        assert one.ratio is None or math.isfinite(one.ratio)
