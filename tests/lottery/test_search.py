"""The search: tickets of fake and of real training."""

import dataclasses
import itertools

import numpy as np
import pytest
import toy
from sample_tickets import RATES, SHAPES, TWINS, dense_ticket, fake_training

from tf_lottery import masking, pruning
from tf_lottery.core.masks import Masks
from tf_lottery.lottery import search
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import Diverged, State


def run_search(how, train=fake_training, shapes=TWINS):
    dense = dense_ticket(shapes=shapes)
    return list(
        search.train_sequentially(search.find_tickets(dense, how), train)
    )


def test_levels_run_from_dense_to_the_last():
    levels = run_search(search.Pruning(3, RATES))
    assert [ticket.level for ticket, _ in levels] == [0, 1, 2, 3]
    assert levels[0][0].density == 1


def test_zero_levels_are_plain_training():
    ((ticket, _),) = run_search(search.Pruning(0, RATES))
    assert ticket.masks.density == 1


def test_counts_follow_the_rate_of_each_kernel():
    for level, (ticket, _) in enumerate(run_search(search.Pruning(3, RATES))):
        a, b = 40, 40
        for _ in range(level):
            a, b = a - round(0.2 * a), b - round(0.5 * b)
        assert ticket.masks.counts == {"a/kernel": a, "b/kernel": b}


def test_a_rate_of_zero_prunes_nothing_of_a_kernel():
    *_, (last, _) = run_search(search.Pruning(3, {**RATES, "b/kernel": 0.0}))
    assert last.masks.counts == {"a/kernel": 21, "b/kernel": 40}


def test_each_level_keeps_the_largest_that_its_own_training_left():
    levels = run_search(search.Pruning(3, RATES))
    for (before, run), (after, _) in zip(levels, levels[1:], strict=False):
        assert after.masks <= before.masks
        for path, mask in after.masks.items():
            size = np.abs(run.trained[path])
            gone = before.masks[path] & ~mask
            assert size[gone].max() <= size[mask].min()


def test_one_shot_scores_every_level_by_the_dense_network():
    levels = run_search(search.Pruning(3, RATES, schedule="one_shot"))
    dense = levels[0][1].trained
    for ticket, _ in levels[1:]:
        for path, mask in ticket.masks.items():
            size = np.abs(dense[path])
            assert size[~mask].max() <= size[mask].min()
    iterative = run_search(search.Pruning(3, RATES))
    assert levels[1][0].masks == iterative[1][0].masks
    assert levels[3][0].masks != iterative[3][0].masks


def test_global_pruning_lets_kernels_of_one_rate_compete():
    rates = dict.fromkeys(RATES, 0.5)
    levels = run_search(search.Pruning(2, rates, allocation="global"))
    run, ticket = levels[0][1], levels[1][0]
    assert ticket.masks.kept == 40
    sizes = {p: np.abs(run.trained[p]) for p in RATES}
    kept = np.concatenate([sizes[p][m] for p, m in ticket.masks.items()])
    gone = np.concatenate([sizes[p][~m] for p, m in ticket.masks.items()])
    assert gone.max() <= kept.min()


def test_a_custom_criterion_sees_trained_and_origin():
    seen = []

    def least_moved(trained, origin):
        seen.append((trained, origin))
        return {p: -np.abs(trained[p] - origin[p]) for p in trained}

    run_search(search.Pruning(2, RATES, criterion=least_moved))
    theta_0 = dense_ticket().origin.weights
    assert len(seen) == 2
    for trained, origin in seen:
        assert trained.keys() == origin.keys() == RATES.keys()
        assert all(np.array_equal(origin[p], theta_0[p]) for p in RATES)


@pytest.mark.parametrize("name", ["global", "evenly", "erk"])
@pytest.mark.parametrize("schedule", pruning.SCHEDULES)
def test_allocations_that_share_keep_the_total_of_their_rate(name, schedule):
    rates = {**dict.fromkeys(SHAPES, 0.5), "d/kernel": 0.2}
    how = search.Pruning(3, rates, allocation=name, schedule=schedule)
    before = None
    for level, (ticket, _) in enumerate(run_search(how, shapes=SHAPES)):
        counts = ticket.masks.counts
        assert counts.pop("d/kernel") == [12, 10, 8, 6][level]
        assert sum(counts.values()) == [64, 32, 16, 8][level]
        assert before is None or ticket.masks <= before
        before = ticket.masks


