import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_lottery.core.masks import Masks

shapes = st.dictionaries(
    st.text(min_size=1, max_size=6),
    hnp.array_shapes(max_dims=3, max_side=5),
    min_size=1,
    max_size=4,
)


def masks_of(shapes):
    arrays = {p: hnp.arrays(bool, shape) for p, shape in shapes.items()}
    return st.fixed_dictionaries(arrays).map(Masks)


some = shapes.flatmap(masks_of)
pairs = shapes.flatmap(lambda s: st.tuples(masks_of(s), masks_of(s)))

A = Masks({"k": [1, 1, 0, 0], "c": [[1], [0]]})
B = Masks({"k": [1, 0, 1, 0], "c": [[1], [1]]})


# Hand values (K11).


def test_counts_and_densities_by_hand():
    assert (A.size, A.kept, A.density, A.sparsity) == (6, 3, 0.5, 0.5)
    assert A.counts == {"c": 1, "k": 2}
    assert B.densities == {"c": 1.0, "k": 0.5}
    assert A.shapes == {"c": (2, 1), "k": (4,)}
    assert repr(A) == ("Masks(2 kernels, 3 of 6 weights kept, density 0.5)")


def test_set_algebra_by_hand():
    assert A & B == Masks({"k": [1, 0, 0, 0], "c": [[1], [0]]})
    assert A | B == Masks({"k": [1, 1, 1, 0], "c": [[1], [1]]})
    assert A.hamming(B) == 3 / 6
    assert A.jaccard(B) == 2 / 5
    assert A & B <= A <= A | B
    assert not A <= B
    assert not B <= A


def test_masks_that_keep_nothing_overlap_wholly():
    nothing = Masks({"k": [0, 0]})
    assert nothing.jaccard(nothing) == 1.0
    assert nothing.jaccard(Masks({"k": [1, 0]})) == 0.0


@given(pairs)
def test_set_algebra_obeys_its_laws(pair):
    a, b = pair
    assert a & b == b & a
    assert a | b == b | a
    assert a & b <= a <= a | b
    assert (a & b).kept + (a | b).kept == a.kept + b.kept
    assert round(a.hamming(b) * a.size) == (a | b).kept - (a & b).kept
    assert a.hamming(a) == 0
    assert a.jaccard(a) == 1
    assert a.jaccard(b) == b.jaccard(a)
    assert (a.hamming(b) == 0) == (a == b) == (a <= b and b <= a)


@given(some)
def test_ones_keep_everything(masks):
    ones = Masks.ones(masks.shapes)
    assert (ones.density, ones.sparsity, ones.kept) == (1, 0, ones.size)
    assert masks & ones == masks
    assert masks | ones == ones


# Equality, digest.


@given(pairs)
def test_digest_and_hash_are_equal_exactly_where_the_masks_are(pair):
    a, b = pair
    assert (a.digest == b.digest) == (a == b)
    again = Masks({path: a[path] for path in reversed(list(a))})
    assert again == a
    assert again.digest == a.digest
    assert hash(again) == hash(a)


@pytest.mark.parametrize(
    "other",
    [
        {"k": [[1, 0, 1, 1]]},
        {"k": [[1], [0], [1], [1]]},
        {"j": [1, 0, 1, 1]},
        {"k": [1, 0, 1, 0]},
        {"k": [1, 0, 1, 1], "j": [1]},
        {"k": [1, 0, 1, 1, 0]},
    ],
    ids=str,
)
def test_path_shape_and_every_bit_count(other):
    masks = Masks({"k": [1, 0, 1, 1]})
    assert masks != Masks(other)
    assert masks.digest != Masks(other).digest
    assert masks != other


def test_digests_never_move():
    # They stand in the records of runs.
    assert A.digest == (
        "4f8676b0446626035cf83f11bbb8a0d77e1fbba8a745044d035726bf14dffb96"
    )


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float16"])
def test_any_numeric_dtype_of_zeros_and_ones_will_do(dtype):
    masks = Masks({"k": np.array([1, 1, 0, 0], dtype), "c": [[True], [False]]})
    assert masks == A
    assert masks["k"].dtype == bool


