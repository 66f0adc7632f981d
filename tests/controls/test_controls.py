"""Controls: every row of the table, and what each takes away."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import sample_tickets
import toy

from tf_lottery import controls, masking
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.ticket_search import TicketSearch
from tf_lottery.training import Job, State, Trainer

L = keras.layers


def regular():
    """A convolution, BatchNorm, Dropout, dense: the output stays whole."""
    inputs = keras.Input((6, 6, 1))
    x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(inputs))
    x = L.MaxPooling2D()(L.ReLU()(x))
    x = L.Dropout(0.3)(L.Dense(8, "relu")(L.Flatten()(x)))
    return keras.Model(inputs, L.Dense(3, name="output")(x))


@functools.cache
def workplace(kind):
    """A ticket, and a trainer of its model; they are not changed."""
    keras.utils.set_random_seed(0)
    model = {"mlp": toy.mlp, "rewound": toy.mlp, "regular": regular}[kind]()
    trainer = toy.trainer(model)
    masks = dict(toy.random_masks(model, 0.4))
    if kind == "regular":
        masks["output/kernel"] = np.ones((8, 3), bool)
    dense = masking.get_masks(model)
    origin = trainer.state
    if kind == "rewound":
        origin = toy.train(trainer, origin, dense, capture=9).captured[0]
    ticket = Ticket(
        level=3,
        masks=Masks(masks),
        origin=origin,
        architecture=masking.architecture_of(model),
        metrics={"test_accuracy": 0.5},
        provenance={"seed": 0},
    )
    run = toy.train(trainer, ticket.start, ticket.masks)
    whole = toy.train(trainer, trainer.initial(model, 0), dense).trained
    return (
        dataclasses.replace(ticket, trained=run.trained, dense_trained=whole),
        trainer,
    )


every_ticket = pytest.mark.parametrize("kind", ["mlp", "regular", "rewound"])
ANOTHER_MODEL = {"small_dense": "it is no ticket of the same network"}
every_control = pytest.mark.parametrize(
    "name", [name for name in controls.CONTROLS if name not in ANOTHER_MODEL]
)

# Which promises a row makes. A new control takes its place in each of them.
KEEPS_MASKS = {
    "reinit",
    "reinit_sampled",
    "reinit_sign",
    "noise",
    "data_order",
}
KEEPS_COUNTS = KEEPS_MASKS | {"shuffle", "initial_magnitude", "inverted"}
"""Of each kernel. All keep the total."""
STARTS_ANEW = {"reinit", "reinit_sign"}
"""At step 0; the others at the ticket's step k."""
FROM_A_FILE = {"reinit", "reinit_sampled", "reinit_sign", "data_order"}
"""Need no value of a pruned weight, which a file does not hold."""
DRAWS_NOTHING = {
    "initial_magnitude": "it is a function of the weights",
    "inverted": "it is a function of the trained weights",
    "data_order": "it draws an order, and nothing of the ticket",
}
KEEPS_START = {"data_order": "it is the very ticket, trained otherwise"}


def starts(ticket):
    """What of a control differs from another: masks, and masked kernels."""
    weights = ticket.start.weights
    return {path: (m, weights[path]) for path, m in ticket.masks.items()}


def same(one, other):
    return all(
        np.array_equal(a, b)
        for path in one
        for a, b in zip(one[path], other[path], strict=True)
    )


# Promises that every row keeps.


@every_control
@every_ticket
def test_a_control_is_named_and_not_trained_yet(name, kind):
    ticket, _ = workplace(kind)
    made = controls.get(name)(ticket, seed=0)
    assert made.variant == name
    assert made.level == ticket.level
    assert made.architecture == ticket.architecture
    assert made.provenance == ticket.provenance
    assert made.metrics == {}
    assert made.trained is None
    assert made.masks.shapes == ticket.masks.shapes


