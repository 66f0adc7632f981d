"""The search that a Keras user calls: `compile`, then `fit`."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lottery import data, pruning
from tf_lottery.analysis import conclusion, smallest, verdict
from tf_lottery.analysis.deciding import Deciding, deciding
from tf_lottery.core.duration import Duration
from tf_lottery.core.errors import UserError
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.masking.coverage import Patterns
from tf_lottery.pruning import allocation as allocations
from tf_lottery.pruning import schedule as schedules
from tf_lottery.runs.executors import run_worker
from tf_lottery.runs.run_directory import DivergedNetwork, Record
from tf_lottery.ticket_search import (
    fit_arguments,
    logs,
    metric_drops,
    training_run,
)
from tf_lottery.ticket_search.callbacks import require_supported
from tf_lottery.ticket_search.search_setup import SearchSetup
from tf_lottery.ticket_search.settings import SearchSettings
from tf_lottery.training import Recipe, Trainer
from tf_lottery.training.distribution import strategies

_MAX_DROP = 0.005


class TicketSearch:
    """Finds winning tickets of a Keras model.

    Use it as a Keras model: call `compile`, then `fit`. `fit` trains the dense
    network, prunes it, rewinds the remaining weights, and repeats this level
    by level.

    Args:
        model: A built Keras 3 model: Sequential, functional, nested or
            subclassed. The search starts from its weights and does not change
            them. Masks that it carries apply from level 0 on. If its class
            overrides `train_step`, `test_step` or `compute_loss`, networks
            are trained and evaluated with these methods.
        levels: Pruning rounds, >= 0. None: 15, or as many as `density` or
            `max_drop` need.
        rate: Fraction of the remaining weights to prune each round, in [0, 1).
        rates: Role (`"conv"`, `"dense"`, `"embedding"`, `"recurrent"`,
            `"output"`) or glob pattern of kernel paths, to the rate of these
            kernels. Frankle & Carbin 2019 prune the output layer at half the
            rate.
        criterion: Scores the weights: a name of `pruning.CRITERIA` or a
            callable.
        allocation: Divides the weights to keep among kernels: a name of
            `pruning.ALLOCATIONS` (`"layerwise"`, `"global"`, …) or a callable.
        schedule: `"geometric"` (iterative) or `"one_shot"`.
        rewind: The point of training that tickets restart from, as a
            `Duration`: `"0it"` is the paper's reset to θ0, `"500it"` or
            `"1ep"` a later θk. `"auto"` trains a few more copies of the dense
            network to find the first step from which training is stable.
        rewind_mode: What is set back to that point: `"weights"`;
            `"learning_rate"`, which keeps the trained weights; or `"nothing"`,
            which is fine-tuning.
        seed: Seed of data order, layers' randomness, controls and the
            criterion `"random"`, >= 0.
        controls: Names of `controls.CONTROLS`, trained at every level >= 1
            (`"data_order"` at level 0 too). `"reinit*3"` trains three draws
            of one control.
        initial_weights: A checkpoint, `.weights.h5` or `.keras` file with the
            initial weights. None: the model's weights.
        include: Glob patterns of the kernels to prune. A pattern that matches
            no kernel may name other trainable variables. None: all kernels.
        exclude: Glob patterns of kernels not to prune.
        strategy: A `tf.distribute.Strategy` to train with. All replicas train
            one network together, each on its part of every batch, so that
            `batch_size`, learning rate and steps have the same meaning as on
            one device; results differ by rounding only. Several networks
            are distributed over the devices. Under a
            `MultiWorkerMirroredStrategy` every worker calls `fit`, the chief
            writes, and all workers get the same tickets. None: the device
            that TensorFlow chooses.
        density: In place of `levels`: the search ends at the first level
            with at most this density, in (0, 1).
        max_drop: In place of `levels`: the search ends at the first level
            that is not shown to lose at most this much of the deciding
            metric, in the metric's unit. It needs `replicates=1`.
        replicates: How often the search is repeated, >= 1; a verdict over new
            trainings needs 3 or more. Replicate 0 is the same as a search with
            one replicate. Each other replicate has its own seed, and initial
            weights drawn from the layers' initializers; frozen layers
            keep their weights. If the model was trained before, or
            `initial_weights` is given, all start from the same weights. On a
            CPU replicates train in parallel processes, with the same bytes as
            result as one after another.

    Raises:
        TypeError: `model` is not a Keras 3 model.
        UserError: A setting is out of range, or a name is unknown.

    Attributes:
        setup: The model and the settings, checked and resolved.
        coverage: For each kernel, whether it is masked, and why not.
        tickets: After `fit`: the tickets of replicate 0, by level; level 0 is
            the dense network. They end before the first level whose ticket
            diverged.
        records: Records of every trained network of all replicates, controls
            included.
    """

    def __init__(
        self,
        model: keras.Model,
        levels: int | None = None,
        rate: float = 0.2,
        rates: Mapping[str, float] | None = None,
        criterion: str | pruning.Criterion = "magnitude",
        allocation: str | allocations.Allocation = "layerwise",
        schedule: str | schedules.Schedule = "geometric",
        rewind: str | Duration = "0it",
        rewind_mode: str = "weights",
        seed: int = 0,
        controls: Sequence[str] = (),
        initial_weights: str | pathlib.Path | None = None,
        include: Patterns = None,
        exclude: Patterns = None,
        strategy: tf.distribute.Strategy | None = None,
        density: float | None = None,
        max_drop: float | None = None,
        replicates: int = 1,
    ) -> None:
        settings = SearchSettings(
            levels=levels,
            rate=rate,
            rates=rates,
            criterion=criterion,
            allocation=allocation,
            schedule=schedule,
            rewind=rewind,
            rewind_mode=rewind_mode,
            seed=seed,
            controls=controls,
            initial_weights=initial_weights,
            include=include,
            exclude=exclude,
            density=density,
            max_drop=max_drop,
            replicates=replicates,
        )
        self.setup = SearchSetup.create(model, settings)
        self.coverage = self.setup.coverage
        self._strategy = strategy
        self._compiled: dict[str, Any] | None = None
        self._validation: tuple[Recipe, data.Split] | None = None
        self._diverged: list[DivergedNetwork] = []
        self.tickets: list[Ticket] = []
        self.records: list[Record] = []

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Sets how networks are trained, with the arguments of Keras.

        Args:
            optimizer: Name or object; its learning rate may be a schedule,
                which starts at step 0 for every network.
            loss: Name, function or object; for several outputs, a list or
                dictionary of these. None: the losses that layers add.
            loss_weights: Weights of the outputs' losses, nested as `loss`.
            metrics: Names, functions or objects, nested as the outputs.
                None: accuracy if `loss` is a classification loss. The
                first accuracy decides which tickets win; without one, the
                loss decides.
            weighted_metrics: Metrics that weight examples by `sample_weight`.
            run_eagerly: Must be False: networks train in compiled loops.
            steps_per_execution: Accepted but ignored: each call runs the
                number of steps that is fastest.
            jit_compile: Whether XLA compiles training. `"auto"`: where it is
                faster and the model's layers support it.
            auto_scale_loss: Whether to scale the loss if layers compute in
                float16.

        Raises:
            UserError: A setting is not supported.
        """
        del steps_per_execution
        if run_eagerly:
            raise UserError(
                "`run_eagerly=True` is not supported: networks train in "
                "compiled loops. To debug, call model.fit with it."
            )
        self._compiled = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": fit_arguments.default_metrics(loss)
            if metrics is None
            else metrics,
            "weighted_metrics": weighted_metrics,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
        }

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        verbose: Any = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        *,
        length: str | Duration | None = None,
        evaluate_every: int | None = None,
        test_data: Any = None,
        run_dir: str | pathlib.Path | None = None,
        cluster: str | None = None,
    ) -> keras.callbacks.History:
        """Trains all networks of the search, and stores them in `run_dir`.

        Arguments that `keras.Model.fit` has mean the same as there.

        Args:
            x: Training inputs: arrays `[examples, ...]` (NumPy, pandas,
                tensors), nested in lists and dictionaries as the model takes
                them; or a stream of batches: a `tf.data.Dataset`, a
                `keras.utils.PyDataset`, a generator. A stream is read once
                and need not fit into memory.
            y: Training targets, nested as the outputs; None if `x` holds them.
            batch_size: Examples a step, >= 1. None: the size of a stream's
                batches, else 32.
            epochs: Epochs that each network trains, >= 1. None, without
                `length`: at least 3,000 steps, but 10 to 100 epochs.
            verbose: 0 prints nothing; anything else prints which kernels are
                masked, the cost of the search, and progress.
            callbacks: Keras callbacks. A level is an epoch to them, and an
                evaluation the end of a batch. They see replicate 0 only. If
                one observes training (`on_train_batch_end`), all networks
                train in this process, one after another. If one ends the
                search at a level, it ends for all replicates. Callbacks that
                change training (`EarlyStopping`, `LearningRateScheduler`, …)
                raise an error that names an alternative.
            validation_split: Fraction of the examples, taken from their end,
                to validate on, in [0, 1).
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a stream, to
                find the early-stop step; a verdict needs it.
            shuffle: Whether to shuffle examples in each epoch, those of
                streams too.
            class_weight: Class to weight in the training loss.
            sample_weight: Weights of examples in the training loss,
                `[examples]`.
            initial_epoch: Must be 0: `run_dir` resumes.
            steps_per_epoch: Number of batches of a stream in an epoch.
            validation_steps: Number of batches to read from a validation
                stream.
            validation_batch_size: Examples in a batch of an evaluation, which
                matters to losses that are not a mean over examples. None:
                `batch_size`.
            validation_freq: Must be 1: use `evaluate_every`.
            length: In place of `epochs`, how long each network trains, as a
                `Duration`: `"50000it"`.
            evaluate_every: Steps between evaluations, >= 1, at most an epoch.
                None: an epoch; with a `length` in steps, 100 steps.
            test_data: Test data in the form of `validation_data`. It is
                reported and decides nothing.
            run_dir: Where to store the run: a folder, or a bucket address,
                `gs://bucket/folder`. The same call continues a run that was
                interrupted. None: a temporary folder.
            cluster: A Ray cluster whose nodes train: `"local"` is one of this
                machine's cores; `"auto"` the one that this machine is a node
                of; or the address of its head. None: this machine. It needs
                `pip install 'tf-lottery[ray]'`.

        Returns:
            A Keras history of replicate 0, with one epoch per level:
            `history.history` maps `"density"`, `"loss"`, `"val_loss"`,
            `"val_accuracy"`, `"early_stop_step"`, `"test_accuracy"`, … to a
            list over levels. Metrics with `val_` are those at the early-stop
            step.

        Raises:
            UserError: Settings, model and data do not fit together, the loss
                of the dense network became nan, or the directory holds
                another run. If a later ticket diverges, a line is printed and
                `tickets` ends before it; if a control diverges, a line is
                printed.
        """
        fit_arguments.require_from_scratch(initial_epoch, validation_freq)
        dataset = data.from_arrays(
            x,
            y,
            validation_data,
            test_data,
            sample_weight=sample_weight,
            class_weight=class_weight,
            validation_split=validation_split,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
        )
        strategy = self._strategy
        recipe = fit_arguments.build_recipe(
            self._compiled,
            dataset,
            batch_size or dataset.batch_size or fit_arguments.BATCH_SIZE,
            fit_arguments.duration(epochs, length),
            evaluate_every,
            replicas=strategy.num_replicas_in_sync if strategy else 1,
            validation_batch_size=validation_batch_size,
            shuffle=bool(shuffle),
        )
        setup = self.setup
        trainer = Trainer(setup.model, recipe, dataset, setup.kernels, strategy)
        self._validation = None
        if dataset.validation is not None:
            self._validation = recipe, dataset.validation
        setup.require_decidable(trainer)
        setup.rewind_step(trainer)  # raises if training ends earlier
        callbacks = list(callbacks or ())
        require_supported(callbacks, trainer.logged)
        starts = setup.starts(setup.settings.replicates)
        starts.require_different(recipe.shuffle)
        is_shown = verbose not in (0, False)
        if is_shown:
            lines = *self.coverage, setup.cost(trainer), starts.summary
            print(*filter(None, lines), sep="\n")
        fingerprint = setup.fingerprint(recipe, dataset)
        if strategies.is_chief(strategy):
            self.tickets = []
            result = training_run.train(
                setup,
                trainer,
                starts,
                fingerprint,
                callbacks,
                run_dir,
                is_shown,
                self.tickets,
                cluster,
            )
        else:
            result = run_worker(trainer, fingerprint)
        tickets, self.records, self._diverged = result
        # Some controls and exports need the model that was searched.
        self.tickets = [
            dataclasses.replace(ticket, source=setup.model)
            for ticket in tickets
        ]
        return logs.history(setup.model, self.tickets)

    def winning_ticket(self) -> Ticket:
        """Returns the smallest ticket that is shown to win.

        Winning means that a new training would win too, so this needs three
        replicates or more. It is decided on validation data.

        Returns:
            The ticket of replicate 0 at that level.

        Raises:
            UserError: No ticket is shown to win; the message gives the
                reason and a remedy.
        """
        self._require_tickets()
        judgment = self.judgment()
        if judgment.winner is None:
            raise UserError(conclusion.refusal(judgment))
        return self.tickets[judgment.winner.level]

    def judgment(self) -> verdict.Judgment:
        """Returns the verdict on each level, with effects and their bounds."""
        self._require_tickets()
        return verdict.judge(
            self._wanted_records(),
            self.setup.settings.replicates,
            self._diverged,
        )

    def smallest_ticket(
        self,
        max_drop: float | None = None,
        metric: Any = None,
        min_confidence: float = smallest.CONFIDENCE,
    ) -> Ticket:
        """Returns the smallest ticket that is shown to lose little.

        The claim is about these trained networks on new examples, so one
        replicate is enough, and validation data is needed. Levels are tested
        from dense to sparse, up to the first that is not shown to lose at most
        `max_drop`. So a ticket that loses more is returned in at most 2.5 % of
        cases.

        Args:
            max_drop: How much worse than the dense network's the metric may
                be, > 0, in the metric's unit: 0.005 is half a point of
                accuracy. None: the `max_drop` of the search, else 0.005.
            metric: The metric that decides: a name that `compile` was given,
                `"loss"`, or an argument of `keras.metrics.get`. None: the
                first accuracy, else the loss.
            min_confidence: Required probability that a level loses at most
                `max_drop`, in [0.5, 1); 0.5 uses the estimates alone.

        Raises:
            UserError: No ticket is shown to lose so little (the message ranks
                all levels), the metric cannot decide, or there is no
                validation data.
        """
        self._require_tickets()
        if max_drop is None:
            max_drop = self.setup.settings.max_drop or _MAX_DROP
        drops, decided = self._drops(max_drop, metric, min_confidence)
        chosen = smallest.choose(drops, max_drop)
        if chosen is None:
            raise UserError(
                smallest.refusal(drops, decided, max_drop, min_confidence)
            )
        return self.tickets[chosen.level]

    def _drops(
        self, max_drop: float, metric: Any, confidence: float
    ) -> tuple[list[smallest.Drop], Deciding]:
        records = [r for r in self._wanted_records() if r.replicate == 0]
        decided = deciding([r.row for r in records if not r.level])
        if metric is None or metric == decided.name:
            return smallest.drops(records, max_drop, confidence), decided
        if self._validation is None:
            raise UserError(smallest.NO_VALIDATION)
        return metric_drops.drops(
            self.tickets, *self._validation, metric, max_drop, confidence
        )

    def _require_tickets(self) -> None:
        if not self.tickets:
            raise UserError("There are no tickets yet: call fit first.")

    def _wanted_records(self) -> list[Record]:
        """Leaves out the levels of an earlier, longer run."""
        return [r for r in self.records if r.level < len(self.tickets)]
