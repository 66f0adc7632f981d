"""This module knows the search as a Keras user meets it: compile and fit."""

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import controls as controls_
from tf_lottery import data, identity, masking, pruning, search
from tf_lottery.analysis import winning
from tf_lottery.crews import Chief, Crew, Here, follow, has_workers, is_chief
from tf_lottery.duration import Duration
from tf_lottery.masking.coverage import Patterns
from tf_lottery.progress import Progress
from tf_lottery.pruning import allocation as allocations
from tf_lottery.pruning import rates as rates_
from tf_lottery.pruning import schedule as schedules
from tf_lottery.store import Record, RunDirectory
from tf_lottery.study import Study, Walk
from tf_lottery.tickets import Ticket
from tf_lottery.training import Recipe, Trainer, checkpoint


class TicketSearch:
    """Finds winning tickets of a Keras model.

    Use it as a Keras model: `compile`, then `fit`, which trains the dense
    network, prunes it, rewinds what is left, and goes on level by level.

    Args:
        model: A built Keras 3 model of any kind: Sequential, functional,
            nested, subclassed. The search starts from its weights, and leaves
            them as they are; masks that it carries hold from level 0 on. If
            its class has a `train_step`, `test_step` or `compute_loss` of its
            own, networks train and are evaluated by it, as `training.
            own_steps` says.
        levels: Pruning rounds, >= 0.
        rate: Fraction of the survivors that goes each round, in [0, 1).
        rates: Role (`"conv"`, `"dense"`, `"embedding"`, `"recurrent"`,
            `"output"`) or glob pattern of kernel paths to a rate of its own.
            Frankle & Carbin 2019 prune the output layer at half the rate.
        criterion: What scores weights; a name of `pruning.CRITERIA` or a
            callable.
        allocation: A name of `pruning.ALLOCATIONS` (`"layerwise"`,
            `"global"`, …) or a callable.
        schedule: `"geometric"` (iterative) or `"one_shot"`.
        rewind: How far from the start tickets restart, as a `Duration`: `"0it"`
            is the paper's reset to θ0, `"500it"` or `"1ep"` a later θk.
            `"auto"`: the first step from which training is stable, which
            `Study.settle` finds by training a few copies more.
        rewinds: What goes back there: `"weights"`, `"learning_rate"` alone, or
            `"nothing"`, as `search.Pruning` says.
        seed: Seed of data order, layers' randomness, controls and the
            criterion `"random"`, >= 0.
        controls: Names of `controls.CONTROLS`, trained at every level >= 1
            (`"data_order"` at level 0 too); `"reinit*3"` trains three draws
            of one.
        theta_0: A checkpoint, `.weights.h5` or `.keras` file to take the
            initial weights from, in place of the model's own.
        include: Glob patterns of the kernels to prune; they may name other
            variables, as `masking.kernels` says. None: all kernels.
        exclude: Glob patterns of kernels not to prune.
        strategy: A `tf.distribute.Strategy` to train with. One network is
            trained by all replicas, each with its part of every batch:
            `batch_size`, learning rate and steps mean what they mean on one
            device, and so do the results but for rounding. Several networks
            are spread over the devices. Under a
            `MultiWorkerMirroredStrategy` every worker calls `fit`; the chief
            writes, and all come to the same tickets. None: where TensorFlow
            computes.

    Raises:
        TypeError: It is no Keras 3 model.
        ValueError: A setting is out of range, or a name is unknown.

    Attributes:
        coverage: A line for each kernel: masked or not, and why not.
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
        rewinds: str = "weights",
        seed: int = 0,
        controls: Sequence[str] = (),
        theta_0: str | pathlib.Path | None = None,
        include: Patterns = None,
        exclude: Patterns = None,
        strategy: tf.distribute.Strategy | None = None,
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
            pruning.find_criterion(criterion, seed),
            allocations.find(allocation),
            schedules.find(schedule),
            rewinds,
        )
        self._controls = controls_.variants(controls)
        self._rewind = None if rewind == "auto" else Duration(rewind)
        self._masks = masking.carried_masks(model, kernels)
        if rewinds != "weights":
            controls_.require_theta_k(
                self._controls, f"rewinds={rewinds!r} leaves the trained ones"
            )
        if not all(mask.all() for mask in self._masks.values()):
            controls_.require_theta_k(
                self._controls, "the model carries masks already"
            )
        # Networks train on values, masks among them: plain layers will do.
        plain = (
            masking.strip_masks(model) if masking.is_masked(model) else model
        )
        self._model, self._kernels, self._seed = plain, tuple(kernels), seed
        controls_.require_architecture(
            self._controls, masking.architecture_of(plain)
        )
        self.coverage = masking.coverage_of(model, include, exclude)
        self._theta_0, self._strategy = theta_0, strategy
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
        y: Any = None,
        batch_size: int | None = None,
        length: str | Duration = "50000it",
        evaluate_every: int = 100,
        validation_data: Any = None,
        test_data: Any = None,
        run_dir: str | pathlib.Path | None = None,
        verbose: bool = True,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> keras.callbacks.History:
        """Searches, and keeps every trained network in the run directory.

        Args:
            x: Training inputs, `[examples, ...]`; or a `tf.data.Dataset` of
                batches `(x, y)`, read once, as `data.from_arrays` says.
            y: Training targets; None if `x` holds them.
            batch_size: Examples a step. None: 60, or that of the
                `tf.data.Dataset`. Batches are drawn anew each epoch.
            length: How long each network trains, as a `Duration`.
            evaluate_every: Steps between evaluations.
            validation_data: `(x, y)`, or a `tf.data.Dataset`, to find the
                early-stop step on; a verdict needs it.
            test_data: The same to report on. It decides nothing.
            run_dir: Where to keep the run: a folder, or an address in a
                bucket, `gs://bucket/folder`. The same call again goes on where
                it stopped. None: nowhere; the search lives in memory.
            verbose: Show what is masked, and progress.
            callbacks: Keras callbacks, to which a level is an epoch: they are
                given its density, its dead units (without any input left) and
                its figures. The end of a batch is an evaluation: they are
                given the step and its figures. `CSVLogger`, `TensorBoard` and
                `LambdaCallback` work; what changes the model changes nothing
                here.

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
            batch_size=data.batch_size(x) if batch_size is None else batch_size,
            length=Duration(length),
            evaluate_every=evaluate_every,
        )
        if verbose:
            print(*self.coverage, sep="\n")
        trainer = self.trainer(recipe, dataset)
        rewind = self.rewind(trainer)
        settings = self._settings(recipe, dataset)
        if not is_chief(self._strategy):
            self.tickets, self.records = follow(trainer, settings)
            return self._history()
        with contextlib.ExitStack() as stack:
            crew: Crew = Here(trainer)
            if has_workers(self._strategy):
                crew = stack.enter_context(Chief(trainer, settings))
            if run_dir is None:
                run_dir = stack.enter_context(tempfile.TemporaryDirectory())
            directory = RunDirectory(
                run_dir,
                settings,
                {**identity.versions(), "hardware": identity.hardware()},
            )
            listeners = self._listeners(recipe, callbacks)

            def evaluated(ticket: Ticket, step: int, figures: Any) -> None:
                if ticket.variant == "ticket":
                    listeners.on_train_batch_end(step, dict(figures))

            progress = Progress(
                self.networks * trainer.steps, verbose, evaluated=evaluated
            )
            stack.callback(progress.close)
            stack.enter_context(_weights_restored(self._model))
            study = Study(trainer, directory, rewind, progress)
            self.tickets = []
            listeners.on_train_begin()
            listeners.on_epoch_begin(0)

            def found(ticket: Ticket) -> None:
                self.tickets.append(ticket)
                listeners.on_epoch_end(ticket.level, _figures(ticket))
                if ticket.level < self._pruning.levels:
                    listeners.on_epoch_begin(ticket.level + 1)

            walk = self.walk(study, trainer, 0, found)
            study.work_off([walk], crew)
            listeners.on_train_end()
            self.records = directory.records()
            if isinstance(crew, Chief):
                crew.end_with((self.tickets, self.records))
        return self._history()

    @property
    def networks(self) -> int:
        """How many networks a search trains, controls included."""
        beside = self._pruning.levels * len(self._controls)
        return (
            1
            + self._pruning.levels
            + beside
            + len(controls_.of_dense(self._controls))
        )

    def trainer(self, recipe: Recipe, dataset: data.Dataset) -> Trainer:
        """Returns what trains the networks of the search."""
        return Trainer(
            self._model, recipe, dataset, self._kernels, self._strategy
        )

    def rewind(self, trainer: Trainer) -> int | None:
        """Returns the step that tickets restart from; None: it is sought."""
        if self._rewind is None:
            return None
        step = self._rewind.steps_at(trainer.steps_per_epoch)
        if step >= trainer.steps:
            raise ValueError(
                f"`rewind` is {self._rewind}, but training ends at step "
                f"{trainer.steps}. Rewind to an earlier step."
            )
        return step

    def walk(
        self,
        study: Study,
        trainer: Trainer,
        replicate: int,
        found: Callable[[Ticket], None] | None = None,
    ) -> Walk:
        """Returns the search as a study works it off.

        Args:
            study: Which keeps θ0.
            trainer: Of the model's architecture.
            replicate: Under which replicate it is kept.
            found: Called with the ticket of each level once it is trained.
        """
        with _weights_restored(self._model):
            if self._theta_0 is not None:
                checkpoint.load_weights(self._model, self._theta_0)
            initial = trainer.initial(self._model, self._seed)
        dense = Ticket(
            level=0,
            masks=self._masks,
            origin=study.theta_0(replicate, initial),
            architecture=masking.architecture_of(self._model),
            provenance={"seed": self._seed, **identity.versions()},
        )
        return Walk(
            replicate, dense, self._pruning, self._controls, self._seed, found
        )

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

    def _wanted_records(self) -> list[Record]:
        """Leaves out levels that an earlier, longer run left behind."""
        return [r for r in self.records if r.level < len(self.tickets)]

    def _listeners(
        self, recipe: Recipe, callbacks: Sequence[keras.callbacks.Callback]
    ) -> keras.callbacks.CallbackList:
        if not callbacks:
            return keras.callbacks.CallbackList()
        # TensorBoard asks the model for its optimizer; the user's has none.
        shown = masking.copied(self._model)
        optimizer = keras.optimizers.get(recipe.optimizer)
        shown.compile(type(optimizer).from_config(optimizer.get_config()))
        return keras.callbacks.CallbackList(list(callbacks), model=shown)

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
        architecture = masking.architecture_of(self._model)
        cls = type(self._model)
        named = f"{cls.__module__}.{cls.__qualname__}"
        return {
            "model": identity.digest(architecture) or named,
            "kernels": {
                row.path: list(row.shape) for row in self.coverage if row.role
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
            "rewind": str(self._rewind or "auto"),
            **(
                {"rewinds": self._pruning.rewinds}
                if self._pruning.rewinds != "weights"
                else {}
            ),
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


def _figures(ticket: Ticket) -> dict[str, float]:
    dead = [
        int((~mask.reshape(-1, mask.shape[-1]).any(axis=0)).sum())
        for mask in ticket.masks.values()
    ]
    return {
        "density": ticket.density,
        "dead_units": sum(dead),
        **ticket.metrics,
    }


@contextlib.contextmanager
def _weights_restored(model: keras.Model) -> Iterator[None]:
    """Leaves the user's model as it was, whatever happens in between."""
    before = [np.array(v.numpy()) for v in model.variables]
    try:
        yield
    finally:
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)
        masking.derive(model)