@every_control
@every_ticket
def test_a_control_keeps_as_many_weights(name, kind):
    ticket, _ = workplace(kind)
    made = [controls.get(name)(ticket, seed).masks for seed in range(3)]
    assert {masks.kept for masks in made} == {ticket.masks.kept}
    counts = all(masks.counts == ticket.masks.counts for masks in made)
    assert counts == (name in KEEPS_COUNTS)
    same_masks = all(masks == ticket.masks for masks in made)
    assert same_masks == (name in KEEPS_MASKS)


@every_control
@every_ticket
def test_a_control_differs_from_its_ticket(name, kind):
    ticket, _ = workplace(kind)
    made = controls.get(name)(ticket, seed=0)
    moved = made.start.digest != ticket.start.digest
    assert moved == (name not in KEEPS_START)
    assert (made.data_seed is not None) == (name in KEEPS_START)
    if name not in KEEPS_MASKS:
        assert made.masks.jaccard(ticket.masks) < 0.6


@every_control
def test_kernels_that_the_ticket_leaves_whole_stay_whole(name):
    ticket, _ = workplace("regular")
    assert ticket.masks["output/kernel"].all()
    for seed in range(5):
        made = controls.get(name)(ticket, seed)
        assert made.masks["output/kernel"].all()


@every_control
def test_a_ticket_of_whole_kernels_keeps_its_masks(name):
    ticket, _ = workplace("mlp")
    whole = Masks.ones(ticket.masks.shapes)
    ticket = dataclasses.replace(ticket, masks=whole)
    assert controls.get(name)(ticket, seed=0).masks == whole


@every_control
def test_a_kernel_that_the_ticket_has_emptied_is_no_obstacle(name):
    ticket, _ = workplace("mlp")
    empty = np.zeros(ticket.masks["dense_1/kernel"].shape, bool)
    masks = Masks({**ticket.masks, "dense_1/kernel": empty})
    ticket = dataclasses.replace(ticket, masks=masks)
    made = controls.get(name)(ticket, seed=0)
    assert made.masks.kept == masks.kept
    if name in KEEPS_COUNTS:
        assert made.masks.counts == masks.counts


@every_control
@every_ticket
def test_a_control_is_a_function_of_the_seed_and_the_level(name, kind):
    ticket, _ = workplace(kind)
    control = controls.get(name)
    first = starts(control(ticket, seed=0))
    assert same(starts(control(ticket, seed=0)), first)
    higher = dataclasses.replace(ticket, level=ticket.level + 1)
    for other in (control(ticket, seed=1), control(higher, seed=0)):
        assert same(starts(other), first) == (name in DRAWS_NOTHING)
        assert other.masks.kept == ticket.masks.kept


@every_control
def test_every_kernel_draws_for_itself(name):
    """Of kernels that are the same, each comes out otherwise."""
    draw = np.random.default_rng(0)
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), L.Flatten(), L.Dense(36), L.Dense(36)]
    )
    ticket = sample_tickets.make(model)
    paths = list(ticket.masks)
    mask, kernel = draw.random((36, 36)) < 0.4, draw.normal(size=(36, 36))
    ticket = dataclasses.replace(
        ticket,
        dense_trained=dict.fromkeys(paths, kernel),
        masks=Masks(dict.fromkeys(paths, mask)),
        origin=State(
            0,
            {
                **ticket.origin.weights,
                **dict.fromkeys(paths, kernel.astype("float32")),
            },
            {},
        ),
    )
    one, two = starts(controls.get(name)(ticket, seed=0)).values()
    assert same({"": one}, {"": two}) == (name in DRAWS_NOTHING)


@every_control
@every_ticket
def test_the_ticket_stays_as_it_is(name, kind):
    ticket, _ = workplace(kind)
    digest, masks = ticket.origin.digest, ticket.masks.digest
    trained = {path: w.copy() for path, w in ticket.trained.items()}
    controls.get(name)(ticket, seed=0)
    assert ticket.variant == "ticket"
    assert ticket.origin.digest == digest
    assert ticket.masks.digest == masks
    assert ticket.metrics == {"test_accuracy": 0.5}
    assert toy.same(ticket.trained, trained)


