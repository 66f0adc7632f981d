"""Outcome of a run: verdicts, missing networks, diverged networks."""

from tf_lottery import controls
from tf_lottery.analysis import verdict
from tf_lottery.core.errors import UserError
from tf_lottery.experiment.config import Config
from tf_lottery.runs.network_graph import NetworkGraph, NetworkName
from tf_lottery.runs.run_directory import RunDirectory


class AllDivergedError(UserError):
    """The dense network of every replicate diverged: nothing can be pruned."""


def judge(directory: RunDirectory) -> verdict.Judgment:
    """Returns the verdicts on a run, at the replicates that were planned.

    Args:
        directory: The run.
    """
    settings = directory.config["metadata"].get("settings", {})
    return verdict.judge(
        directory.records(),
        directory.replicates,
        directory.diverged(),
        settings.get("levels"),
    )


def unfinished(config: Config, directory: RunDirectory) -> list[int]:
    """Returns the replicates of an experiment that lack trained networks.

    A network that diverged does not count as lacking, nor do the networks that
    depend on it.

    Args:
        config: The settings of the experiment.
        directory: Its run.
    """
    variants = controls.variants(config.controls)
    graph = NetworkGraph(config.levels, variants, config.schedule)
    done: dict[int, set[NetworkName]] = {
        r: set() for r in range(config.looks.last)
    }
    for row in directory.rows():
        name = row["level"], row["variant"]
        done.setdefault(row["replicate"], set()).add(name)
    for network in directory.diverged():
        name = network.level, network.variant
        done.setdefault(network.replicate, set()).update(
            {name, *graph.dependents(*name)}
        )
    return [r for r in range(config.looks.last) if graph.networks - done[r]]


def all_diverged(config: Config, directory: RunDirectory) -> str:
    """Returns how every dense network diverged; "" if one did not.

    Args:
        config: The settings of the experiment.
        directory: Its run.
    """
    outcomes = {
        network.replicate: network.outcome
        for network in directory.diverged()
        if (network.level, network.variant) == (0, "ticket")
    }
    if not outcomes.keys() >= set(range(config.looks.last)):
        return ""
    if config.replicates == 1:
        return f"{outcomes[0]}"
    return (
        f"All {config.replicates} replicates' dense networks diverged. "
        f"{outcomes[0]}"
    )


def require_trained(diverged: str) -> None:
    """Raises if all dense networks diverged.

    Args:
        diverged: The message of `all_diverged`.

    Raises:
        AllDivergedError: The message is not empty.
    """
    if diverged:
        raise AllDivergedError(diverged)
