"""Searches that several test files use."""

import keras
import toy

from tf_lottery.ticket_search import TicketSearch
from tf_lottery.training import Trainer


def prepare(model=None, **settings):
    settings = {"levels": 2, "rate": 0.4, **settings}
    search = TicketSearch(toy.mlp() if model is None else model, **settings)
    search.compile(keras.optimizers.Adam(3e-3), toy.loss())
    return search


def fit(search, run_dir=None, **settings):
    settings = {
        "batch_size": 20,
        "length": "40it",
        "evaluate_every": 10,
        "validation_data": toy.digits(200, seed=2),
        "test_data": toy.digits(300, seed=3),
        "verbose": False,
        **settings,
    }
    return search.fit(*toy.digits(seed=1), run_dir=run_dir, **settings)


class Trainings:
    """Counts trainings, and interrupts the one numbered `stop_at`."""

    def __init__(self, monkeypatch, stop_at=None):
        self.count = 0
        real = Trainer.outcomes

        def outcomes(trainer, *args, **kwargs):
            self.count += 1
            if self.count == stop_at:
                raise KeyboardInterrupt
            return real(trainer, *args, **kwargs)

        monkeypatch.setattr(Trainer, "outcomes", outcomes)