@every_control
@every_ticket
def test_a_control_restarts_with_all_that_its_ticket_has(name, kind):
    ticket, _ = workplace(kind)
    made = controls.get(name)(ticket, seed=0)
    for path, weight in ticket.origin.weights.items():
        new = made.origin.weights[path]
        assert (new.shape, new.dtype) == (weight.shape, weight.dtype)
    assert made.origin.weights.keys() == ticket.origin.weights.keys()
    for path, mask in made.masks.items():
        start = made.start.weights[path]
        assert (start[~mask] == 0).all()
        assert np.array_equal(start[mask], made.origin.weights[path][mask])
    if name in STARTS_ANEW:
        assert made.origin.step == 0
        assert made.origin.slots == {}
        return
    assert made.origin.step == ticket.origin.step
    assert made.origin.slots.keys() == ticket.origin.slots.keys()
    for path in ticket.origin.weights.keys() - ticket.masks.keys():
        assert np.array_equal(
            made.origin.weights[path], ticket.origin.weights[path]
        )


@every_control
@every_ticket
def test_a_control_trains(name, kind):
    ticket, trainer = workplace(kind)
    made = controls.get(name)(ticket, seed=0)
    run = toy.train(trainer, made.start, made.masks)
    for path, mask in made.masks.items():
        assert (run.trained[path][~mask] == 0).all()
        if mask.any():
            assert (run.trained[path] != made.start.weights[path]).any()


@every_control
def test_a_ticket_from_a_file_makes_the_same_control_or_none(name, tmp_path):
    ticket, _ = workplace("rewound")
    ticket.save(tmp_path / "t")
    loaded = Ticket.load(tmp_path / "t")
    control = controls.get(name)
    if name in FROM_A_FILE:
        made, expected = (control(t, seed=0) for t in (loaded, ticket))
        assert made.start.digest == expected.start.digest
        return
    message = f"control '{name}' needs .* holds only the weights of the ticket"
    with pytest.raises(ValueError, match=message) as refused:
        control(loaded, seed=0)
    assert "\n" not in str(refused.value)


@every_control
def test_a_dense_ticket_from_a_file_lacks_nothing(name, tmp_path):
    ticket, _ = workplace("mlp")
    whole = Masks.ones(ticket.masks.shapes)
    dataclasses.replace(ticket, masks=whole).save(tmp_path / "t")
    loaded = Ticket.load(tmp_path / "t")
    assert controls.get(name)(loaded, seed=0).masks == whole


@every_control
def test_a_kernel_that_begins_at_zero_lacks_nothing(name):
    """Not taken for one of which a file has lost the pruned weights."""
    ticket, _ = workplace("mlp")
    weights = dict(ticket.origin.weights)
    weights["dense_2/kernel"] = np.zeros_like(weights["dense_2/kernel"])
    ticket = dataclasses.replace(ticket, origin=State(0, weights, {}))
    made = controls.get(name)(ticket, seed=0)
    assert made.masks.kept == ticket.masks.kept


def test_every_row_stands_where_its_promises_are_told_apart():
    known = set(controls.CONTROLS)
    for rows in (KEEPS_COUNTS, STARTS_ANEW, FROM_A_FILE, set(DRAWS_NOTHING)):
        assert rows <= known


def test_an_unknown_control_lists_the_known():
    with pytest.raises(ValueError, match="Did you mean 'reinit'.*shuffle"):
        controls.get("reinitt")


# Weights drawn anew.


