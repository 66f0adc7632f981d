"""Simulated records of networks with known true effects."""

import dataclasses
import math

import numpy as np

LENET = {"model": "lenet_300_100", "dataset": "mnist", "schedule": "geometric"}


@dataclasses.dataclass(frozen=True)
class Network:
    replicate: int
    level: int
    variant: str
    row: dict
    per_example: dict = dataclasses.field(default_factory=dict)
    curve: dict = dataclasses.field(default_factory=dict)


def study(draw, count, gain=0.0, share=1.0, levels=10, variant="ticket"):
    """Replicates with a true gain, and a true share of steps, of tickets."""
    networks = []
    for replicate in range(count):
        common = draw.normal(0.98, 0.001)
        for level in range(levels + 1):
            better = gain if level else 0.0
            steps = 5_000 * (share if level else 1.0)
            accuracy = common + better + draw.normal(0, 0.0015)
            stop = steps * math.exp(draw.normal(0, 0.15))
            row = {
                "density": 0.8**level,
                "early_stop_step": stop,
                "validation_accuracy_at_early_stop": accuracy,
                "test_accuracy_at_early_stop": accuracy,
                "test_accuracy": accuracy,
                "train_accuracy": 1.0,
                "steps": 50_000,
                "seconds": 30.0,
            }
            name = variant if level else "ticket"
            curve = {
                "step": [100, 200, 300],
                "validation_accuracy": [0.5, 0.9, accuracy],
            }
            right = np.arange(500) < round(500 * accuracy)
            correct = {"validation": right, "test": right}
            networks.append(
                Network(replicate, level, name, row, correct, curve)
            )
    return networks


def with_controls(draw, count, *names, levels=10, **settings):
    """A study with controls that are slower and worse than the tickets."""
    networks = study(draw, count, levels=levels, **settings)
    for name in names:
        worse = study(draw, count, -0.005, 2.0, levels, name)
        networks += [n for n in worse if n.level]
    return networks


def caught_up(networks):
    """The networks with catch-up steps at 80 % of their early-stop steps."""
    for network in networks:
        soon = 0.8 if network.level else 1.0
        network.row["catch_up_step"] = soon * network.row["early_stop_step"]
    return networks


def drawn_again(networks, times):
    """The networks with several different draws of each control."""
    again = []
    for network in networks:
        if network.variant == "ticket":
            continue
        for number in range(2, times + 1):
            row = dict(network.row)
            row["early_stop_step"] += 100 * number
            for split in ("validation", "test"):
                row[f"{split}_accuracy_at_early_stop"] -= 0.001 * number
            curve = {
                **network.curve,
                "validation_accuracy": [0.1 * number, 0.2, 0.3],
            }
            name = f"{network.variant}.{number}"
            again.append(
                dataclasses.replace(network, variant=name, row=row, curve=curve)
            )
    return [*networks, *again]


def with_losses(networks, *never):
    """The networks with validation losses on their learning curves.

    The loss of a network is lowest at its early stop. Tickets reach the lowest
    loss of the dense network; the variants `never` do not.
    """
    again = []
    for network in networks:
        stop = network.row["early_stop_step"]
        steps = list(range(500, 50_001, 500))
        lowest = 0.2 if network.variant in never and network.level else 0.1
        losses = [lowest + 0.3 * abs(math.log(step / stop)) for step in steps]
        losses[min(range(100), key=lambda n: losses[n])] = lowest
        curve = {
            "step": steps,
            "validation_loss": losses,
            "validation_accuracy": [1 - loss / 5 for loss in losses],
        }
        again.append(dataclasses.replace(network, curve=curve))
    return again
