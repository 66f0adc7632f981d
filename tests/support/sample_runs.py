"""Small run directories for tests."""

import dataclasses
import math
import time

import numpy as np
import sample_tickets

from tf_lottery.lottery import search
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training import Diverged

FINGERPRINT = {"rate": 0.2, "optimizer": {"name": "adam", "beta": [0.9]}}


def open_run(path, fingerprint=FINGERPRINT):
    return RunDirectory.open_or_create(path, fingerprint, {"preset": "toy"})


def fake_training(ticket):
    result = sample_tickets.fake_training(ticket)
    draw = np.random.default_rng(ticket.level)
    return type(result)(
        trained=result.trained,
        metrics={"steps": 5, "test_accuracy": 0.25, "seconds": 1.5},
        curve=({"step": 5, "loss": 0.5},),
        per_example={"test": draw.random(13) < 0.5},
    )


def trained_tickets(levels=2):
    """Returns tickets by level, each with the result of its training."""
    pruning = search.Pruning(levels, sample_tickets.RATES)
    tickets = search.find_tickets(sample_tickets.dense_ticket(), pruning)
    return list(search.train_sequentially(tickets, fake_training))


def fill(directory, levels=2):
    """Saves trained tickets in a run directory, and returns them."""
    trained = trained_tickets(levels)
    for ticket, result in trained:
        directory.save(0, ticket, result)
    return trained


def tree(path):
    """Returns all files of a folder: name to content."""
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in sorted(path.rglob("*"))
        if p.is_file()
    }


def check_diverged_network(directory, reopen):
    """Checks that a run stores a divergence, and later a result instead.

    `reopen` opens the directory as a process without any local files.
    """
    (dense, dense_result), (ticket, result), *_ = trained_tickets()
    directory.save(0, dense, dense_result)
    directory.save(0, ticket, result)
    outcome = Diverged(20, 30, math.inf)
    directory.save_diverged(0, ticket, outcome)
    (network,) = reopen().diverged()
    assert (network.replicate, network.level) == (0, 1)
    assert (network.variant, network.step) == ("ticket", 30)
    assert reopen().load_diverged(0, ticket) == outcome == network.outcome
    assert reopen().load(0, ticket) is None
    assert [row["level"] for row in reopen().rows()] == [0]
    assert [record.level for record in reopen().records()] == [0]
    # Another training of the same level did not diverge.
    other = dataclasses.replace(ticket, data_seed=5)
    assert reopen().load_diverged(0, other) is None
    assert reopen().load_diverged(1, ticket) is None
    directory.save(0, ticket, result)
    assert reopen().diverged() == []
    assert reopen().load_diverged(0, ticket) is None
    assert [row["level"] for row in reopen().rows()] == [0, 1]


def wait_until(condition):
    """Waits for a condition that becomes true soon."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