@pytest.mark.parametrize("name", sorted(STARTS_ANEW))
def test_fresh_weights_are_those_of_the_initialiser(name):
    ticket = sample_tickets.make(density=0.9)
    made = controls.get(name)(ticket, seed=0)
    assert made.masks == ticket.masks
    for path in ticket.masks:
        new = made.origin.weights[path]
        old = ticket.origin.weights[path]
        assert not np.isin(np.abs(new), np.abs(old)).any()
    kernel = made.origin.weights["dense/kernel"]
    assert np.sqrt((kernel**2).mean()) == pytest.approx(
        np.sqrt(2 / (36 + 16)), rel=0.1
    )
    assert (made.origin.weights["dense/bias"] == 0).all()


@pytest.mark.parametrize("name", sorted(STARTS_ANEW))
def test_all_but_kernels_begins_as_in_a_new_model(name):
    ticket, trainer = workplace("regular")
    weights = {
        path: w if path in ticket.masks else w + 1
        for path, w in ticket.origin.weights.items()
    }
    moved = dataclasses.replace(ticket, origin=State(7, weights, {}))
    made = controls.get(name)(moved, seed=0).origin.weights
    batch = "batch_normalization"
    assert (made[f"{batch}/gamma"] == 1).all()
    assert (made[f"{batch}/beta"] == 0).all()
    assert (made[f"{batch}/moving_mean"] == 0).all()
    assert (made[f"{batch}/moving_variance"] == 1).all()
    (stream,) = (p for p in made if p.endswith("seed_generator_state"))
    assert made[stream].tolist() == [weights[stream][0], 0]


@pytest.mark.parametrize(
    ("layer", "drawn", "fixed"),
    [
        (lambda: L.LSTM(4), {"kernel", "recurrent_kernel"}, {"bias"}),
        (lambda: L.GRU(4), {"kernel", "recurrent_kernel"}, {"bias"}),
        (
            lambda: L.SeparableConv1D(4, 3),
            {"depthwise_kernel", "pointwise_kernel"},
            {"bias"},
        ),
        (lambda: L.DepthwiseConv1D(3), {"kernel"}, {"bias"}),
    ],
)
def test_kernels_of_every_kind_are_drawn_anew(layer, drawn, fixed):
    inputs = keras.Input((6, 6, 1))
    x = L.Flatten()(layer()(L.Reshape((6, 6))(inputs)))
    ticket = sample_tickets.make(keras.Model(inputs, L.Dense(3)(x)))
    made = controls.reinit(ticket, seed=0)
    plain = ticket.template()
    for path, variable in masking.variables_by_path(plain).items():
        name = path.rpartition("/")[2]
        weight = made.origin.weights[path]
        if path.startswith("dense") or name == "seed_generator_state":
            continue
        assert name in drawn | fixed
        # Deterministic initialisers, an LSTM's forget bias too.
        same = np.array_equal(weight, variable.numpy())
        assert same == (name in fixed), path


def test_reinit_does_not_depend_on_the_tickets_weights():
    ticket = sample_tickets.make()
    moved = {p: w + 1 for p, w in ticket.origin.weights.items()}
    other = dataclasses.replace(
        ticket, origin=dataclasses.replace(ticket.origin, weights=moved)
    )
    one, two = (controls.reinit(t, seed=0) for t in (ticket, other))
    assert one.origin.digest == two.origin.digest


def test_reinit_changes_signs_and_reinit_sign_keeps_them():
    ticket, _ = workplace("mlp")
    agreement = {}
    for name in STARTS_ANEW:
        made = controls.get(name)(ticket, seed=0).origin.weights
        agreement[name] = np.mean(
            np.concatenate(
                [
                    np.sign(made[p][m]) == np.sign(ticket.origin.weights[p][m])
                    for p, m in ticket.masks.items()
                ]
            )
        )
    assert agreement["reinit_sign"] == 1
    # 300 weights: the standard error is 0.03.
    assert agreement["reinit"] == pytest.approx(0.5, abs=0.12)


