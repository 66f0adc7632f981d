import math

import keras
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_lottery.core.masks import Masks
from tf_lottery.masking import kernels
from tf_lottery.pruning import (
    ALLOCATIONS,
    CRITERIA,
    SCHEDULES,
    Random,
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
    return ALLOCATIONS[allocation](
        sizes, lambda size: round(density * size), masks
    )


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
        (allocations.get, ALLOCATIONS),
        (schedules.get, SCHEDULES),
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
    def halve_b(sizes, keep, masks):
        assert sizes == {"a": 4, "b": 10}
        assert keep(10) == 3
        assert masks == ones(SCORES)
        return {("b",): 5}

    masks = prune(SCORES, ones(SCORES), 0.3, halve_b)
    assert masks.counts == {"a": 4, "b": 5}


# Allocations.

paths = st.text("abcdef", min_size=1, max_size=2)


@every_allocation
@given(
    st.dictionaries(paths, hnp.array_shapes(max_side=8), min_size=1), densities
)
def test_allocations_share_the_whole_budget(allocation, shapes, density):
    masks = Masks.ones(shapes)
    assume(round(density * masks.size) >= len(shapes))
    budgets = budgets_of(allocation, masks, density)
    grouped = [path for group in budgets for path in group]
    assert sorted(grouped) == sorted(shapes)
    total = density * masks.size
    assert abs(sum(budgets.values()) - total) <= 0.5 * len(budgets) + 1e-9


PROPORTIONAL = {"evenly": math.prod, "erk": sum}
"""Allocation to what of a shape its counts are proportional to."""

proportional = pytest.mark.parametrize("allocation", PROPORTIONAL)

# Kernels of which anything from nothing to all survives.
pruned_kernels = st.dictionaries(
    paths,
    hnp.arrays(bool, hnp.array_shapes(max_dims=4, max_side=6)),
    min_size=1,
    max_size=6,
).filter(lambda masks: any(mask.any() for mask in masks.values()))


@proportional
@given(masks=pruned_kernels.map(Masks), data=st.data())
def test_shares_are_proportional_within_what_survives(allocation, masks, data):
    caps = {path: count for path, count in masks.counts.items() if count}
    total = data.draw(st.integers(len(caps), masks.kept))
    sizes = {path: mask.size for path, mask in masks.items()}
    budgets = ALLOCATIONS[allocation](sizes, lambda _: total, masks)
    counts = {path: count for (path,), count in budgets.items()}
    assert counts.keys() == caps.keys()
    assert sum(counts.values()) == total
    assert all(1 <= counts[path] <= caps[path] for path in caps)
    # One scale explains every count, give or take the rounding of less than
    # one weight: what is below its cap is not poorer than what is above one.
    share = PROPORTIONAL[allocation]
    least = [
        (count - 1) / share(masks[path].shape)
        for path, count in counts.items()
        if count > 1
    ]
    most = [
        (count + 1) / share(masks[path].shape)
        for path, count in counts.items()
        if count < caps[path]
    ]
    assert not least or not most or max(least) < min(most)
    # And masks of that many weights there are.
    scores = {path: np.zeros(mask.shape) for path, mask in masks.items()}
    pruned = keep_best(scores, masks, budgets)
    assert pruned <= masks
    assert pruned.kept == total


@proportional
@given(
    shapes=st.dictionaries(paths, hnp.array_shapes(max_side=6), min_size=1),
    rate=st.floats(0.05, 0.6),
)
def test_level_after_level_masks_nest_at_the_exact_total(
    allocation, shapes, rate
):
    masks = Masks.ones(shapes)
    rng = np.random.default_rng(0)
    for level in range(1, 6):
        kept = SCHEDULES["geometric"].kept(masks.size, rate, level)
        if kept < len(shapes):
            break
        scores = {p: rng.normal(size=m.shape) for p, m in masks.items()}
        before = masks
        masks = prune(scores, masks, kept / masks.size, allocation)
        assert masks <= before
        assert masks.kept == kept


# LeNet-300-100: dimensions add up to 1084, 400 and 110, in all 1594.
LENET_SHAPES = {"fc1": (784, 300), "fc2": (300, 100), "output": (100, 10)}


@pytest.mark.parametrize(
    ("allocation", "density", "counts"),
    [
        # 2,662 = 1.67 * 1594: 1810.3, 668.0 and 183.7.
        ("erk", 0.01, {"fc1": 1810, "fc2": 668, "output": 184}),
        # 26,620 = 16.7 * 1594, but 16.7 * 110 > 1000: the output is whole, and
        # 25,620 = 17.264 * 1484 are left for the others: 18714.3 and 6905.7.
        ("erk", 0.1, {"fc1": 18_714, "fc2": 6_906, "output": 1_000}),
        # Both small ones are whole: what is left of 133,100 is the first's.
        ("erk", 0.5, {"fc1": 102_100, "fc2": 30_000, "output": 1_000}),
        ("erk", 1, {"fc1": 235_200, "fc2": 30_000, "output": 1_000}),
        ("evenly", 0.1, {"fc1": 23_520, "fc2": 3_000, "output": 100}),
        # 27 weights: 23.85, 3.04, 0.10, of which none is left without one.
        ("evenly", 0.0001, {"fc1": 23, "fc2": 3, "output": 1}),
    ],
)
def test_lenet_is_shared_as_by_hand(allocation, density, counts):
    masks = Masks.ones(LENET_SHAPES)
    budgets = budgets_of(allocation, masks, density)
    assert {path: count for (path,), count in budgets.items()} == counts


def test_erk_counts_the_height_and_width_of_a_convolution():
    # 3 + 3 + 2 + 4 = 12 of 72, and 10 + 14 = 24 of 140.
    masks = Masks.ones({"conv": (3, 3, 2, 4), "dense": (10, 14)})
    budgets = ALLOCATIONS["erk"](masks.counts, lambda _: 36, masks)
    assert budgets == {("conv",): 12, ("dense",): 24}


def test_erk_leaves_to_others_what_a_kernel_cannot_keep():
    # Equal shapes, equal shares: but only two weights of "a" survive.
    masks = Masks({"a": [1, 1, 0, 0, 0, 0], "b": [1] * 6, "c": [1] * 6})
    budgets = ALLOCATIONS["erk"](masks.counts, lambda _: 9, masks)
    assert budgets == {("a",): 2, ("b",): 4, ("c",): 3}


@proportional
def test_of_a_kernel_of_which_nothing_is_left_nothing_is_asked(allocation):
    masks = Masks({"a": [0, 0, 0], "b": [1, 1, 1]})
    budgets = ALLOCATIONS[allocation](masks.counts, lambda _: 2, masks)
    assert budgets == {("b",): 2}


@proportional
def test_more_than_survives_of_all_kernels_is_refused_as_a_whole(allocation):
    masks = prune(SCORES, ones(SCORES), 0.5, allocation)
    message = "at most the current 0.5 for a, b; got 0.7857"
    with pytest.raises(ValueError, match=message):
        prune(SCORES, masks, 11 / 14, allocation)


@every_allocation
def test_where_nothing_is_left_nothing_can_be_kept(allocation):
    masks = Masks({"a": [0, 0, 0]})
    with pytest.raises(ValueError, match=r"No weight of a .*\(0 of 3 now\)"):
        prune({"a": np.ones(3)}, masks, 0.1, allocation)
    with pytest.raises(ValueError, match="at most the current 0 for a; got 1"):
        prune({"a": np.ones(3)}, masks, 1, allocation)


@proportional
def test_fewer_weights_than_kernels_are_refused(allocation):
    with pytest.raises(ValueError, match="No weight of . would be left"):
        prune(SCORES, ones(SCORES), 1 / 14, allocation)


# Criteria.


@pytest.fixture
def kernels_by_path():
    """Trained and initial kernels, of which some weights are pruned."""
    rng = np.random.default_rng(0)
    shapes = {"conv/kernel": (3, 3, 2, 4), "dense/kernel": (5, 1)}
    shapes["twin/kernel"] = shapes["dense/kernel"]
    trained, origin = (
        {p: rng.normal(size=s).astype("float32") for p, s in shapes.items()}
        for _ in range(2)
    )
    masks = Masks({p: rng.random(s) < 0.7 for p, s in shapes.items()})
    return {p: k * masks[p] for p, k in trained.items()}, origin, masks


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_scores_every_weight(name, kernels_by_path):
    trained, origin, masks = kernels_by_path
    before = {path: k.copy() for path, k in trained.items()}
    scores = CRITERIA[name](trained, origin)
    assert {path: s.shape for path, s in scores.items()} == masks.shapes
    assert all(s.dtype.kind == "f" for s in scores.values())
    assert all(np.isfinite(s).all() for s in scores.values())
    assert all(np.array_equal(trained[p], before[p]) for p in masks)
    kept = prune(scores, masks, 0.4)
    assert kept.counts == {p: round(0.4 * m.size) for p, m in masks.items()}
    assert kept <= masks


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_scores_the_same_again(name, kernels_by_path):
    trained, origin, _ = kernels_by_path
    one, two = (CRITERIA[name](trained, origin) for _ in range(2))
    assert all(np.array_equal(one[path], two[path]) for path in trained)


LOOKS_AT = {
    "magnitude": {"trained"},
    "small_final": {"trained"},
    "large_init": {"origin"},
    "small_init": {"origin"},
    "large_init_large_final": {"trained", "origin"},
    "magnitude_increase": {"trained", "origin"},
    "movement": {"trained", "origin"},
    "random": set(),
}


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("end", ["trained", "origin"])
def test_a_criterion_looks_at_its_ends_of_training_only(
    name, end, kernels_by_path
):
    trained, origin, _ = kernels_by_path
    ends = {"trained": trained, "origin": origin}
    before = CRITERIA[name](**ends)
    ends[end] = {p: 1 / (0.1 + np.abs(k)) for p, k in ends[end].items()}
    after = CRITERIA[name](**ends)
    changed = any(not np.array_equal(before[p], after[p]) for p in before)
    assert changed == (end in LOOKS_AT[name])


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_does_not_hide_a_nan(name, kernels_by_path):
    trained, origin, masks = kernels_by_path
    for end in LOOKS_AT[name]:
        ends = {"trained": trained, "origin": origin}
        spoilt = {path: kernel.copy() for path, kernel in ends[end].items()}
        spoilt["dense/kernel"][masks["dense/kernel"]] = np.nan
        scores = CRITERIA[name](**{**ends, end: spoilt})
        with pytest.raises(ValueError, match="of 'dense/kernel' hold . nan"):
            prune(scores, masks, 0.4)


SIGNS_MATTER = {"movement"}


@pytest.mark.parametrize("name", CRITERIA)
def test_signs_matter_where_they_should_only(name, kernels_by_path):
    trained, origin, _ = kernels_by_path
    scores = CRITERIA[name](trained, origin)
    flipped = CRITERIA[name](trained, {p: -k for p, k in origin.items()})
    same = all(np.array_equal(scores[p], flipped[p]) for p in scores)
    assert same == (name not in SIGNS_MATTER)


# Weights that four letters tell apart: which two of them are kept.
HAND_TRAINED = {"k": np.array([-4.0, 3.0, 0.5, -1.0], "float32")}
HAND_ORIGIN = {"k": np.array([0.1, 2.0, 4.0, 3.0], "float32")}


@pytest.mark.parametrize(
    ("name", "scores", "kept"),
    [
        ("magnitude", [4, 3, 0.5, 1], [1, 1, 0, 0]),
        ("small_final", [-4, -3, -0.5, -1], [0, 0, 1, 1]),
        ("large_init", [0.1, 2, 4, 3], [0, 0, 1, 1]),
        ("small_init", [-0.1, -2, -4, -3], [1, 1, 0, 0]),
        # Of four, 3 2 0 1 have a smaller trained, 0 1 3 2 a smaller initial.
        ("large_init_large_final", [0, 0.25, 0, 0.25], [0, 1, 0, 1]),
        ("magnitude_increase", [3.9, 1, -3.5, -2], [1, 1, 0, 0]),
        ("movement", [4.1, 1, 3.5, 4], [1, 0, 0, 1]),
    ],
)
def test_criteria_by_hand(name, scores, kept):
    found = CRITERIA[name](HAND_TRAINED, HAND_ORIGIN)
    assert found["k"] == pytest.approx(np.array(scores))
    assert prune(found, ones(found), 0.5) == Masks({"k": kept})


def test_every_criterion_but_chance_is_worked_by_hand():
    (mark,) = test_criteria_by_hand.pytestmark
    assert {case[0] for case in mark.args[1]} == set(CRITERIA) - {"random"}


def test_large_at_both_ends_is_the_common_percentile_of_the_code():
    # What Zhou et al.'s code keeps: above the t-th smallest at both ends.
    rng = np.random.default_rng(0)
    trained, origin = rng.normal(size=(2, 500))
    trained[rng.random(500) < 0.3] = 0  # pruned before
    alive = trained != 0
    scores = CRITERIA["large_init_large_final"]({"k": trained}, {"k": origin})
    for threshold in range(0, int(alive.sum()), 40):
        above = alive.copy()
        for end in (np.abs(trained), np.abs(origin)):
            above &= end >= np.sort(end[alive])[threshold]
        masks = prune(scores, Masks({"k": alive}), above.sum() / 500)
        assert np.array_equal(masks["k"], above)


def test_large_at_both_ends_does_not_depend_on_scale():
    rng = np.random.default_rng(0)
    trained, origin = ({"k": rng.normal(size=50)} for _ in range(2))
    scores, scaled = (
        CRITERIA["large_init_large_final"](trained, {"k": a * origin["k"]})
        for a in (1, 100)
    )
    assert np.array_equal(scores["k"], scaled["k"])


def test_large_at_both_ends_of_a_kernel_that_is_all_zero():
    zeros = {"k": np.zeros(4)}
    scores = CRITERIA["large_init_large_final"](zeros, zeros)
    assert prune(scores, ones(zeros), 0.5) == Masks({"k": [1, 1, 0, 0]})


def test_chance_draws_by_seed_and_by_kernel(kernels_by_path):
    trained, origin, _ = kernels_by_path
    one, two = (
        find_criterion("random", seed)(trained, origin) for seed in (1, 2)
    )
    for path in trained:
        assert not np.array_equal(one[path], two[path])
    assert not np.array_equal(one["dense/kernel"], one["twin/kernel"])


def test_chance_prunes_every_weight_as_often():
    # 4,000 draws of 8 of 20: the standard error of a frequency is 0.0077.
    kernels = {"k": np.zeros((4, 5))}
    kept = np.zeros((4, 5))
    for seed in range(4000):
        scores = find_criterion("random", seed)(kernels, kernels)
        kept += prune(scores, ones(kernels), 0.4)["k"]
    assert np.abs(kept / 4000 - 0.4).max() < 4 * 0.0077


def test_a_seed_is_given_to_a_criterion_by_name_only():
    assert find_criterion("random", 3) == Random(3)
    assert find_criterion(Random(5), 3) == Random(5)
    assert find_criterion("magnitude", 3) is CRITERIA["magnitude"]


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
