import math

import keras
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_lottery.masking import kernels
from tf_lottery.masks import Masks
from tf_lottery.pruning import (
    ALLOCATIONS,
    CRITERIA,
    SCHEDULES,
    find_criterion,
    keep_best,
    prune,
)
from tf_lottery.pruning import allocation as allocations
from tf_lottery.pruning import schedule as schedules
from tf_lottery.pruning.rates import rates_by_path

every_allocation = pytest.mark.parametrize("allocation", ALLOCATIONS)

# Few values, so that most weights tie.
tied = st.integers(-2, 2).map(float)
shapes = st.dictionaries(
    st.sampled_from(["a/kernel", "b/kernel", "b_1/kernel", "c/kernel"]),
    hnp.array_shapes(max_dims=3, max_side=5),
    min_size=1,
)
scored = shapes.flatmap(
    lambda shapes: st.fixed_dictionaries(
        {
            path: hnp.arrays(
                "float32", shape, elements=tied | st.floats(-9, 9, width=32)
            )
            for path, shape in shapes.items()
        }
    )
)
densities = st.floats(0.01, 1)


def ones(scores):
    return Masks.ones({path: s.shape for path, s in scores.items()})


def expected(scores, masks, budgets):
    """The same by brute force: sort survivors one by one."""
    kept = {path: mask.copy() for path, mask in masks.items()}
    for group, count in budgets.items():
        alive = [
            (-float(scores[path].flat[i]), path, i)
            for path in group
            for i in np.flatnonzero(masks[path])
        ]
        for _, path, i in sorted(alive)[count:]:
            kept[path].flat[i] = False
    return Masks(kept)


def budgets_of(allocation, masks, density):
    sizes = {path: mask.size for path, mask in masks.items()}
    return ALLOCATIONS[allocation](sizes, lambda size: round(density * size))


# Counts, ties, nesting.


@every_allocation
@given(scores=scored, first=densities, second=densities)
def test_counts_are_exact_ties_are_stable_and_masks_nest(
    allocation, scores, first, second
):
    masks = ones(scores)
    for density in (max(first, second), min(first, second)):
        budgets = budgets_of(allocation, masks, density)
        assume(min(budgets.values()) >= 1)
        pruned = prune(scores, masks, density, allocation)
        assert pruned == expected(scores, masks, budgets)
        assert pruned.kept == sum(budgets.values())
        assert pruned <= masks
        masks = pruned


@every_allocation
@given(scores=scored, density=densities)
def test_the_best_pruned_weight_is_no_better_than_the_worst_kept(
    allocation, scores, density
):
    budgets = budgets_of(allocation, ones(scores), density)
    assume(min(budgets.values()) >= 1)
    masks = prune(scores, ones(scores), density, allocation)
    for group in budgets:
        kept, gone = (
            np.concatenate([scores[p][masks[p] == keep] for p in group])
            for keep in (True, False)
        )
        assert gone.size == 0 or gone.max() <= kept.min()


@every_allocation
@given(scores=scored, density=densities, seed=st.integers(0, 9))
def test_the_same_density_asked_twice_changes_nothing(
    allocation, scores, density, seed
):
    budgets = budgets_of(allocation, ones(scores), density)
    assume(min(budgets.values()) >= 1)
    masks = prune(scores, ones(scores), density, allocation)
    rng = np.random.default_rng(seed)
    other = {path: rng.normal(size=s.shape) for path, s in scores.items()}
    assert prune(other, masks, density, allocation) == masks


@every_allocation
@given(scores=scored)
def test_density_one_prunes_nothing(allocation, scores):
    assert prune(scores, ones(scores), 1, allocation).density == 1


@every_allocation
@given(scores=scored)
def test_arguments_are_not_changed(allocation, scores):
    before = {path: s.copy() for path, s in scores.items()}
    masks = ones(scores)
    digest = masks.digest
    prune(scores, masks, 1 - 1e-9, allocation)
    assert masks.digest == digest
    assert all(np.array_equal(scores[p], before[p]) for p in scores)


# By hand.


