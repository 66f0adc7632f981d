"""Trainers of workers on a Ray cluster; workers import this module."""

import os
import signal

import toy

from tf_lottery.experiment import preparation
from tf_lottery.training import Trainer, loop


def often_saving(length="6000it"):
    """A trainer that saves a checkpoint after every evaluation."""
    loop.SECONDS_BETWEEN_CHECKPOINTS = 0
    return toy.trainer(length=length, evaluate_every=24)


def build_trainer(*arguments):
    """The trainer of an experiment, with a checkpoint at every evaluation."""
    loop.SECONDS_BETWEEN_CHECKPOINTS = 0
    return preparation.build_trainer(*arguments)


class DeadlyTrainer(Trainer):
    """Kills its process as soon as a network trains."""

    def outcomes(self, jobs, progress=None):
        os.kill(os.getpid(), signal.SIGKILL)


class BrokenTrainer(Trainer):
    """Raises an error that a user's code may raise."""

    def outcomes(self, jobs, progress=None):
        raise ZeroDivisionError("in a loss")


def deadly():
    return _as(DeadlyTrainer)


def broken():
    return _as(BrokenTrainer)


def not_built():
    raise LookupError("no such data set on this node")


def _as(cls):
    trainer = toy.trainer()
    trainer.__class__ = cls
    return trainer