def test_erk_keeps_small_kernels_denser_at_every_level():
    # Dimensions add up to 2, 8 and 14. "a" has one weight and keeps it; 31, 15
    # and 7 for the others are 11.3 + 19.7, 5.5 + 9.5 (5.45 + 9.55) and
    # 2.5 + 4.5 (2.55 + 4.45).
    shapes = {path: s for path, s in SHAPES.items() if path != "d/kernel"}
    how = search.Pruning(3, dict.fromkeys(shapes, 0.5), allocation="erk")
    counts = [
        list(ticket.masks.counts.values())
        for ticket, _ in run_search(how, shapes=shapes)
    ]
    assert counts == [[1, 15, 48], [1, 11, 20], [1, 5, 10], [1, 3, 4]]


def test_a_share_that_would_grow_as_the_total_falls_does_not():
    # 8 weights are 4, 3 and 1 by largest remainders, 7 would be 3, 2 and 2:
    # the Alabama paradox. But of "c" only one survives; 3.5 + 2.5 are left.
    shapes = {"a/kernel": (1, 6), "b/kernel": (3, 2), "c/kernel": (1, 2)}
    how = search.Pruning(7, dict.fromkeys(shapes, 0.1), allocation="erk")
    levels = run_search(how, shapes=shapes)
    counts = [list(ticket.masks.counts.values()) for ticket, _ in levels]
    assert counts[6:] == [[4, 3, 1], [4, 2, 1]]


@pytest.mark.parametrize("name", pruning.CRITERIA)
def test_every_criterion_searches(name):
    levels = run_search(search.Pruning(2, RATES, criterion=name))
    theta_0 = dense_ticket().origin.weights
    for (before, run), (after, _) in itertools.pairwise(levels):
        scores = pruning.CRITERIA[name](
            *({p: w[p] for p in RATES} for w in (run.trained, theta_0))
        )
        assert after.masks <= before.masks
        for path, mask in after.masks.items():
            gone = before.masks[path] & ~mask
            assert scores[path][gone].max() <= scores[path][mask].min()


def test_every_level_restarts_from_theta_0_masked():
    levels = run_search(search.Pruning(2, RATES))
    theta_0 = dense_ticket().origin.weights
    for ticket, run in levels:
        for path, mask in ticket.masks.items():
            start = ticket.start.weights[path]
            assert np.array_equal(start, theta_0[path] * mask)
            assert (run.trained[path] != start).any()
        assert np.array_equal(ticket.start.weights["a/bias"], theta_0["a/bias"])


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 12])
def test_real_training_restarts_from_theta_k(step):
    trainer = toy.trainer(toy.mlp(dropout=0.3))
    masks = masking.get_masks(trainer.model)
    dense = Ticket(level=0, masks=masks, origin=trainer.state)
    how = search.Pruning(2, dict.fromkeys(masks, 0.3))

    def train(ticket):
        capture = step if ticket.level == 0 else None
        return toy.train(trainer, ticket.start, ticket.masks, capture)

    levels = list(
        search.train_sequentially(search.find_tickets(dense, how), train)
    )
    (theta_k,) = levels[0][1].captured
    assert theta_k.step == step
    for ticket, run in levels[1:]:
        assert ticket.origin.digest == theta_k.digest
        for path, mask in ticket.masks.items():
            assert (run.trained[path][~mask] == 0).all()


def test_a_kernel_is_never_emptied():
    with pytest.raises(ValueError, match="No weight of a/kernel"):
        run_search(search.Pruning(30, {"a/kernel": 0.6, "b/kernel": 0.1}))


def test_rewinding_the_learning_rate_alone_keeps_the_trained_weights():
    levels = run_search(search.Pruning(2, RATES, rewind_mode="learning_rate"))
    for (_, before), (ticket, _) in itertools.pairwise(levels):
        for path, weight in before.trained.items():
            mask = ticket.masks.get(path, True)
            assert np.array_equal(ticket.start.weights[path], weight * mask)
        assert ticket.start.step == 0
    masks = [ticket.masks for ticket, _ in levels]
    assert [m.counts for m in masks] == [
        ticket.masks.counts
        for ticket, _ in run_search(search.Pruning(2, RATES))
    ]


def test_all_but_the_weights_restarts_from_step_k():
    slots = {"a/kernel/momentum": np.ones((5, 8), "f"), "iteration": 7}
    start = dense_ticket().origin

    def train(ticket):
        captured = (State(7, start.weights, slots),)
        return dataclasses.replace(fake_training(ticket), captured=captured)

    levels = run_search(
        search.Pruning(1, RATES, rewind_mode="learning_rate"), train
    )
    (_, before), (ticket, _) = levels
    mask = ticket.masks["a/kernel"]
    assert ticket.start.step == ticket.start.slots["iteration"] == 7
    assert np.array_equal(ticket.start.slots["a/kernel/momentum"], mask)
    trained = before.trained["a/kernel"] * mask
    assert np.array_equal(ticket.start.weights["a/kernel"], trained)