@every_allocation
def test_of_equal_weights_the_first_by_path_and_place_stay(allocation):
    scores = {"b": np.ones((2, 3)), "a": np.ones(4)}
    masks = prune(scores, ones(scores), 0.5, allocation)
    kept = {path: mask.ravel().tolist() for path, mask in masks.items()}
    assert kept == {
        "layerwise": {"a": [1, 1, 0, 0], "b": [1, 1, 1, 0, 0, 0]},
        "global": {"a": [1, 1, 1, 1], "b": [1, 0, 0, 0, 0, 0]},
    }.get(allocation, kept)
    assert masks.kept == 5


@every_allocation
def test_99_percent_of_40_weights_leaves_none_to_round_to(allocation):
    scores = {"a": np.arange(40.0)}
    assert prune(scores, ones(scores), 0.025, allocation).counts == {"a": 1}
    with pytest.raises(ValueError, match="No weight of a would be left"):
        prune(scores, ones(scores), 0.01, allocation)


@every_allocation
def test_a_kernel_of_one_weight_keeps_it(allocation):
    scores = {"a": np.array([[0.0]]), "b": np.arange(9.0)}
    masks = prune(scores, ones(scores), 0.6, allocation)
    assert masks.counts == {
        "layerwise": {"a": 1, "b": 5},
        "global": {"a": 0, "b": 6},
    }.get(allocation, masks.counts)
    assert masks.kept == 6


def test_a_large_kernel_takes_from_a_small_one_only_globally():
    scores = {"small": np.array([1.0, 2.0]), "large": np.arange(10.0, 18)}
    counts = {
        name: prune(scores, ones(scores), 0.5, name).counts
        for name in ("layerwise", "global")
    }
    assert counts["layerwise"] == {"large": 4, "small": 1}
    assert counts["global"] == {"large": 5, "small": 0}


def test_two_rounds_nest_while_a_kernel_left_out_stays_whole():
    # 80 % twice is 64 %, counted without the kernel that is left out (K3).
    rng = np.random.default_rng(0)
    scores = {p: rng.normal(size=100) for p in ("a", "b", "head")}
    masks = [ones(scores)]
    for kept in (160, 128):
        masks.append(keep_best(scores, masks[-1], {("a", "b"): kept}))
    assert masks[2] <= masks[1] <= masks[0]
    assert masks[2].counts["head"] == 100
    assert masks[2].counts["a"] + masks[2].counts["b"] == 128
    assert masks[2] != masks[1] != masks[0]


@every_allocation
def test_scores_of_pruned_weights_are_not_looked_at(allocation):
    masks = Masks({"a": [1, 1, 1, 0]})
    scores = {"a": np.array([1.0, 3.0, 2.0, np.nan])}
    assert prune(scores, masks, 0.5, allocation) == Masks({"a": [0, 1, 1, 0]})


@every_allocation
def test_infinite_scores_rank_as_they_should(allocation):
    scores = {"a": np.array([-np.inf, np.inf, 1.0, -2.0])}
    masks = prune(scores, ones(scores), 0.75, allocation)
    assert masks == Masks({"a": [0, 1, 1, 1]})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool", "float16"])
def test_scores_of_any_dtype_rank_by_value(dtype):
    scores = {"a": np.array([0, 1, 0, 1], dtype)}
    assert prune(scores, ones(scores), 0.5) == Masks({"a": [0, 1, 0, 1]})


# What is refused.

SCORES = {"a": np.arange(4.0).reshape(2, 2), "b": np.arange(10.0)}


@every_allocation
@pytest.mark.parametrize("density", [0, -0.5, 1.1, 20, math.nan, math.inf])
def test_a_density_out_of_range_is_refused(allocation, density):
    with pytest.raises(ValueError, match=r"in \(0, 1\]; got .*fraction of wei"):
        prune(SCORES, ones(SCORES), density, allocation)


@every_allocation
def test_a_density_above_the_current_is_refused(allocation):
    masks = prune(SCORES, ones(SCORES), 0.5, allocation)
    with pytest.raises(
        ValueError,
        match="at most the current 0.5 for a.*; got 0.7.* only fall",
    ):
        prune(SCORES, masks, 0.75, allocation)


