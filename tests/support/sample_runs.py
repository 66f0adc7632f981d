"""Run directories that several test files use."""

import concurrent.futures
import dataclasses
import math
import time

import numpy as np
import sample_tickets

from tf_lottery.core.storage.leases import Leases
from tf_lottery.lottery import search
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training import Diverged

FINGERPRINT = {"rate": 0.2, "optimizer": {"name": "adam", "beta": [0.9]}}


def directory(path, fingerprint=FINGERPRINT):
    return RunDirectory.open_or_create(path, fingerprint, {"preset": "toy"})


def fake_run(ticket):
    run = sample_tickets.fake_training(ticket)
    draw = np.random.default_rng(ticket.level)
    return type(run)(
        trained=run.trained,
        metrics={"steps": 5, "test_accuracy": 0.25, "seconds": 1.5},
        curve=({"step": 5, "loss": 0.5},),
        per_example={"test": draw.random(13) < 0.5},
    )


def fill(kept, levels=2):
    how = search.Pruning(levels, sample_tickets.RATES)
    tickets = search.find_tickets(sample_tickets.dense_ticket(), how)
    found = list(search.train_sequentially(tickets, fake_run))
    for ticket, run in found:
        kept.save(0, ticket, run)
    return found


def found_tickets(levels=2):
    how = search.Pruning(levels, sample_tickets.RATES)
    tickets = search.find_tickets(sample_tickets.dense_ticket(), how)
    return list(search.train_sequentially(tickets, fake_run))


def tree(path):
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in sorted(path.rglob("*"))
        if p.is_file()
    }


def diverges_and_comes_back(kept, opened):
    """Holds what a run keeps of a network that diverged, and then did not.

    `opened` opens the directory as a process that knows nothing of it.
    """
    (dense, run), (ticket, other), *_ = found_tickets()
    kept.save(0, dense, run)
    kept.save(0, ticket, other)
    outcome = Diverged(20, 30, math.inf)
    kept.save_diverged(0, ticket, outcome)
    (network,) = opened().diverged()
    place = network.replicate, network.level, network.variant, network.step
    assert place == (0, 1, "ticket", 30)
    assert opened().load_diverged(0, ticket) == outcome == network.outcome
    assert opened().load(0, ticket) is None
    assert [row["level"] for row in opened().rows()] == [0]
    assert [record.level for record in opened().records()] == [0]
    # What came out differently did not diverge.
    unlike = dataclasses.replace(ticket, data_seed=5)
    assert opened().load_diverged(0, unlike) is None
    assert opened().load_diverged(1, ticket) is None
    kept.save(0, ticket, other)
    assert opened().diverged() == []
    assert opened().load_diverged(0, ticket) is None
    assert [row["level"] for row in opened().rows()] == [0, 1]


def by(condition):
    """Waits for something that is to happen, and not for long."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def took_at_once(place, count=8):
    """Returns of each of several who take one lease whether it has it."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(
            pool.map(lambda _: Leases(place).acquire("dense"), range(count))
        )