# A read-only mapping, in the order of paths.


def test_kernels_come_in_the_order_of_their_paths():
    masks = Masks({p: [1] for p in ("b/kernel", "a/kernel", "a_1/kernel")})
    assert list(masks) == ["a/kernel", "a_1/kernel", "b/kernel"]
    assert list(masks.counts) == list(masks)
    assert len(masks) == 3


def test_nothing_in_masks_can_be_changed():
    given = np.array([1, 0, 1], bool)
    masks = Masks({"k": given})
    given[:] = False
    assert masks.counts == {"k": 2}
    with pytest.raises(ValueError, match="read-only"):
        masks["k"][0] = False
    with pytest.raises(TypeError, match="item assignment"):
        masks["k"] = given
    with pytest.raises(TypeError, match="item deletion"):
        del masks["k"]
    masks.counts["k"] = 0
    assert masks.kept == 2


@pytest.mark.parametrize(
    "twin",
    [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_of_masks_are_as_frozen(twin):
    other = twin(A)
    assert other == A
    assert not other["k"].flags.writeable


def test_an_unknown_path_is_answered_with_the_nearest():
    masks = Masks({"conv/kernel": [1], "dense/kernel": [1]})
    with pytest.raises(
        KeyError, match="Did you mean 'dense/kernel'.* Masked: conv/kernel, de"
    ):
        masks["dense_1/kernel"]
    assert masks.get("other") is None
    assert "conv/kernel" in masks


# What is refused (K1).


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([0, 2], r"holds only 0 and 1; that of 'k' \(int64, shape \(2,\)\)"),
        ([0.5], "holds only 0 and 1"),
        ([np.nan], "holds only 0 and 1"),
        ([-1], "holds only 0 and 1"),
        (["1"], "holds only 0 and 1"),
        ([None], "holds only 0 and 1"),
        ([1 + 0j], "holds only 0 and 1"),
        (np.array([True], object), "holds only 0 and 1"),
        (np.ones((0, 3)), "'k'"),
    ],
    ids=str,
)
def test_other_than_zeros_and_ones_is_refused(array, message):
    with pytest.raises(ValueError, match=message):
        Masks({"k": array})


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "at least one kernel; got none"),
        ({"": [1]}, "non-empty strings; got ''"),
        ({3: [1]}, "non-empty strings; got 3"),
        ({None: [1], "k": [1]}, "non-empty strings; got None"),
    ],
    ids=str,
)
def test_masks_need_kernels_with_names(masks, message):
    with pytest.raises(ValueError, match=message):
        Masks(masks)


MISFITS = [
    ({"k": (4,)}, "The masks hold 'c', which is no kernel here"),
    (
        {"k": (4,), "c": (2, 1), "d": (9,)},
        r"miss kernel 'd' of shape \(9,\); they hold c, k",
    ),
    (
        {"k": (4,), "c": (2,)},
        r"mask of 'c' has shape \(2, 1\); the kernel has shape \(2,\)",
    ),
]


@pytest.mark.parametrize(("shapes", "message"), MISFITS)
def test_masks_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        A.require(shapes)


@pytest.mark.parametrize("verb", ["__and__", "__or__", "__le__", "hamming"])
@pytest.mark.parametrize("shapes", [shapes for shapes, _ in MISFITS])
def test_set_algebra_refuses_masks_of_other_kernels(verb, shapes):
    other = Masks.ones(shapes)
    for one, two in ((A, other), (other, A)):
        with pytest.raises(ValueError, match="kernel|mask"):
            getattr(one, verb)(two)


def test_masks_that_fit_pass_through():
    assert A.require({"k": (4,), "c": [2, 1]}) is A


def test_of_several_missing_kernels_the_first_is_named():
    shapes = {"k": (4,), "c": (2, 1)} | {f"m{i:02}": (1,) for i in range(60)}
    with pytest.raises(ValueError, match="miss kernel 'm00'"):
        A.require(shapes)