def test_magnitudes_under_kept_signs_know_nothing_of_the_ticket():
    ticket = sample_tickets.make()
    made = controls.reinit_sign(ticket, seed=0).origin.weights["dense/kernel"]
    old = ticket.origin.weights["dense/kernel"]
    magnitudes = np.corrcoef(np.abs(made).ravel(), np.abs(old).ravel())[0, 1]
    assert abs(magnitudes) < 4 / np.sqrt(made.size)


def test_no_two_controls_draw_alike():
    ticket, _ = workplace("mlp")
    fresh, signed = (
        np.abs(controls.get(name)(ticket, 0).origin.weights["dense/kernel"])
        for name in sorted(STARTS_ANEW)
    )
    assert not np.isin(fresh, signed).any()


@pytest.mark.parametrize("name", sorted(STARTS_ANEW))
def test_a_weight_without_an_initialiser_is_named(name):
    class Scale(L.Layer):
        def build(self, shape):
            self.factor = self.add_weight(name="factor", shape=())

        def call(self, x):
            return x * self.factor

    keras.saving.get_custom_objects()["Scale"] = Scale
    try:
        model = keras.Sequential(
            [keras.Input((6, 6, 1)), L.Flatten(), Scale(), L.Dense(3)]
        )
        ticket = sample_tickets.make(model)
        with pytest.raises(ValueError, match=f"'scale/factor'.*'{name}'"):
            controls.get(name)(ticket, seed=0)
    finally:
        del keras.saving.get_custom_objects()["Scale"]


# Weights drawn from the ticket's own.


@pytest.mark.parametrize("kind", ["mlp", "regular", "rewound"])
def test_sampled_weights_are_among_the_kernels_survivors(kind):
    ticket, _ = workplace(kind)
    made = controls.reinit_sampled(ticket, seed=0)
    for path, mask in ticket.masks.items():
        old = ticket.origin.weights[path]
        new = made.origin.weights[path]
        assert np.isin(new[mask], old[mask]).all()
        assert np.array_equal(new[~mask], old[~mask])
        # With replacement: 1 - 1/e of the values appear, about.
        drawn = np.unique(new[mask]).size / mask.sum()
        assert drawn < 0.9
        if mask.sum() > 200:
            assert drawn == pytest.approx(1 - np.exp(-1), abs=0.1)


def test_every_survivor_is_as_likely_to_be_drawn():
    # 500 draws of 8 out of 8: the standard error of a frequency is 0.0052.
    kernel = np.arange(1.0, 21, dtype="float32").reshape(4, 5)
    mask = np.arange(20).reshape(4, 5) % 5 < 2
    ticket = Ticket(1, Masks({"k": mask}), State(0, {"k": kernel}, {}))
    drawn = np.concatenate(
        [
            controls.reinit_sampled(ticket, seed).start.weights["k"][mask]
            for seed in range(500)
        ]
    )
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == kernel[mask].tolist()
    assert np.abs(counts / 4000 - 1 / 8).max() < 4 * 0.0052


def test_sampled_weights_take_their_optimizer_slots_along():
    ticket, _ = workplace("rewound")
    made = controls.reinit_sampled(ticket, seed=0).origin
    for path, mask in ticket.masks.items():
        old = ticket.origin.weights[path]
        slots = [n for n in made.slots if n.startswith(f"{path}/")]
        assert len(slots) == 2
        for name in slots:
            paired = dict(
                zip(old.flat, ticket.origin.slots[name].flat, strict=True)
            )
            for weight, slot in zip(
                made.weights[path][mask], made.slots[name][mask], strict=True
            ):
                assert slot == paired[weight]
            assert not np.array_equal(
                made.slots[name], ticket.origin.slots[name]
            )


