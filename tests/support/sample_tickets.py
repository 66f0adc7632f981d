"""Tickets that several test files use."""

import dataclasses

import numpy as np
import toy

from tf_lottery import masking
from tf_lottery.core.masks import Masks
from tf_lottery.lottery import rewinding
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import Job, State, TrainingResult


def make(model=None, step=0, density=0.4):
    trainer = toy.trainer(model or toy.mlp())
    origin = trainer.state
    ones = masking.get_masks(trainer.model)
    if step:
        origin = toy.train(trainer, origin, ones, capture=step).captured[0]
    return Ticket(
        level=3,
        masks=toy.random_masks(trainer.model, density),
        origin=origin,
        architecture=masking.architecture_of(trainer.model),
        metrics={"test_accuracy": 0.5},
        provenance={"seed": 0},
    )


RATES = {"a/kernel": 0.2, "b/kernel": 0.5}


# Of equal sizes; and of sizes 1, 15, 48 and 12.
TWINS = dict.fromkeys(RATES, (5, 8))


SHAPES = {
    "a/kernel": (1, 1),
    "b/kernel": (3, 5),
    "c/kernel": (6, 8),
    "d/kernel": (3, 4),
}


def dense_ticket(seed=0, shapes=TWINS):
    draw = np.random.default_rng(seed)
    weights = {p: draw.normal(size=s).astype("f") for p, s in shapes.items()}
    weights["a/bias"] = draw.normal(size=8).astype("f")
    masks = Masks.ones(shapes)
    return Ticket(level=0, masks=masks, origin=State(0, weights, {}))


def fake_training(ticket, seed=1):
    """Adds noise to what the mask keeps, as training would."""
    draw = np.random.default_rng((seed, ticket.level))
    trained = {
        p: w + draw.normal(size=w.shape).astype("f") * ticket.masks[p]
        if p in ticket.masks
        else w + 1
        for p, w in ticket.start.weights.items()
    }
    return TrainingResult(trained=trained, metrics={}, curve=(), per_example={})


def trained_ticket(model, density=0.4):
    ticket = make(model, density=density)
    trained = {
        p: w * ticket.masks[p] * 1.5 if p in ticket.masks else w
        for p, w in ticket.origin.weights.items()
    }
    return dataclasses.replace(ticket, trained=trained)


def jobs(trainer, count=3):
    """Networks that differ in weights, masks and seed."""
    made = []
    for seed in range(count):
        masks = toy.random_masks(trainer.model, seed=seed)
        state = trainer.initial(trainer.model, seed)
        draw = np.random.default_rng(seed)
        weights = {
            path: (value + draw.normal(scale=0.01, size=value.shape)).astype(
                value.dtype
            )
            if value.dtype == np.float32
            else value
            for path, value in state.weights.items()
        }
        state = type(state)(0, weights, {})
        made.append(Job(rewinding.rewind(state, masks), masks, seed))
    return made