@every_allocation
def test_nan_among_the_survivors_scores_is_refused(allocation):
    scores = {**SCORES, "b": np.where(np.arange(10) < 3, np.nan, 1)}
    with pytest.raises(ValueError, match="of 'b' hold 3 nan. Did its training"):
        prune(scores, ones(scores), 0.5, allocation)


@every_allocation
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": SCORES["a"]}, "No scores for kernel 'b'; got scores for a."),
        (
            {**SCORES, "a": np.arange(4.0)},
            r"scores of 'a' have shape \(4,\); the kernel has shape \(2, 2\)",
        ),
    ],
)
def test_scores_that_do_not_fit_are_refused(allocation, scores, message):
    with pytest.raises(ValueError, match=message):
        prune(scores, ones(SCORES), 0.5, allocation)


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_of_no_weight_is_refused(budget):
    with pytest.raises(
        ValueError, match=r"No weight of a would be left \(4 of 4 now\)"
    ):
        keep_best(SCORES, ones(SCORES), {("a",): budget})


# Tables: every name selects, and so does the thing itself.


@pytest.mark.parametrize(
    ("find", "table"),
    [
        (allocations.find, ALLOCATIONS),
        (schedules.find, SCHEDULES),
        (find_criterion, CRITERIA),
    ],
)
def test_names_select_and_objects_work(find, table):
    for name, entry in table.items():
        assert find(name) is entry
        assert find(entry) is entry
    first = next(iter(table))
    with pytest.raises(ValueError, match=f"Did you mean '{first}'.*Known: "):
        find(first[:-1])


def test_a_callable_allocation_is_asked_for_budgets():
    def halve_b(sizes, keep):
        assert sizes == {"a": 4, "b": 10}
        assert keep(10) == 3
        return {("b",): 5}

    masks = prune(SCORES, ones(SCORES), 0.3, halve_b)
    assert masks.counts == {"a": 4, "b": 5}


@every_allocation
@given(
    st.dictionaries(st.text(max_size=3), st.integers(1, 500), min_size=1),
    densities,
)
def test_allocations_share_the_whole_budget(allocation, sizes, density):
    budgets = ALLOCATIONS[allocation](sizes, lambda n: round(density * n))
    grouped = [path for group in budgets for path in group]
    assert sorted(grouped) == sorted(sizes)
    total = density * sum(sizes.values())
    assert abs(sum(budgets.values()) - total) <= 0.5 * len(budgets) + 1e-9


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_scores_every_weight(name):
    rng = np.random.default_rng(0)
    shapes = {"conv/kernel": (3, 3, 2, 4), "dense/kernel": (5, 1)}
    trained, origin = (
        {
            path: rng.normal(size=s).astype("float32")
            for path, s in shapes.items()
        }
        for _ in range(2)
    )
    before = {path: k.copy() for path, k in trained.items()}
    scores = CRITERIA[name](trained, origin)
    assert {path: s.shape for path, s in scores.items()} == shapes
    assert all(np.isfinite(s).all() for s in scores.values())
    assert all(np.array_equal(trained[p], before[p]) for p in shapes)
    assert prune(scores, ones(trained), 0.5).kept == 38


def test_magnitude_keeps_a_large_negative_weight():
    trained = {"k": np.array([-3.0, 1.0, 0.0, 2.0])}
    scores = CRITERIA["magnitude"](trained, {"k": np.zeros(4)})
    assert scores["k"].tolist() == [3, 1, 0, 2]
    assert prune(scores, ones(trained), 0.5) == Masks({"k": [1, 0, 0, 1]})


# Schedules (K23).

LENET = {784 * 300: 0.2, 300 * 100: 0.2, 100 * 10: 0.1}
# Paper reference 2.8: weights left of LeNet-300-100, level by level.
LENET_LEFT = [266_200, 213_060, 170_538, 136_511, 109_282, 87_490, 70_051]
LENET_LEFT += [56_094, 44_923, 35_981, 28_823, 23_093, 18_506, 14_834, 11_893]
LENET_LEFT += [9_537, 7_650, 6_139, 4_928, 3_958, 3_179, 2_556]