def test_a_slot_that_is_not_of_single_weights_stays_as_it_is():
    # Adafactor keeps means over rows and columns.
    ticket = sample_tickets.make()
    kernel = ticket.origin.weights["dense/kernel"]
    slots = {"dense/kernel/r": kernel.mean(1), "dense/kernel/m": kernel * 2}
    origin = State(5, ticket.origin.weights, slots)
    ticket = dataclasses.replace(ticket, origin=origin)
    made = controls.reinit_sampled(ticket, seed=0).origin
    new = made.weights["dense/kernel"]
    assert np.array_equal(made.slots["dense/kernel/r"], kernel.mean(1))
    assert np.array_equal(made.slots["dense/kernel/m"], new * 2)


# Noise.


def test_noise_is_as_large_as_the_kernels_own_spread():
    draw = np.random.default_rng(0)
    weights = {
        path: draw.normal(3, scale, size=(100, 100)).astype("float32")
        for path, scale in (("a", 0.01), ("b", 5.0))
    }
    masks = Masks({path: draw.random((100, 100)) < 0.4 for path in weights})
    ticket = Ticket(1, masks, State(0, weights, {}))
    for scale, made in (
        (1, controls.noise(ticket, seed=0)),
        (0.5, controls.noise(ticket, seed=0, scale=0.5)),
    ):
        for path, mask in masks.items():
            new, old = made.origin.weights[path], weights[path]
            added = (new.astype(float) - old)[mask] / old.std()
            # 4,000 weights: standard errors of 0.016 and 0.011, times scale.
            assert added.mean() == pytest.approx(0, abs=4 * 0.016 * scale)
            assert added.std() == pytest.approx(scale, abs=4 * 0.011 * scale)
            assert np.array_equal(new[~mask], old[~mask])
            assert abs(np.corrcoef(added, old[mask])[0, 1]) < 4 * 0.016


def test_noise_of_no_scale_is_the_ticket():
    ticket, _ = workplace("rewound")
    made = controls.noise(ticket, seed=0, scale=0)
    assert made.start.digest == ticket.start.digest


# Masks.


def frequencies(control, masks, seeds):
    """How often each weight is kept, over that many seeds."""
    draw = np.random.default_rng(0)
    weights = {p: draw.normal(size=m.shape) for p, m in masks.items()}
    ticket = Ticket(1, masks, State(0, weights, {}))
    kept = {path: np.zeros(mask.shape) for path, mask in masks.items()}
    for seed in range(seeds):
        made = controls.get(control)(ticket, seed)
        for path, mask in made.masks.items():
            kept[path] += mask / seeds
    return kept


# 8 of 20, 30 of 60 and all of 5. Dimensions add up to 9 and 16, so that 38
# weights are 13.68 and 24.32; evenly they are 9.5 and 28.5.
PAIR = Masks(
    {
        "a": np.arange(20).reshape(4, 5) % 5 < 2,
        "b": np.arange(60).reshape(6, 10) % 2 == 0,
        "whole": np.ones((1, 5)),
    }
)


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("shuffle", 8 / 20, 30 / 60),
        ("shuffle_global", 38 / 80, 38 / 80),
        ("random_evenly", 10 / 20, 28 / 60),
        ("random_erk", 14 / 20, 24 / 60),
    ],
)
def test_every_weight_of_a_kernel_is_kept_as_often(name, a, b):
    # Of 2,000 draws the standard error of a frequency is 0.011 at most.
    kept = frequencies(name, PAIR, 2000)
    assert np.abs(kept["a"] - a).max() < 4 * 0.0112
    assert np.abs(kept["b"] - b).max() < 4 * 0.0112
    assert kept["whole"] == pytest.approx(1)


