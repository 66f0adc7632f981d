import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_lottery.core import seeds

places = st.lists(st.integers(0, 2**40) | st.text(max_size=8), max_size=4).map(
    tuple
)
keys = st.tuples(st.integers(0, 2**64), st.text(max_size=8), places)


def draw(key):
    seed, purpose, where = key
    return seeds.generator(seed, purpose, *where).integers(2**63, size=4)


@given(keys)
def test_the_same_key_gives_the_same_stream(key):
    assert np.array_equal(draw(key), draw(key))
    assert seeds.integer(key[0], key[1], *key[2]) == seeds.integer(
        key[0], key[1], *key[2]
    )


NEIGHBOURS = [
    (0, "order", ()),
    (1, "order", ()),
    (2**32, "order", ()),
    (0, "reinit", ()),
    (0, "order", (1,)),
    (0, "order", (2,)),
    (0, "order", ("1",)),
    (0, "order", ("conv/kernel",)),
    (0, "order", ("conv/bias",)),
    (0, "order", (1, 2)),
    (0, "order", (2, 1)),
    (0, "order", (1, "conv/kernel")),
    (0, "order", ("conv/kernel", 1)),
]


def test_any_other_key_gives_another_stream():
    assert len({tuple(draw(key)) for key in NEIGHBOURS}) == len(NEIGHBOURS)
    integers = {seeds.integer(key[0], key[1], *key[2]) for key in NEIGHBOURS}
    assert len(integers) == len(NEIGHBOURS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((), (0,)),
        ((), (0, 0)),
        ((3,), (3, 0)),
        (("conv/kernel",), ("conv/kernel", 0)),
    ],
    ids=str,
)
def test_a_last_place_of_zero_is_another_key_than_no_place(one, other):
    # np.random.SeedSequence pads short entropy with zeros.
    assert not np.array_equal(
        draw((0, "order", one)), draw((0, "order", other))
    )


def test_streams_do_not_depend_on_the_order_they_are_asked_in():
    there = [draw(key) for key in NEIGHBOURS]
    back = [draw(key) for key in reversed(NEIGHBOURS)][::-1]
    assert np.array_equal(there, back)


def test_streams_never_move():
    # Results moved if these did: masks, orders and splits are drawn so.
    assert seeds.integer(0, "initialisation", "fc1") == 1_003_823_411
    draws = seeds.generator(7, "order", 3, "conv/kernel").integers(1000, size=4)
    assert draws.tolist() == [221, 255, 264, 904]
    assert float(seeds.generator(7, "order", 3).random()) == 0.2437157515482944


@given(keys)
def test_integers_fit_in_31_bits(key):
    assert 0 <= seeds.integer(key[0], key[1], *key[2]) < 2**31


@pytest.mark.parametrize("call", [seeds.generator, seeds.integer])
def test_a_negative_seed_is_refused(call):
    with pytest.raises(ValueError, match="negative"):
        call(-1, "order")


def test_asking_leaves_the_global_generators_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    seeds.generator(0, "order").random()
    seeds.integer(0, "order")
    assert np.array_equal(before, np.random.get_state()[1])
