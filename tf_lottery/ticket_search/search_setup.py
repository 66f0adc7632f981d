"""A model together with the settings of its search, checked and resolved."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tf_lottery import controls, data, masking, pruning
from tf_lottery.analysis import smallest
from tf_lottery.analysis.deciding import deciding
from tf_lottery.controls import Control
from tf_lottery.core import variants
from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.lottery import search
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs import provenance
from tf_lottery.runs.scheduler import ReplicateSearch, Scheduler
from tf_lottery.ticket_search.settings import SearchSettings
from tf_lottery.ticket_search.starts import ReplicateStarts
from tf_lottery.training import Recipe, Trainer


@dataclasses.dataclass(frozen=True, eq=False)
class SearchSetup:
    """What one search trains and prunes; nothing of it changes in training.

    Attributes:
        settings: The settings.
        model: The model without masked layers: masks are passed to training
            as values.
        kernels: Paths of the kernels to prune.
        masks: Their masks at level 0.
        coverage: For each kernel, whether it is masked, and why not.
        pruning: Rates by kernel, criterion, allocation, schedule and levels.
        variants: The controls of each ticket, by the variant's name.
    """

    settings: SearchSettings
    model: keras.Model
    kernels: tuple[str, ...]
    masks: Masks
    coverage: tuple[masking.Row, ...]
    pruning: search.Pruning
    variants: Mapping[str, Control]

    @classmethod
    def create(
        cls, model: keras.Model, settings: SearchSettings
    ) -> "SearchSetup":
        """Returns the setup of a search.

        Args:
            model: A built Keras 3 model; it stays as it is.
            settings: The settings.

        Raises:
            UserTypeError: It is not a Keras 3 model.
            UserError: The settings do not fit the model.
        """
        include, exclude = settings.include, settings.exclude
        kernels = masking.kernels(model, include, exclude)
        masks = masking.masks_or_ones(model, kernels)
        how = settings.build_pruning(kernels, masks)
        variants = settings.variants
        if not all(mask.all() for mask in masks.values()):
            controls.require_theta_k(
                variants, "the model carries masks already"
            )
        coverage = masking.coverage_of(model, include, exclude)
        if masking.is_masked(model):
            model = masking.strip_masks(model)
        controls.require_architecture(variants, masking.architecture_of(model))
        return cls(
            settings, model, tuple(kernels), masks, coverage, how, variants
        )

    @property
    def networks(self) -> int:
        """How many networks one replicate trains, controls included."""
        levels = self.pruning.levels
        return (
            1
            + levels * (1 + len(self.variants))
            + len(controls.of_dense(self.variants))
        )

    @property
    def independent_networks(self) -> int:
        """How many networks never wait for each other, in all replicates."""
        chains = 1 + (len(self.variants) if self.pruning.levels else 0)
        return self.settings.replicates * chains

    @property
    def rebuilt_architecture(self) -> str | None:
        """The model as JSON if a control rebuilds it, else None."""
        bases = set(map(variants.control_of, self.variants))
        if bases.isdisjoint(controls.OF_ARCHITECTURE):
            return None
        return masking.architecture_of(self.model)

    def starts(self, count: int) -> ReplicateStarts:
        """Returns the initial states and seeds of replicates.

        Args:
            count: Number of replicates, >= 1.
        """
        settings = self.settings
        return ReplicateStarts(
            self.model,
            self.masks,
            settings.seed,
            count,
            settings.initial_weights,
        )

    def rewind_step(self, trainer: Trainer) -> int | None:
        """Returns the step that tickets restart from; None for `"auto"`.

        Args:
            trainer: Says how many steps an epoch and the training have.

        Raises:
            UserError: Training ends before that step.
        """
        rewind_to = self.settings.rewind_to
        if rewind_to is None:
            return None
        step = rewind_to.steps_at(trainer.steps_per_epoch)
        if step >= trainer.steps:
            raise UserError(
                f"`rewind` is {rewind_to}, but training ends at step "
                f"{trainer.steps}. Rewind to an earlier step."
            )
        return step

    def require_decidable(self, trainer: Trainer) -> None:
        """Raises if `max_drop` is set and could not end the search.

        Args:
            trainer: Knows the data and the deciding metric.

        Raises:
            UserError: There is no validation data, or `max_drop` is out of
                range for the deciding metric.
        """
        max_drop = self.settings.max_drop
        if max_drop is None:
            return
        if trainer.data.validation is None:
            raise UserError(smallest.NO_VALIDATION)
        metric = deciding([{"deciding_metric": trainer.deciding}])
        smallest.require(max_drop, smallest.CONFIDENCE, metric)

    def replicate_search(
        self,
        scheduler: Scheduler,
        trainer: Trainer,
        replicate: int,
        starts: ReplicateStarts | None = None,
        on_level_end: Callable[[Ticket], bool] | None = None,
    ) -> ReplicateSearch:
        """Returns the search of one replicate, to be run by a scheduler.

        Args:
            scheduler: Stores the initial state θ0.
            trainer: A trainer of the model's architecture.
            replicate: Number of the replicate, >= 0.
            starts: Initial states and seeds of all replicates. None: this
                replicate starts from the model, with the seed in `settings`.
            on_level_end: Called with the trained ticket of each level; returns
                whether to go on to the next level.
        """
        index = 0 if starts is None else replicate
        starts = starts or self.starts(1)
        seed, initial = starts.seeds[index], starts.initial(trainer, index)
        dense = Ticket(
            level=0,
            masks=self.masks,
            origin=scheduler.theta_0(replicate, initial),
            architecture=masking.architecture_of(self.model),
            provenance={"seed": seed, **provenance.versions()},
        )
        how = dataclasses.replace(
            self.pruning,
            criterion=pruning.find_criterion(self.settings.criterion, seed),
        )
        return ReplicateSearch(
            replicate, dense, how, self.variants, seed, on_level_end
        )

    def fingerprint(
        self, recipe: Recipe, dataset: data.Dataset
    ) -> dict[str, Any]:
        """Returns everything that determines the results, as JSON holds it.

        Args:
            recipe: How networks are trained.
            dataset: The examples.
        """
        describe = provenance.to_json
        cls = type(self.model)
        architecture = provenance.digest(masking.architecture_of(self.model))
        return {
            "model": architecture or f"{cls.__module__}.{cls.__qualname__}",
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
            **self.settings.fingerprint(self.pruning),
        }

    def cost(self, trainer: Trainer) -> str:
        """Returns in a sentence how many networks and steps a search trains.

        Args:
            trainer: Says how long each network trains.
        """
        count, replicates = len(self.variants), self.settings.replicates
        controls_ = f" ({count} control{'s'[: count > 1]} at each level)"
        steps = replicates * self.networks * trainer.steps
        return (
            f"Trains {f'{replicates} replicates of ' * (replicates > 1)}"
            f"{self.networks} networks{controls_ * (count > 0)}: levels 0 to "
            f"{'at most ' if self.settings.max_drop else ''}"
            f"{self.pruning.levels}, each {trainer.steps:,} steps of "
            f"{trainer.recipe.batch_size} examples "
            f"({trainer.steps / trainer.steps_per_epoch:.3g} epochs), "
            f"{steps:,} steps in all. Fewer `levels` or `epochs` cost less."
        )