def test_a_global_shuffle_moves_weights_from_kernel_to_kernel():
    draw = np.random.default_rng(0)
    weights = {p: draw.normal(size=m.shape) for p, m in PAIR.items()}
    ticket = Ticket(1, PAIR, State(0, weights, {}))
    counts = [
        controls.shuffle_global(ticket, seed).masks.counts["a"]
        for seed in range(500)
    ]
    # Hypergeometric: 20 drawn from 38 ones and 42 zeros.
    assert np.mean(counts) == pytest.approx(9.5, abs=4 * 1.95 / np.sqrt(500))
    assert np.var(counts) == pytest.approx(
        20 * (38 / 80) * (42 / 80) * 60 / 79, rel=0.25
    )


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # The last is whole; 222 are left, 2.921 * 52 = 151.9 and 70.1.
        ("random_erk", {"dense": 152, "dense_1": 70, "dense_2": 24}),
        # 245 of 728 weights: 193.8, 43.1 and 8.1.
        ("random_evenly", {"dense": 194, "dense_1": 43, "dense_2": 8}),
    ],
)
def test_random_masks_share_a_tickets_total_as_by_hand(name, counts):
    # 576, 128 and 24 weights, whose dimensions add up to 52, 24 and 11.
    ticket, _ = workplace("mlp")
    total = sum(counts.values())
    shapes = ticket.masks.shapes
    bits = {p: np.zeros(s, bool) for p, s in shapes.items()}
    bits["dense/kernel"].flat[:total] = True
    ticket = dataclasses.replace(ticket, masks=Masks(bits))
    made = controls.get(name)(ticket, seed=0)
    assert made.masks.counts == {f"{p}/kernel": c for p, c in counts.items()}


def test_shuffle_moves_the_masks_and_keeps_the_weights():
    ticket, _ = workplace("mlp")
    made = controls.shuffle(ticket, seed=0)
    assert made.origin is ticket.origin
    for path, mask in made.masks.items():
        start = made.start.weights[path]
        assert np.array_equal(start, ticket.origin.weights[path] * mask)


def test_inverted_keeps_what_came_out_smallest():
    ticket, _ = workplace("mlp")
    made = controls.inverted(ticket, seed=0)
    for path, mask in made.masks.items():
        size = np.abs(ticket.dense_trained[path])
        assert size[mask].max() <= size[~mask].min()


def test_inverted_needs_the_trained_dense_network():
    ticket, _ = workplace("mlp")
    with pytest.raises(ValueError, match="needs the trained dense network"):
        controls.inverted(dataclasses.replace(ticket, dense_trained=None), 0)


def test_draws_of_a_control_differ_and_are_numbered():
    ticket, _ = workplace("mlp")
    found = controls.variants(["reinit*3", "shuffle"])
    assert list(found) == ["reinit", "reinit.2", "reinit.3", "shuffle"]
    made = [control(ticket, 0) for control in found.values()]
    assert [each.variant for each in made] == list(found)
    assert len({each.start.digest for each in made}) == 4
    assert made[0].start.digest == controls.reinit(ticket, 0).start.digest


@pytest.mark.parametrize("name", ["reinit*", "reinit*0", "reinit*x"])
def test_a_control_is_drawn_a_whole_number_of_times(name):
    with pytest.raises(ValueError, match="as in 'reinit.3'"):
        controls.variants([name])


@every_ticket
def test_a_small_dense_network_has_as_many_weights_at_most(kind):
    ticket, _ = workplace(kind)
    made = controls.small_dense(ticket, seed=0)
    assert (made.variant, made.level) == ("small_dense", ticket.level)
    assert (made.trained, made.metrics, made.masks.density) == (None, {}, 1)
    # One unit more in every layer would be too many.
    assert 0.6 * ticket.masks.kept < made.masks.kept <= ticket.masks.kept
    assert made.density == made.masks.kept / ticket.masks.size
    model = made.template()
    assert model.output_shape == ticket.template().output_shape
    for path, variable in masking.variables_by_path(model).items():
        assert made.start.weights[path].shape == tuple(variable.shape)
    assert made.start.step == 0


