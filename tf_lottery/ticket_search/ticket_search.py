"""The search as a Keras user meets it: compile and fit."""

import contextlib
import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lottery import controls as controls_
from tf_lottery import data, masking, pruning
from tf_lottery.analysis import conclusion, smallest, verdict
from tf_lottery.analysis.deciding import Deciding, deciding
from tf_lottery.analysis.looks import Looks
from tf_lottery.core import variants
from tf_lottery.core.duration import Duration
from tf_lottery.core.errors import UserError
from tf_lottery.lottery import search
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.masking.coverage import Patterns
from tf_lottery.pruning import allocation as allocations
from tf_lottery.pruning import rates as rates_
from tf_lottery.pruning import schedule as schedules
from tf_lottery.runs import provenance
from tf_lottery.runs.executors import (
    Executor,
    InProcessExecutor,
    MultiWorkerExecutor,
    all_cores_executor,
    run_worker,
)
from tf_lottery.runs.progress import Progress
from tf_lottery.runs.record import DivergedNetwork, Record
from tf_lottery.runs.replicate_search import ReplicateSearch
from tf_lottery.runs.run_directory import RunDirectory, is_run
from tf_lottery.runs.scheduler import Scheduler
from tf_lottery.ticket_search import metric_drops
from tf_lottery.ticket_search.callbacks import (
    CallbackBridge,
    require_supported,
)
from tf_lottery.ticket_search.starts import (
    Starts,
    weights_restored,
)
from tf_lottery.training import Recipe, State, Trainer
from tf_lottery.training.distribution import strategies

