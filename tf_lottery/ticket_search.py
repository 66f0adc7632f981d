"""This module knows the search as a Keras user meets it: compile and fit."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery import controls as controls_
from tf_lottery import data, identity, masking, pruning, search
from tf_lottery.analysis import winning
from tf_lottery.duration import Duration
from tf_lottery.masking.coverage import Patterns
from tf_lottery.masks import Masks
from tf_lottery.once import TrainOnce
from tf_lottery.progress import Progress
from tf_lottery.pruning import allocation as allocations
from tf_lottery.pruning import rates as rates_
from tf_lottery.pruning import schedule as schedules
from tf_lottery.store import Record, RunDirectory
from tf_lottery.tickets import Ticket
from tf_lottery.training import Recipe, Trainer, checkpoint


class TicketSearch:
    """Finds winning tickets of a Keras model.

    Use it as a Keras model: `compile`, then `fit`, which trains the dense
    network, prunes it, rewinds what is left, and goes on level by level.

    Args:
        model: A built Keras 3 model of Dense and Conv2D layers among others.
            The search starts from its weights, and leaves them as they are.
        levels: Pruning rounds, >= 0.
        rate: Fraction of the survivors that goes each round, in [0, 1).
        rates: Role (`"conv"`, `"dense"`, `"output"`) or glob pattern of
            kernel paths to a rate of its own. Frankle & Carbin 2019 prune the
            output layer at half the rate.
        criterion: What scores weights; a name of `pruning.CRITERIA` or a
            callable.
        allocation: `"layerwise"`, `"global"`, or a callable.
        schedule: `"geometric"` (iterative) or `"one_shot"`.
        rewind: How far from the start tickets restart, as a `Duration`: `"0it"`
            is the paper's reset to θ0, `"500it"` or `"1ep"` a later θk.
        seed: Seed of data order, layers' randomness and controls, >= 0.
        controls: Names of `controls.CONTROLS`, trained at every level >= 1.
        theta_0: A checkpoint, `.weights.h5` or `.keras` file to take the
            initial weights from, in place of the model's own.
        include: Glob patterns of the kernels to prune. None: all.
        exclude: Glob patterns of kernels not to prune.

    Raises:
        TypeError: It is no Keras 3 model.
        ValueError: A setting is out of range, or a name is unknown.

    Attributes:
        tickets: After `fit`: the tickets, by level; level 0 is the dense
            network.
        records: What is known of every trained network, controls included.
    """

    def __init__(
        self,
        model: keras.Model,
        levels: int = 15,
        rate: float = 0.2,
        rates: Mapping[str, float] | None = None,
        criterion: str | pruning.Criterion = "magnitude",
        allocation: str | allocations.Allocation = "layerwise",
        schedule: str | schedules.Schedule = "geometric",
        rewind: str | Duration = "0it",
        seed: int = 0,
        controls: Sequence[str] = (),
        theta_0: str | pathlib.Path | None = None,
        include: Patterns = None,
        exclude: Patterns = None,
    ) -> None:
        if not isinstance(levels, int) or levels < 0:
            raise ValueError(
                f"`levels` must be a whole number of 0 or more; got {levels!r}."
            )
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(
                f"`seed` must be a whole number of 0 or more; got {seed!r}."
            )
        kernels = masking.kernels(model, include, exclude)
        self._pruning = search.Pruning(
            levels,
            rates_.rates_by_path(kernels, rate, rates),
            pruning.find_criterion(criterion),
            allocations.find(allocation),
            schedules.find(schedule),
        )
        self._controls = {name: controls_.find(name) for name in controls}
        self._rewind = Duration(rewind)
        self._model, self._kernels, self._seed = model, tuple(kernels), seed
        self._theta_0 = theta_0
        self._compiled: dict[str, Any] | None = None
        self.tickets: list[Ticket] = []
        self.records: list[Record] = []

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        metrics: Sequence[Any] = ("accuracy",),
    ) -> None:
        """Says how networks are trained, as `keras.Model.compile` does.

        Args:
            optimizer: Name or object; its learning rate may be a schedule.
            loss: Name, function or object.
            metrics: Names, functions or objects. `"accuracy"` is needed for a
                verdict.
        """
        self._compiled = {
            "optimizer": optimizer,
            "loss": loss,
            "metrics": tuple(metrics),
        }

    def fit(
        self,
        x: Any,
        y: Any,
        batch_size: int = 60,
        length: str | Duration = "50000it",
        evaluate_every: int = 100,
        validation_data: Any = None,
        test_data: Any = None,
        run_dir: str | pathlib.Path | None = None,
        verbose: bool = True,
    ) -> keras.callbacks.History:
        """Searches, and keeps every trained network in the run directory.

        Args:
            x: Training inputs, `[examples, ...]`.
            y: Training targets.
            batch_size: Examples a step.
            length: How long each network trains, as a `Duration`.
            evaluate_every: Steps between evaluations.
            validation_data: `(x, y)` to find the early-stop step on; a verdict
                needs it.
            test_data: `(x, y)` to report on. It decides nothing.
            run_dir: Where to keep the run. The same call again goes on where
                it stopped. None: nowhere; the search lives in memory.
            verbose: Show progress.

        Returns:
            A Keras history with one epoch per level: `history.history` maps
            `"density"`, `"early_stop_step"`, `"test_accuracy"`, … to a list
            over levels.

        Raises:
            ValueError: Settings, model and data do not fit together, the loss
                became nan, or the directory holds another run.
        """
        dataset = data.from_arrays(x, y, validation_data, test_data)
        recipe = self._recipe(
            batch_size=batch_size,
            length=Duration(length),
            evaluate_every=evaluate_every,
        )
        with contextlib.ExitStack() as stack:
            if run_dir is None:
                run_dir = stack.enter_context(tempfile.TemporaryDirectory())
            directory = RunDirectory(
                run_dir, self._settings(recipe, dataset), identity.versions()
            )
            networks = 1 + self._pruning.levels * (1 + len(self._controls))
            steps = recipe.length.steps_at(len(x) // batch_size)
            progress = Progress(networks * steps, verbose)
            stack.callback(progress.close)
            self.search(recipe, dataset, directory, 0, progress)
        return self._history()

    def search(
        self,
        recipe: Recipe,
        dataset: data.Dataset,
        directory: RunDirectory,
        replicate: int,
        progress: Progress,
    ) -> None:
        """Searches with everything given as values; what `fit` calls.

        Args:
            recipe: How networks are trained.
            dataset: What they are trained on.
            directory: Where they are kept, and found if they are there.
            replicate: Under which replicate.
            progress: Told how it goes.
        """
        with _weights_restored(self._model):
            if self._theta_0 is not None:
                checkpoint.load_weights(self._model, self._theta_0)
            trainer = Trainer(
                self._model, recipe, dataset, self._seed, self._kernels
            )
            rewind = self._rewind.steps_at(trainer.steps_per_epoch)
            if rewind >= trainer.steps:
                raise ValueError(
                    f"`rewind` is {self._rewind}, but training ends at step "
                    f"{trainer.steps}. Rewind to an earlier step."
                )
            train = TrainOnce(trainer, directory, replicate, rewind, progress)
            self._walk(train)
        self.records = [
            r for r in directory.records() if r.replicate == replicate
        ]

    def winning_ticket(self) -> Ticket:
        """Returns the smallest ticket that wins.

        Which wins is decided as `analysis.winning.judge` says, on validation
        data.

        Raises:
            ValueError: No ticket wins; the message says of each level why.
        """
        if not self.tickets:
            raise ValueError("There are no tickets yet: call fit first.")
        verdicts = winning.judge(self._wanted_records())
        best = winning.winner(verdicts)
        if best is None:
            reasons = "; ".join(f"level {v.level} {v.reason}" for v in verdicts)
            raise ValueError(
                f"No ticket wins: {reasons or 'there is only level 0'}."
            )
        return self.tickets[best.level]

    def _walk(self, train: TrainOnce) -> None:
        carried = masking.get_masks(self._model)
        first = Masks({path: carried[path] for path in self._kernels})
        dense = Ticket(
            level=0,
            masks=first,
            origin=train.theta_0(),
            architecture=masking.architecture_of(self._model),
            provenance={"seed": self._seed, **identity.versions()},
        )
        tickets = search.find_tickets(dense, self._pruning)
        self.tickets = []
        for ticket, run in search.follow(tickets, train):
            self.tickets.append(
                dataclasses.replace(
                    ticket, metrics=run.metrics, trained=run.trained
                )
            )
            for control in self._controls.values() if ticket.level else ():
                train(control(ticket, self._seed))

    def _wanted_records(self) -> list[Record]:
        """Leaves out levels that an earlier, longer run left behind."""
        return [r for r in self.records if r.level < len(self.tickets)]

    def _recipe(self, **settings: Any) -> Recipe:
        if self._compiled is None:
            raise ValueError(
                "Call compile(optimizer=..., loss=...) before fit."
            )
        return Recipe(**self._compiled, **settings)

    def _settings(
        self, recipe: Recipe, dataset: data.Dataset
    ) -> dict[str, Any]:
        """Returns what determines the results; levels may grow."""
        describe = identity.described
        return {
            "model": identity.digest(masking.architecture_of(self._model)),
            "kernels": {
                path: list(kernel.variable.shape)
                for path, kernel in masking.kernels(self._model).items()
            },
            "data": dataset.digest,
            "optimizer": describe(keras.optimizers.get(recipe.optimizer)),
            "loss": describe(recipe.loss),
            "metrics": [describe(metric) for metric in recipe.metrics],
            "batch_size": recipe.batch_size,
            "length": str(recipe.length),
            "evaluate_every": recipe.evaluate_every,
            "rates": dict(self._pruning.rates),
            "criterion": describe(self._pruning.criterion),
            "allocation": describe(self._pruning.allocation),
            "schedule": describe(self._pruning.schedule),
            "rewind": str(self._rewind),
            "theta_0": None if self._theta_0 is None else str(self._theta_0),
            "seed": self._seed,
        }

    def _history(self) -> keras.callbacks.History:
        history = keras.callbacks.History()
        history.set_model(self._model)
        history.epoch = [ticket.level for ticket in self.tickets]
        names = ["density", *self.tickets[0].metrics]
        history.history = {
            name: [
                ticket.density if name == "density" else ticket.metrics[name]
                for ticket in self.tickets
            ]
            for name in names
        }
        return history


@contextlib.contextmanager
def _weights_restored(model: keras.Model) -> Iterator[None]:
    """Leaves the user's model as it was, whatever happens in between."""
    before = [np.array(v.numpy()) for v in model.variables]
    try:
        yield
    finally:
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)