@pytest.mark.parametrize("name", SCHEDULES)
def test_lenet_has_the_papers_weights_left_at_every_level(name):
    kept = SCHEDULES[name].kept
    assert [
        sum(kept(size, rate, level) for size, rate in LENET.items())
        for level in range(22)
    ] == LENET_LEFT


@pytest.mark.parametrize("name", SCHEDULES)
@given(size=st.integers(1, 10**7), rate=st.floats(0, 0.99))
def test_schedules_start_dense_and_only_fall(name, size, rate):
    counts = [SCHEDULES[name].kept(size, rate, level) for level in range(6)]
    assert counts[0] == size
    assert counts == sorted(counts, reverse=True)
    assert all(isinstance(count, int) for count in counts)


@pytest.mark.parametrize(
    ("size", "rate", "counts"),
    [
        (1000, 0.1, [1000, 900, 810, 729, 656]),
        (10, 0.5, [10, 5, 3, 1, 1]),  # halves to even: 2.5 -> 2, 1.5 -> 2
        (7, 0.0, [7, 7, 7, 7, 7]),
        (1, 0.2, [1, 1, 1, 1, 1]),
    ],
)
def test_geometric_rounds_by_hand(size, rate, counts):
    geometric = SCHEDULES["geometric"].kept
    assert [geometric(size, rate, level) for level in range(5)] == counts


def test_only_one_shot_scores_every_level_by_the_dense_network():
    assert not SCHEDULES["geometric"].from_dense
    assert SCHEDULES["one_shot"].from_dense


# Rates.


@pytest.fixture(scope="module")
def network():
    L = keras.layers  # noqa: N806
    return kernels(
        keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                L.Conv2D(2, 3, name="conv_a"),
                L.Conv2D(2, 3, name="conv_b"),
                L.Flatten(),
                L.Dense(4, name="fc"),
                L.Dense(3, name="top"),
            ]
        )
    )


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        (None, [0.2, 0.2, 0.2, 0.2]),
        ({}, [0.2, 0.2, 0.2, 0.2]),
        ({"output": 0.1}, [0.2, 0.2, 0.2, 0.1]),
        ({"conv": 0.15, "output": 0.1}, [0.15, 0.15, 0.2, 0.1]),
        ({"dense": 0.3}, [0.2, 0.2, 0.3, 0.2]),
        ({"conv_b/*": 0.0}, [0.2, 0.0, 0.2, 0.2]),
        ({"fc/kernel": 0.5}, [0.2, 0.2, 0.5, 0.2]),
        ({"*": 0.4}, [0.4, 0.4, 0.4, 0.4]),
        # A later entry overrules an earlier one.
        ({"conv": 0.1, "conv_a/*": 0.3}, [0.3, 0.1, 0.2, 0.2]),
        ({"conv_a/*": 0.3, "conv": 0.1}, [0.1, 0.1, 0.2, 0.2]),
        ({"output": 0.1, "*": 0.4}, [0.4, 0.4, 0.4, 0.4]),
    ],
)
def test_rates_by_role_by_pattern_and_by_precedence(network, rates, found):
    by_path = rates_by_path(network, 0.2, rates)
    assert list(by_path) == list(network)
    assert list(by_path.values()) == found


@pytest.mark.parametrize(
    ("rate", "rates", "message"),
    [
        (1, None, r"`rate` must be in \[0, 1\); got 1. It is the fraction"),
        (-0.1, None, "got -0.1"),
        (math.nan, None, "got nan"),
        (20, None, "such as 0.2"),
        (0.2, {"output": 1.0}, r"`rates\['output'\]` must be in"),
        (0.2, {"ouput": 0.1}, "'ouput' matches no kernel"),
        (0.2, {"fcc/kernel": 0.1}, "Did you mean 'fc/kernel'"),
    ],
)
def test_rates_out_of_range_or_of_nothing_are_refused(
    network, rate, rates, message
):
    with pytest.raises(ValueError, match=message):
        rates_by_path(network, rate, rates)
