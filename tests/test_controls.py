"""Controls: every row of the table, and what each takes away."""

import dataclasses

import numpy as np
import pytest
import test_tickets
import toy

from tf_lottery import controls
from tf_lottery.tickets import Ticket


@pytest.fixture(scope="module", params=["mlp", "convnet", "rewound"])
def ticket(request):
    model = {"convnet": toy.convnet}.get(request.param, toy.mlp)()
    return test_tickets.make(model, step=9 if request.param == "rewound" else 0)


@pytest.mark.parametrize("name", controls.CONTROLS)
def test_a_control_differs_from_its_ticket_and_keeps_its_counts(name, ticket):
    made = controls.find(name)(ticket, seed=0)
    assert made.variant == name
    assert made.level == ticket.level
    assert made.masks.counts == ticket.masks.counts
    assert made.start.digest != ticket.start.digest
    assert made.metrics == {}
    assert made.trained is None


@pytest.mark.parametrize("name", controls.CONTROLS)
def test_a_control_is_a_function_of_the_seed_and_the_level(name, ticket):
    control = controls.find(name)
    first = control(ticket, seed=0).start.digest
    assert control(ticket, seed=0).start.digest == first
    assert control(ticket, seed=1).start.digest != first
    other = dataclasses.replace(ticket, level=ticket.level + 1)
    assert control(other, seed=0).start.digest != first


@pytest.mark.parametrize("name", controls.CONTROLS)
def test_a_control_trains(name, ticket):
    made = controls.find(name)(ticket, seed=0)
    model = toy.convnet() if "conv2d/kernel" in ticket.masks else toy.mlp()
    trainer = toy.trainer(model)
    run = trainer.train(made.start, made.masks)
    for path, mask in made.masks.items():
        assert (run.trained[path][~mask] == 0).all()


def test_reinit_keeps_the_masks_and_draws_from_the_initialiser():
    ticket = test_tickets.make(density=0.9)
    made = controls.reinit(ticket, seed=0)
    assert made.masks == ticket.masks
    assert made.origin.step == 0
    assert made.origin.slots == {}
    for path in ticket.masks:
        new = made.origin.weights[path]
        old = ticket.origin.weights[path]
        assert not np.isin(new, old).any()
    kernel = made.origin.weights["dense/kernel"]
    assert kernel.std() == pytest.approx(np.sqrt(2 / (36 + 16)), rel=0.1)
    assert (made.origin.weights["dense/bias"] == 0).all()


def test_reinit_does_not_depend_on_the_tickets_weights():
    ticket = test_tickets.make()
    moved = {p: w + 1 for p, w in ticket.origin.weights.items()}
    other = dataclasses.replace(
        ticket, origin=dataclasses.replace(ticket.origin, weights=moved)
    )
    one, two = (controls.reinit(t, seed=0) for t in (ticket, other))
    assert one.origin.digest == two.origin.digest


def test_shuffle_moves_the_masks_and_keeps_the_weights():
    ticket = test_tickets.make()
    made = controls.shuffle(ticket, seed=0)
    assert made.masks != ticket.masks
    assert made.origin is ticket.origin
    assert made.masks.jaccard(ticket.masks) < 0.5
    for path, mask in made.masks.items():
        start = made.start.weights[path]
        assert np.array_equal(start, ticket.origin.weights[path] * mask)


def test_kernels_of_equal_shape_shuffle_apart():
    ticket = test_tickets.make()
    mask = ticket.masks["dense/kernel"]
    masks = type(ticket.masks)({"a": mask, "b": mask})
    weights = {"a": np.ones(mask.shape), "b": np.ones(mask.shape)}
    origin = dataclasses.replace(ticket.origin, weights=weights)
    twins = dataclasses.replace(ticket, masks=masks, origin=origin)
    made = controls.shuffle(twins, seed=0).masks
    assert not np.array_equal(made["a"], made["b"])


def test_a_ticket_from_a_file_cannot_be_shuffled(tmp_path):
    test_tickets.make().save(tmp_path / "t")
    loaded = Ticket.load(tmp_path / "t")
    with pytest.raises(
        ValueError, match="holds only the weights of the ticket"
    ):
        controls.shuffle(loaded, seed=0)
    assert controls.reinit(loaded, seed=0).masks == loaded.masks


def test_an_unknown_control_lists_the_known():
    with pytest.raises(ValueError, match="Did you mean 'reinit'.*shuffle"):
        controls.find("reinitt")