def test_a_small_dense_network_is_a_function_of_seed_and_level():
    ticket, _ = workplace("mlp")
    higher = dataclasses.replace(ticket, level=ticket.level + 1)
    digests = [
        controls.small_dense(t, seed).start.digest
        for t, seed in ((ticket, 0), (ticket, 0), (ticket, 1), (higher, 0))
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.slow
def test_a_small_dense_network_trains_as_its_ticket_does():
    ticket, trainer = workplace("regular")
    made = controls.small_dense(ticket, seed=0)
    job = Job(made.start, made.masks, architecture=made.architecture)
    of_ticket = Job(ticket.start, ticket.masks)
    small, large = trainer.train([job, of_ticket])
    assert small.metrics["steps"] == large.metrics["steps"]
    model = made.template()
    own = Trainer(model, trainer.recipe, trainer.data, tuple(made.masks))
    (alone,) = own.train([Job(made.start, made.masks)])
    assert toy.same(small.trained, alone.trained)
    (again,) = trainer.train([of_ticket])
    assert toy.same(large.trained, again.trained)


def test_a_small_dense_network_drops_out_as_its_seed_says():
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), L.Flatten(), L.Dense(9), L.Dropout(0.5)]
    )
    model.add(L.Dense(3))
    ticket = sample_tickets.make(model)
    one, two = (controls.small_dense(ticket, seed=0) for _ in range(2))
    assert one.start.digest == two.start.digest


def test_nested_models_are_not_narrowed():
    inner = keras.Sequential([keras.Input((36,)), L.Dense(9)], name="inner")
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Flatten(), inner])
    model.add(L.Dense(3))
    with pytest.raises(ValueError, match="contains the model 'inner'"):
        controls.small_dense(sample_tickets.make(model), seed=0)


@pytest.mark.parametrize("name", controls.OF_THETA_K)
def test_controls_that_need_theta_k_are_refused_without_it(name):
    for rewind_mode in ("learning_rate", "nothing"):
        with pytest.raises(ValueError, match=f"'{name}' needs .*{rewind_mode}"):
            TicketSearch(toy.mlp(), controls=[name], rewind_mode=rewind_mode)
    masked = masking.mask_model(toy.mlp())
    masking.set_masks(masked, toy.random_masks(toy.mlp()))
    with pytest.raises(ValueError, match=f"'{name}' needs .*carries masks"):
        TicketSearch(masked, controls=[name])


@pytest.mark.parametrize("name", ["inverted*2", "initial_magnitude*3"])
def test_what_draws_nothing_is_drawn_once(name):
    with pytest.raises(ValueError, match="draws nothing"):
        controls.variants([name])


def test_what_cannot_be_narrowed_is_named():
    inputs = keras.Input((6, 6, 1))
    x = L.Reshape((4, 9))(L.Dense(36)(L.Flatten()(inputs)))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)), name="fixed")
    ticket = sample_tickets.make(model)
    with pytest.raises(ValueError, match="'fixed' cannot be narrowed") as error:
        controls.small_dense(ticket, seed=0)
    assert "\n" not in str(error.value)


def test_a_ticket_smaller_than_any_network_is_named():
    ticket, _ = workplace("mlp")
    bits = {p: np.zeros(s, bool) for p, s in ticket.masks.shapes.items()}
    bits["dense/kernel"].flat[:5] = True
    with pytest.raises(ValueError, match="one unit a layer.*the 5 weights"):
        controls.small_dense(dataclasses.replace(ticket, masks=Masks(bits)), 0)


def test_initial_magnitude_keeps_the_largest_of_each_kernel():
    kernels = {
        "a": np.array([[1.0, -5.0], [3.0, -2.0]]),
        "b": np.array([4.0, 4.0, -4.0, 0.0]),
    }
    masks = Masks({"a": [[1, 0], [0, 1]], "b": [0, 1, 1, 0]})
    ticket = Ticket(1, masks, State(0, kernels, {}))
    made = controls.initial_magnitude(ticket, seed=0)
    # Of equal ones the first stay.
    assert made.masks == Masks({"a": [[0, 1], [1, 0]], "b": [1, 1, 0, 0]})
    assert made.origin is ticket.origin