_BATCH = 32  # as in keras.Model.fit
_LEVELS = 15
_MAX_DROP = 0.005


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
        levels: Pruning rounds, >= 0. None: 15, or as many as `density` or
            `max_drop` take.
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
            `Scheduler.find_rewind_step` finds by training a few copies more.
        rewind_mode: What goes back there: `"weights"`, `"learning_rate"` alone,
            or `"nothing"`, as `search.Pruning` says.
        seed: Seed of data order, layers' randomness, controls and the
            criterion `"random"`, >= 0.
        controls: Names of `controls.CONTROLS`, trained at every level >= 1
            (`"data_order"` at level 0 too); `"reinit*3"` trains three draws
            of one.
        initial_weights: A checkpoint, `.weights.h5` or `.keras` file to take
            the initial weights from, in place of the model's own.
        include: Glob patterns of the kernels to prune; they may name other
            variables, as `masking.kernels` says. None: all kernels.
        exclude: Glob patterns of kernels not to prune.
        density: In place of `levels`: the search ends at the first level
            with at most this density, in (0, 1).
        max_drop: In place of `levels`: the search ends at the first level
            that is not shown to lose at most this much of the deciding
            metric, as `smallest_ticket` says, in the metric's unit. It takes
            one replicate.
        strategy: A `tf.distribute.Strategy` to train with. One network is
            trained by all replicas, each with its part of every batch:
            `batch_size`, learning rate and steps mean what they mean on one
            device, and so do the results but for rounding. Several networks
            are spread over the devices. Under a
            `MultiWorkerMirroredStrategy` every worker calls `fit`; the chief
            writes, and all come to the same tickets. None: where TensorFlow
            computes.
        replicates: How often the search is done, >= 1; a verdict over new
            trainings takes 3 or more. Replicate 0 is the search without
            others. Each of the others has a seed of its own, and initial
            weights drawn anew from the layers' initializers; frozen layers
            keep theirs. If the model was trained before, or `initial_weights`
            is given, all start from the same weights. On a CPU they train side
            by side in processes, and come to the same bytes as in turn.

    Raises:
        TypeError: It is no Keras 3 model.
        ValueError: A setting is out of range, or a name is unknown.

    Attributes:
        coverage: A line for each kernel: masked or not, and why not.
        tickets: After `fit`: the tickets of replicate 0, by level; level 0 is
            the dense network. They end before the first level whose ticket
            diverged.
        records: What is known of every trained network of all replicates,
            controls included.
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
        _require_one_target(levels, density, max_drop)
        if not isinstance(seed, int) or seed < 0:
            raise UserError(
                f"`seed` must be a whole number of 0 or more; got {seed!r}."
            )
        if not isinstance(replicates, int) or replicates < 1:
            raise UserError(
                "`replicates` must be a whole number of 1 or more; got "
                f"{replicates!r}."
            )
        if max_drop is not None and replicates > 1:
            raise UserError(
                "`max_drop` ends a search by the networks of one replicate; "
                f"got replicates={replicates}. Leave out one of them, or give "
                "`levels` or `density`."
            )
        kernels = masking.kernels(model, include, exclude)
        self._criterion, self._replicates = criterion, replicates
        how = search.Pruning(
            _LEVELS if levels is None else levels,
            rates_.rates_by_path(kernels, rate, rates),
            pruning.find_criterion(criterion, seed),
            allocations.get(allocation),
            schedules.get(schedule),
            rewind_mode,
        )
        self._controls = controls_.variants(controls)
        self._rewind = None if rewind == "auto" else Duration(rewind)
        self._masks = masking.masks_or_ones(model, kernels)
        if density is not None:
            how = search.until_density(self._masks, how, density)
        elif max_drop is not None:
            how = search.with_max_levels(self._masks, how)
        self._pruning, self._max_drop = how, max_drop
        if rewind_mode != "weights":
            controls_.require_theta_k(
                self._controls,
                f"rewinds={rewind_mode!r} leaves the trained ones",
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
        self._initial_weights, self._strategy = initial_weights, strategy
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
        """Says how networks are trained, as `keras.Model.compile` does.

        Args:
            optimizer: Name or object; its learning rate may be a schedule,
                which starts again with every network.
            loss: Name, function or object; of several outputs, a list or
                dictionary of these. None: the model's layers add their losses.
            loss_weights: As Keras takes them.
            metrics: Names, functions or objects, nested as Keras takes them.
                None: accuracy, if the loss is one of classification. The
                first accuracy decides which tickets win; without one, the
                loss does.
            weighted_metrics: As Keras takes them.
            run_eagerly: Must be False: networks train in compiled loops.
            steps_per_execution: Accepted, and of no effect: as many steps run
                in one call as is fastest.
            jit_compile: Whether XLA compiles training. `"auto"`: where it is
                faster and the model's layers support it.
            auto_scale_loss: Whether the loss is scaled where layers compute
                in float16.

        Raises:
            ValueError: A setting cannot be honoured.
        """
        del steps_per_execution
        if run_eagerly:
            raise UserError(
                "`run_eagerly=True` cannot be honoured: networks train in "
                "compiled loops. To debug, call model.fit with it."
            )
        self._compiled = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": default_metrics(loss) if metrics is None else metrics,
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
    ) -> keras.callbacks.History:
        """Searches, and keeps every trained network in the run directory.

        Arguments that `keras.Model.fit` has mean what they mean there.

        Args:
            x: Training inputs: arrays `[examples, ...]` (NumPy, pandas,
                tensors), nested in lists and dictionaries as the model takes
                them; or a stream of batches: a `tf.data.Dataset`, a
                `keras.utils.PyDataset`, a generator. A stream is read once,
                as `data.from_arrays` says.
            y: Training targets, nested as the outputs; None if `x` holds them.
            batch_size: Examples a step. None: those of a stream's batches,
                else 32.
            epochs: How many epochs each network trains. None, and no
                `length`: at least 3,000 steps, but 10 to 100 epochs.
            verbose: 0 shows nothing; anything else what is masked, the cost
                of the search, and progress.
            callbacks: Keras callbacks, to which a level is an epoch and an
                evaluation the end of a batch: see
                `callbacks.CallbackBridge`. They see replicate 0 alone. If one
                looks at networks while they train (`on_train_batch_end`), all
                networks train in this process, in turn; if one ends the
                search at a level, it ends there for all. What changes the
                training of a network (`EarlyStopping`,
                `LearningRateScheduler`, …) is refused, with the way instead.
            validation_split: Fraction of the examples, taken from their end,
                to validate on, in [0, 1).
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a stream, to
                find the early-stop step on; a verdict needs it.
            shuffle: Whether examples are shuffled in each epoch, those of
                streams too.
            class_weight: Class to weight in the training loss.
            sample_weight: Weights of examples in the training loss.
            initial_epoch: Must be 0: `run_dir` resumes.
            steps_per_epoch: Of a stream, how many batches make an epoch.
            validation_steps: Of a validation stream, how many batches to read.
            validation_batch_size: Examples in a batch of an evaluation, which
                matters to losses that are no mean over examples. None:
                `batch_size`.
            validation_freq: Must be 1: see `evaluate_every`.
            length: In place of `epochs`, how long each network trains, as a
                `Duration`: `"50000it"`.
            evaluate_every: Steps between evaluations, at most an epoch. None:
                an epoch; where `length` is given, 100 steps.
            test_data: As `validation_data`, to report on. It decides nothing.
            run_dir: Where to keep the run: a folder, or an address in a
                bucket, `gs://bucket/folder`. The same call again goes on where
                it stopped. None: nowhere; the search lives in memory.

        Returns:
            A Keras history of replicate 0, with one epoch per level:
            `history.history` maps `"density"`, `"loss"`, `"val_loss"`,
            `"val_accuracy"`, `"early_stop_step"`, `"test_accuracy"`, … to a
            list over levels. `val_` stands before metrics at the early-stop
            step.

        Raises:
            ValueError: Settings, model and data do not fit together, the loss
                of the dense network became nan, or the directory holds
                another run. If a later ticket diverges, a line says so and
                `tickets` ends before it; of a control, a line says so.
        """
        _require_from_scratch(initial_epoch, validation_freq)
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
        recipe = self._recipe(
            dataset,
            batch_size or dataset.batch_size or _BATCH,
            duration(epochs, length),
            evaluate_every=evaluate_every,
            validation_batch_size=validation_batch_size,
            shuffle=bool(shuffle),
        )
        trainer = self.trainer(recipe, dataset)
        self._validation = None
        if dataset.validation is not None:
            self._validation = recipe, dataset.validation
        self._require_target_fits(trainer)
        rewind = self.rewind(trainer)
        callbacks = list(callbacks or ())
        require_supported(callbacks, trainer.logged)
        starts = self._starts()
        starts.require_different(recipe.shuffle)
        shows = verbose not in (0, False)
        if shows:
            lines = *self.coverage, self.cost(trainer), starts.line
            print(*filter(None, lines), sep="\n")
        settings = self._settings(recipe, dataset)
        if not strategies.is_chief(self._strategy):
            self.tickets, self.records, self._diverged = run_worker(
                trainer, settings
            )
            self._know_source()
            return self._history()
        self._train(
            trainer, starts, rewind, settings, callbacks, run_dir, shows
        )
        self._know_source()
        return self._history()

    def _train(
        self,
        trainer: Trainer,
        starts: Starts,
        rewind: int | None,
        settings: dict[str, Any],
        callbacks: Sequence[keras.callbacks.Callback],
        run_dir: str | pathlib.Path | None,
        shows: bool,
    ) -> None:
        """Trains what the run directory does not hold; fills `tickets`."""
        with contextlib.ExitStack() as stack:
            executor: Executor = InProcessExecutor(trainer)
            if strategies.has_workers(self._strategy):
                executor = stack.enter_context(
                    MultiWorkerExecutor(trainer, settings)
                )
            if run_dir is None:
                run_dir = stack.enter_context(tempfile.TemporaryDirectory())
            elif is_run(run_dir):
                begun = RunDirectory.open(run_dir).replicates
                looks = Looks.parse(self._replicates)
                looks.require_continues(begun, str(run_dir))
            directory = RunDirectory.open_or_create(
                run_dir,
                settings,
                {**provenance.versions(), "hardware": provenance.hardware()},
                replicates=self._replicates,
            )
            bridge = self._bridge(callbacks, trainer)

            def evaluated(
                replicate: int, ticket: Ticket, step: int, metrics: Any
            ) -> None:
                is_seen = replicate == 0 and ticket.variant == "ticket"
                if is_seen and bridge.sees_training:
                    weights = trainer.weights_evaluated()
                    bridge.evaluated(step, weights, keras_logs(metrics))

            progress = Progress(
                self._replicates * self.networks * trainer.steps,
                shows,
                self._replicates,
                on_evaluation=evaluated,
            )
            stack.callback(progress.close)
            stack.enter_context(weights_restored(self._model))
            if self._strategy is None and not bridge.sees_training:
                executor = stack.enter_context(
                    self._on_all_cores(trainer, starts, directory, progress)
                )
            scheduler = Scheduler(trainer, directory, rewind, progress)
            self.tickets = []
            last = self._pruning.levels
            bridge.train_begin()
            bridge.level_begin(0)

            def found(ticket: Ticket) -> bool:
                nonlocal last
                if ticket.level > len(self.tickets):
                    return True  # One before it diverged: one-shot goes on.
                self.tickets.append(ticket)
                judged = ticket.trained if ticket.best is None else ticket.best
                goes_on = bridge.level_end(
                    ticket.level, judged or {}, _level_logs(ticket)
                ) and self._keeps_within(directory, ticket.level)
                if not goes_on:
                    last = ticket.level
                if ticket.level < last:
                    bridge.level_begin(ticket.level + 1)
                return goes_on

            def is_wanted(ticket: Ticket) -> bool:
                return ticket.level < last

            replicate_searches = [
                self._replicate_search(
                    scheduler,
                    r,
                    starts.initial(trainer, r),
                    starts.seeds[r],
                    is_wanted if r else found,
                )
                for r in range(self._replicates)
            ]
            scheduler.run(replicate_searches, executor)
            self._diverged = directory.diverged()
            if not self.tickets:
                dense = next(n for n in self._diverged if not n.replicate)
                raise UserError(f"{dense.outcome}")
            bridge.train_end()
            self.records = [
                record
                for record in directory.records()
                if record.replicate < self._replicates
            ]
            if isinstance(executor, MultiWorkerExecutor):
                executor.set_result(
                    (self.tickets, self.records, self._diverged)
                )

    def _keeps_within(self, directory: RunDirectory, level: int) -> bool:
        """Returns whether a level is shown to lose at most `max_drop`."""
        if self._max_drop is None or not level:
            return True
        records = [
            r
            for r in directory.records()
            if r.level <= level and r.replicate == 0
        ]
        drops = smallest.drops(records, self._max_drop, smallest.CONFIDENCE)
        chosen = smallest.choose(drops, self._max_drop)
        return chosen is not None and chosen.level == level

    def _require_target_fits(self, trainer: Trainer) -> None:
        """Raises a ValueError if the search could not decide where to end."""
        if self._max_drop is None:
            return
        if trainer.data.validation is None:
            raise UserError(smallest.NO_VALIDATION)
        metric = deciding([{"deciding_metric": trainer.deciding}])
        smallest.require(self._max_drop, smallest.CONFIDENCE, metric)

    def _on_all_cores(
        self,
        trainer: Trainer,
        starts: Starts,
        directory: RunDirectory,
        progress: Progress,
    ) -> contextlib.AbstractContextManager[Executor]:
        """Returns who trains what the run directory does not hold."""
        left = self._replicates * self.networks - len(directory.rows())
        chains = 1 + (len(self._controls) if self._pruning.levels else 0)
        rebuilds = any(
            variants.control_of(name) in controls_.OF_ARCHITECTURE
            for name in self._controls
        )
        return all_cores_executor(
            trainer,
            self._replicates * chains,
            left * trainer.steps,
            starts.initial(trainer, 0),
            progress.write,
            masking.architecture_of(self._model) if rebuilds else None,
        )

    def _know_source(self) -> None:
        """Gives tickets the model that was searched, for what needs it."""
        self.tickets = [
            dataclasses.replace(ticket, source=self._model)
            for ticket in self.tickets
        ]

    def cost(self, trainer: Trainer) -> str:
        """Returns in a sentence what the search will cost."""
        epochs = trainer.steps / trainer.steps_per_epoch
        count = len(self._controls)
        controls = f" ({count} control{'s'[: count > 1]} at each level)"
        several = ""
        if self._replicates > 1:
            several = f"{self._replicates} replicates of "
        networks = self._replicates * self.networks
        return (
            f"Trains {several}{self.networks} networks"
            f"{controls if self._controls else ''}: levels 0 to "
            f"{'at most ' if self._max_drop else ''}"
            f"{self._pruning.levels}, each {trainer.steps:,} steps of "
            f"{trainer.recipe.batch_size} examples ({epochs:.3g} epochs), "
            f"{networks * trainer.steps:,} steps in all. Fewer `levels` "
            "or `epochs` cost less."
        )

    @property
    def networks(self) -> int:
        """How many networks a replicate trains, controls included."""
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
            raise UserError(
                f"`rewind` is {self._rewind}, but training ends at step "
                f"{trainer.steps}. Rewind to an earlier step."
            )
        return step

    def replicate_search(
        self,
        scheduler: Scheduler,
        trainer: Trainer,
        replicate: int,
        found: Callable[[Ticket], bool] | None = None,
    ) -> ReplicateSearch:
        """Returns the search as a study works it off.

        Args:
            scheduler: Which keeps θ0.
            trainer: Of the model's architecture.
            replicate: Under which replicate it is kept.
            found: Called with the ticket of each level once it is trained;
                returns whether to go on to the next.
        """
        initial = self._starts(1).initial(trainer, 0)
        return self._replicate_search(
            scheduler, replicate, initial, self._seed, found
        )

    def _starts(self, count: int | None = None) -> Starts:
        return Starts(
            self._model,
            self._masks,
            self._seed,
            count or self._replicates,
            self._initial_weights,
        )

    def _replicate_search(
        self,
        scheduler: Scheduler,
        replicate: int,
        initial: State,
        seed: int,
        found: Callable[[Ticket], bool] | None,
    ) -> ReplicateSearch:
        dense = Ticket(
            level=0,
            masks=self._masks,
            origin=scheduler.theta_0(replicate, initial),
            architecture=masking.architecture_of(self._model),
            provenance={"seed": seed, **provenance.versions()},
        )
        how = dataclasses.replace(
            self._pruning,
            criterion=pruning.find_criterion(self._criterion, seed),
        )
        return ReplicateSearch(
            replicate, dense, how, self._controls, seed, found
        )

    def winning_ticket(self) -> Ticket:
        """Returns the smallest ticket that is shown to win.

        It speaks of new trainings, so it takes three replicates or more: see
        `analysis.verdict`, which decides on validation data.

        Returns:
            The ticket of that level, of replicate 0.

        Raises:
            ValueError: No ticket is shown to win; the message says why, and
                what would help.
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
            self._wanted_records(), self._replicates, self._diverged
        )

    def smallest_ticket(
        self,
        max_drop: float | None = None,
        metric: Any = None,
        min_confidence: float = smallest.CONFIDENCE,
    ) -> Ticket:
        """Returns the smallest ticket that is shown to lose little.

        It speaks of these trained networks on new examples, so it takes one
        replicate, and validation data. Levels are tested from dense to sparse;
        the first that is not shown to keep within `max_drop` ends the tests.
        So a ticket that loses more is returned in at most 2.5 % of cases.

        Args:
            max_drop: By how much the metric may be worse than the dense
                network's, in the metric's unit: 0.005 is half a point of
                accuracy. None: that of the search, else 0.005.
            metric: The metric that decides: a name that `compile` was given,
                `"loss"`, or whatever `keras.metrics.get` takes. None: the
                first accuracy, else the loss.
            min_confidence: Probability with which each level is to keep
                within it, in [0.5, 1); 0.5 goes by the estimates alone.

        Raises:
            ValueError: No ticket is shown to lose so little (the message ranks
                all levels), the metric cannot decide, or there is no
                validation data.
        """
        self._require_tickets()
        if max_drop is None:
            max_drop = self._max_drop or _MAX_DROP
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
        """Leaves out levels that an earlier, longer run left behind."""
        return [r for r in self.records if r.level < len(self.tickets)]

    def _bridge(
        self, callbacks: Sequence[keras.callbacks.Callback], trainer: Trainer
    ) -> CallbackBridge:
        recipe = trainer.recipe
        optimizer = keras.optimizers.get(recipe.optimizer)
        return CallbackBridge(
            callbacks,
            self._model,
            {
                "optimizer": type(optimizer).from_config(
                    optimizer.get_config()
                ),
                "loss": recipe.loss,
                "loss_weights": recipe.loss_weights,
                "metrics": recipe.metrics,
                "weighted_metrics": recipe.weighted_metrics,
            },
            {
                "epochs": self._pruning.levels + 1,
                "steps": -(-trainer.steps // trainer.evaluate_every),
                "verbose": 0,
            },
            tuple(trainer.sample(2)),
        )

    def _recipe(
        self,
        dataset: data.Dataset,
        batch_size: int,
        length: Duration | None,
        evaluate_every: int | None,
        **settings: Any,
    ) -> Recipe:
        if self._compiled is None:
            raise UserError("Call compile(optimizer=..., loss=...) before fit.")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(
                "`batch_size` must be a whole number of 1 or more; got "
                f"{batch_size!r}."
            )
        replicas = 1
        if self._strategy is not None:
            replicas = self._strategy.num_replicas_in_sync
        keeps = replicas == 1
        steps = len(dataset.train) // batch_size
        steps += bool(keeps and len(dataset.train) % batch_size)
        if length is None:
            length = default_length(max(steps, 1))
        if evaluate_every is None:
            by_steps = length.steps and not length.epochs
            evaluate_every = 100 if by_steps else max(steps, 1)
        return Recipe(
            **self._compiled,
            batch_size=batch_size,
            length=length,
            evaluate_every=evaluate_every,
            keeps_remainder=keeps,
            **settings,
        )

    def _settings(
        self, recipe: Recipe, dataset: data.Dataset
    ) -> dict[str, Any]:
        """Returns what determines the results; levels may grow."""
        describe = provenance.to_json
        architecture = masking.architecture_of(self._model)
        cls = type(self._model)
        named = f"{cls.__module__}.{cls.__qualname__}"
        return {
            "model": provenance.digest(architecture) or named,
            "kernels": {
                row.path: list(row.shape) for row in self.coverage if row.role
            },
            "data": dataset.digest,
            "optimizer": describe(keras.optimizers.get(recipe.optimizer)),
            "loss": describe(recipe.loss),
            "loss_weights": describe(recipe.loss_weights),
            "metrics": describe(recipe.metrics),
            "weighted_metrics": describe(recipe.weighted_metrics),
            "batch_size": recipe.batch_size,
            "validation_batch_size": recipe.validation_batch_size,
            "shuffle": recipe.shuffle,
            "keeps_remainder": recipe.keeps_remainder,
            "length": str(recipe.length),
            "evaluate_every": recipe.evaluate_every,
            "rates": dict(self._pruning.rates),
            "criterion": describe(self._pruning.criterion),
            "allocation": describe(self._pruning.allocation),
            "schedule": describe(self._pruning.schedule),
            "rewind": str(self._rewind or "auto"),
            **(
                {"rewind_mode": self._pruning.rewind_mode}
                if self._pruning.rewind_mode != "weights"
                else {}
            ),
            "initial_weights": None
            if self._initial_weights is None
            else str(self._initial_weights),
            "seed": self._seed,
        }

    def _history(self) -> keras.callbacks.History:
        history = keras.callbacks.History()
        history.set_model(self._model)
        history.epoch = [ticket.level for ticket in self.tickets]
        rows = [
            {"density": ticket.density, **_known(ticket)}
            for ticket in self.tickets
        ]
        history.history = {
            name: [row.get(name) for row in rows] for name in rows[0]
        }
        return history


def _require_one_target(
    levels: int | None, density: float | None, max_drop: float | None
) -> None:
    given = {"levels": levels, "density": density, "max_drop": max_drop}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UserError(
            f"Give one of {', '.join(named)}: each says where the search ends."
        )
    if levels is not None and (not isinstance(levels, int) or levels < 0):
        raise UserError(
            f"`levels` must be a whole number of 0 or more; got {levels!r}."
        )
    if density is not None and not 0 < density < 1:
        raise UserError(f"`density` must be in (0, 1); got {density!r}.")


def default_metrics(loss: Any) -> list[Any]:
    """Returns accuracy for a loss of classification, else nothing.

    Args:
        loss: As `keras.Model.compile` takes it.
    """
    if loss is None or keras.tree.is_nested(loss):
        return []
    found = loss if isinstance(loss, str) else getattr(loss, "name", None)
    name = str(found or getattr(loss, "__name__", ""))
    if "crossentropy" not in name and name != "ce":
        return []
    if "binary" in name and getattr(loss, "from_logits", False) is True:
        return [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    return ["accuracy"]


def duration(
    epochs: int | None, length: str | Duration | None
) -> Duration | None:
    """Returns how long networks train; None if neither argument says so.

    Args:
        epochs: As `keras.Model.fit` takes it.
        length: As a `Duration`.
    """
    if epochs is None:
        return None if length is None else Duration(length)
    if length is not None:
        raise UserError(
            f"Give `epochs` or `length`, not both: epochs={epochs} is "
            f"length='{epochs}ep'."
        )
    if not isinstance(epochs, int) or epochs < 1:
        raise UserError(
            f"`epochs` must be a whole number of 1 or more; got {epochs!r}."
        )
    return Duration(f"{epochs}ep")


def default_length(steps_per_epoch: int) -> Duration:
    """Returns a length for networks that were given none.

    Enough epochs for 3,000 steps, but 10 to 100: a search trains many
    networks, and says what that costs before it starts.

    Args:
        steps_per_epoch: Batches in the training data.
    """
    epochs = -(-3_000 // steps_per_epoch)
    return Duration(f"{min(max(epochs, 10), 100)}ep")


def keras_logs(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metrics of an evaluation under the names of Keras' logs."""
    return {
        re.sub("^validation_", "val_", name): value
        for name, value in metrics.items()
        if name != "step"
    }


def _known(ticket: Ticket) -> dict[str, Any]:
    """Returns a ticket's metrics, and those at early stop as Keras' logs."""
    form = re.compile("^validation_(.*)_at_early_stop$")
    found = {
        form.sub(r"val_\1", name): value
        for name, value in ticket.metrics.items()
        if form.match(name)
    }
    return {**ticket.metrics, **found}


def _level_logs(ticket: Ticket) -> dict[str, Any]:
    dead = [
        int((~mask.reshape(-1, mask.shape[-1]).any(axis=0)).sum())
        for mask in ticket.masks.values()
    ]
    return {
        "density": ticket.density,
        "dead_units": sum(dead),
        **{
            name: value
            for name, value in _known(ticket).items()
            if isinstance(value, int | float)
        },
    }


def _require_from_scratch(initial_epoch: int, validation_freq: int) -> None:
    if initial_epoch:
        raise UserError(
            "`initial_epoch` must be 0: every network starts from its own "
            "weights. To go on with a search, give the same `run_dir` again."
        )
    if validation_freq != 1:
        raise UserError(
            "`validation_freq` must be 1: the early-stop step needs at least "
            "an evaluation an epoch. `evaluate_every` takes steps."
        )