def test_what_else_could_be_rewound_is_not_known():
    with pytest.raises(ValueError, match="Known: weights, learning_rate"):
        search.Pruning(1, RATES, rewind_mode="biases")


def test_tickets_carry_the_trained_dense_network():
    levels = run_search(search.Pruning(2, RATES))
    dense = levels[0][1].trained
    assert all(ticket.dense_trained is dense for ticket, _ in levels[1:])


def test_random_streams_stay_at_step_k_while_weights_are_kept():
    stream = "dropout/seed_generator_state"
    start = dense_ticket().origin
    theta_k = State(7, {**start.weights, stream: np.array([1, 7])}, {})

    def train(ticket):
        run = fake_training(ticket)
        trained = {**run.trained, stream: np.array([1, 99])}
        return dataclasses.replace(run, trained=trained, captured=(theta_k,))

    how = search.Pruning(1, RATES, rewind_mode="learning_rate")
    (_, before), (ticket, _) = run_search(how, train)
    assert ticket.origin.weights[stream].tolist() == [1, 7]
    bias = ticket.origin.weights["a/bias"]
    assert np.array_equal(bias, before.trained["a/bias"])


@pytest.mark.parametrize(
    ("level", "schedule", "trained"),
    [
        (0, "geometric", 1),
        (0, "one_shot", 1),
        (1, "geometric", 2),
        (1, "one_shot", 4),
    ],
)
def test_a_search_ends_where_nothing_is_left_to_score(level, schedule, trained):
    def train(ticket):
        if ticket.level == level:
            return Diverged(3, 4, np.nan)
        return fake_training(ticket)

    levels = run_search(search.Pruning(3, RATES, schedule=schedule), train)
    assert len(levels) == trained


# How many weights a level keeps, before anything is trained.

MASKS = Masks.ones({"a": (4, 5), "b": (4, 5)})


def test_budgets_name_the_kernels_that_are_pruned_only():
    how = search.Pruning(2, {"a": 0.5, "b": 0.0})
    assert search.budgets(MASKS, how, 2) == {("a",): 5}
    assert search.density_at(MASKS, how, 2) == (5 + 20) / 40


def test_budgets_of_shared_kernels_go_by_those_that_survive():
    how = search.Pruning(1, {"a": 0.5, "b": 0.5}, allocation="evenly")
    few = Masks({"a": np.arange(20).reshape(4, 5) < 3, "b": MASKS["b"]})
    assert search.budgets(MASKS, how, 1) == {("a",): 10, ("b",): 10}
    assert search.budgets(MASKS, how, 1, few) == {("a",): 3, ("b",): 17}


def test_a_level_that_would_empty_a_group_has_no_density():
    how = search.Pruning(0, {"a": 0.6, "b": 0.0})  # 20, 8, 3, 1, 0
    densities = [search.density_at(MASKS, how, level) for level in range(5)]
    assert densities == [1, 28 / 40, 23 / 40, 21 / 40, None]
    assert search.with_max_levels(MASKS, how).levels == 3


@pytest.mark.parametrize(
    ("density", "levels"), [(1, 0), (0.7, 1), (0.69, 2), (21 / 40, 3)]
)
def test_a_density_is_reached_at_the_first_level_that_has_it(density, levels):
    how = search.Pruning(9, {"a": 0.6, "b": 0.0})
    assert search.until_density(MASKS, how, density).levels == levels


def test_a_density_out_of_reach_names_the_last_level_with_weights():
    how = search.Pruning(9, {"a": 0.6, "b": 0.0})
    with pytest.raises(ValueError, match="level 3 keeps 0.525 of the weights"):
        search.until_density(MASKS, how, 0.5)


def test_levels_end_where_rounds_prune_no_more_or_at_99():
    # Of 2 weights, a round prunes round(0.4): none.
    how = search.Pruning(9, {"a": 0.2})
    two = Masks({"a": [1, 1]})
    assert search.with_max_levels(two, how).levels == 1
    many = Masks.ones({"a": (10**6,)})
    slow = search.Pruning(9, {"a": 0.01})
    assert search.with_max_levels(many, slow).levels == 99
    reached = search.density_at(many, slow, 99)
    assert search.until_density(many, slow, reached).levels == 99
    with pytest.raises(ValueError, match="is out of reach at these rates"):
        search.until_density(many, slow, reached / 2)
