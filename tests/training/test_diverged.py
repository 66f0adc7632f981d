"""A loss that becomes nan or infinite ends that network, and no other."""

import dataclasses
import functools
import itertools
import json
import math

import keras
import numpy as np
import pytest
import sample_tickets
import toy
from sample_searches import fit, prepare

from tf_lottery import __main__, controls, experiment, masking
from tf_lottery.core import seeds
from tf_lottery.experiment import preparation, runner
from tf_lottery.lottery import search
from tf_lottery.runs.executors import InProcessExecutor, ProcessPool
from tf_lottery.runs.network_graph import NetworkGraph, describe
from tf_lottery.runs.progress import Progress
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.runs.scheduler import Scheduler
from tf_lottery.training import (
    Diverged,
    Job,
    State,
    TrainingResult,
    checkpoint,
    loop,
)

TINY = experiment.Config().replace(
    {
        "model_options": {"units": [9, 5]},
        "length": "20it",
        "evaluate_every": 10,
        "rate": 0.5,
        "levels": 1,
        "controls": ["reinit"],
    }
)


def exploding(state):
    """Weights so large that the network overflows at its first step."""
    weights = {
        path: value * np.float32(1e20) if value.dtype == np.float32 else value
        for path, value in state.weights.items()
    }
    return State(state.step, weights, state.slots)


def exploding_job(job):
    return dataclasses.replace(job, start=exploding(job.start))


def explode(ticket, seed):
    """A control that diverges."""
    del seed
    return dataclasses.replace(
        ticket, variant="explode", origin=exploding(ticket.origin)
    )


def too_fast_after(step):
    """An optimizer that is at its wits' end from a step on."""
    return keras.optimizers.SGD(
        keras.optimizers.schedules.PiecewiseConstantDecay(
            [step], [0.05, math.inf]
        )
    )


def steps_trained(monkeypatch):
    """Counts the stretches that networks train from here on."""
    stretches = []
    advance = loop.TrainingLoop.advance

    def counted(self, window, stop):
        stretches.append(stop)
        return advance(self, window, stop)

    monkeypatch.setattr(loop.TrainingLoop, "advance", counted)
    return stretches


def places(networks):
    return [(n.replicate, n.level, n.variant) for n in networks]


@pytest.mark.slow
@pytest.mark.parametrize("build", [toy.mlp, toy.convnet])
def test_of_a_stack_one_diverges_and_the_others_are_the_same_bytes(build):
    trainer = toy.trainer(build())
    first, second, third = sample_tickets.jobs(trainer)
    sound = trainer.train([first, second, third])
    mixed = list(trainer.outcomes([first, exploding_job(second), third]))
    # What diverges is known before the others are done.
    assert [i for i, _ in mixed] == [1, 0, 2]
    outcomes = dict(mixed)
    assert (outcomes[1].first, outcomes[1].last) == (0, 10)
    assert not math.isfinite(outcomes[1].loss)
    for i in (0, 2):
        assert toy.same(outcomes[i].trained, sound[i].trained)
        assert toy.same(outcomes[i].best, sound[i].best)
        assert outcomes[i].curve == sound[i].curve


@pytest.mark.slow
def test_a_stack_of_which_all_diverge_ends_at_once():
    trainer = toy.trainer(length="100000000it")
    made = [exploding_job(job) for job in sample_tickets.jobs(trainer)]
    assert all(isinstance(o, Diverged) for o in trainer.train(made))


def test_a_training_that_is_interrupted_diverges_where_it_would(
    tmp_path, monkeypatch
):
    trainer = toy.trainer(optimizer=too_fast_after(24))
    start, masks = trainer.state, masking.get_masks(trainer.model)
    (whole,) = trainer.train([Job(start, masks)])
    assert (whole.first, whole.last) == (24, 30)  # an epoch is 24 steps
    job = Job(start, masks, folder=tmp_path / "kept")
    toy.killed(trainer, [job], monkeypatch, at=20)
    stretches = steps_trained(monkeypatch)
    (resumed,) = trainer.train([job])
    assert stretches == [20, 24, 30]  # the file is of step 10
    assert str(resumed) == str(whole)


@pytest.mark.slow
def test_weights_that_the_last_step_spoils_are_no_trained_network():
    trainer = toy.trainer(optimizer=too_fast_after(58))
    job = Job(trainer.state, masking.get_masks(trainer.model))
    (outcome,) = trainer.train([job])
    assert str(outcome) == str(Diverged(50, 60, math.nan))
    (sound,) = toy.trainer(optimizer=too_fast_after(59)).train([job])
    assert isinstance(sound, TrainingResult)


@pytest.mark.slow
def test_a_process_tells_of_a_network_that_diverged_and_goes_on():
    trainer = toy.trainer()
    sound, other = sample_tickets.jobs(trainer, 2)
    broken = exploding_job(other)
    outcomes = {}
    with ProcessPool(toy.trainer, 1) as executor:
        for job in (broken, sound):
            executor.submit(job)
            outcomes |= dict(executor.wait(lambda *_: None))
    assert isinstance(outcomes[broken], Diverged)
    assert isinstance(outcomes[sound], TrainingResult)


def searches(count, **settings):
    made = []
    for seed in range(count):
        made.append(prepare(toy.mlp(seed=seed), seed=seed, **settings))
    return made


class Told(Progress):
    """Also keeps where the training of each network began."""

    def __init__(self, steps, replicates):
        super().__init__(steps, True, replicates)
        self.began = {}

    def advance(self, replicate, ticket, step, figures):
        self.began.setdefault((replicate, ticket.level, ticket.variant), step)
        super().advance(replicate, ticket, step, figures)

    @property
    def left(self):
        """Steps that the bar still waits for."""
        return self._bar.total - self._done


def study_of(folder, replicates, exploding_one, levels=1):
    """Returns a study, its searches and their progress; one of them explodes.

    Its θ0 is in the directory before the search begins.
    """
    trainer = toy.trainer()
    directory = RunDirectory.open_or_create(folder, {}, {})
    made = searches(replicates, levels=levels, controls=["reinit"])
    start = exploding(trainer.initial(toy.mlp(), 0))
    if not directory.has_checkpoint(exploding_one, 0):
        directory.save_checkpoint(
            exploding_one,
            0,
            lambda prefix: checkpoint.save(trainer, start, prefix),
        )
    networks = sum(one.setup.networks for one in made)
    progress = Told(networks * trainer.steps, replicates)
    scheduler = Scheduler(trainer, directory, 0, progress)
    replicate_searches = [
        one.setup.replicate_search(scheduler, trainer, r)
        for r, one in enumerate(made)
    ]
    return scheduler, replicate_searches, progress, trainer


@pytest.mark.slow
def test_in_a_stack_a_dense_network_ends_its_replicate_alone(tmp_path, capsys):
    scheduler, replicate_searches, progress, trainer = study_of(
        tmp_path, 3, exploding_one=1
    )
    scheduler.run(replicate_searches, InProcessExecutor(trainer, stack=3))
    directory = RunDirectory.open(tmp_path)
    assert places(directory.diverged()) == [(1, 0, "ticket")]
    assert directory.diverged()[0].step == 10
    assert places(directory.records()) == [
        (replicate, *place)
        for replicate in (0, 2)
        for place in ((0, "ticket"), (1, "ticket"), (1, "reinit"))
    ]
    # Interim files and the lock are gone.
    assert not list(tmp_path.glob("**/*unfinished"))
    assert not list(tmp_path.glob(".locks/*"))
    (line,) = (
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("Level 0 ticket of replicate 1 diverged. The train")
    )
    assert line.endswith(
        "between steps 0 and 10. Lower the learning rate, or clip gradients. "
        "Not trained because of it: level 1."
    )
    assert progress.left == 0


@pytest.mark.slow
def test_what_diverged_is_kept_though_the_stack_is_interrupted(
    tmp_path, monkeypatch
):
    four = functools.partial(study_of, tmp_path, 4, exploding_one=1, levels=0)
    scheduler, replicate_searches, progress, trainer = four()
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)

    class KilledError(Exception):
        pass

    def killed(*_):
        if progress._steps.get((2, 0, "ticket")) == 30:
            raise KilledError

    progress._on_evaluation = killed
    with pytest.raises(KilledError):
        scheduler.run(replicate_searches, InProcessExecutor(trainer, stack=3))
    directory = RunDirectory.open(tmp_path)
    assert places(directory.diverged()) == [(1, 0, "ticket")]
    assert directory.records() == []
    scheduler, replicate_searches, progress, trainer = four()
    # The fourth would join the stack; those under way go on all the same.
    scheduler.run(replicate_searches, InProcessExecutor(trainer, stack=3))
    began = {replicate: at for (replicate, *_), at in progress.began.items()}
    assert set(began) == {0, 2, 3}
    assert began[3] == 0
    assert min(began[0], began[2]) >= 20
    assert places(directory.records()) == [(r, 0, "ticket") for r in (0, 2, 3)]
    assert progress.left == 0


def test_a_control_that_diverges_stops_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(controls.CONTROLS, "explode", explode)
    made = prepare(controls=["explode", "reinit"])
    fit(made, tmp_path / "run", verbose=1)
    assert [ticket.level for ticket in made.tickets] == [0, 1, 2]
    assert [(r.level, r.variant) for r in made.records] == [
        (0, "ticket"),
        (1, "ticket"),
        (1, "reinit"),
        (2, "ticket"),
        (2, "reinit"),
    ]
    directory = RunDirectory.open(tmp_path / "run")
    expected = [(0, 1, "explode"), (0, 2, "explode")]
    assert places(directory.diverged()) == expected
    said = capsys.readouterr().err
    assert "Level 1 explode diverged." in said
    assert "Not trained because of it: nothing else." in said


def of_a_pruned_network(theta_k, run):
    """Restarts from weights that explode, but where the dense one is pruned."""
    (path, *_) = [path for path in run.trained if path.endswith("kernel")]
    is_pruned = (run.trained[path] == 0).mean() > 0.2
    return exploding(theta_k) if is_pruned else theta_k


@pytest.mark.slow
def test_a_ticket_that_diverges_ends_its_search(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(search.REWIND_MODES, "weights", of_a_pruned_network)
    settings = {"levels": 4, "controls": ["reinit"]}
    made = prepare(**settings)
    history = fit(made, tmp_path / "run", verbose=1)
    assert [ticket.level for ticket in made.tickets] == [0, 1]
    assert history.epoch == [0, 1]
    directory = RunDirectory.open(tmp_path / "run")
    assert places(directory.diverged()) == [(0, 2, "ticket")]
    assert places(directory.records()) == [
        (0, 0, "ticket"),
        (0, 1, "ticket"),
        (0, 1, "reinit"),
    ]
    said = capsys.readouterr().err
    assert "Level 2 ticket diverged." in said
    assert "of it: levels 3 to 4 and the controls of level 2." in said
    with pytest.raises(FileNotFoundError, match="has no ticket"):
        directory.ticket(0, 2)
    # The same call again trains nothing, and comes to the same.
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    stretches = steps_trained(monkeypatch)
    again = prepare(**settings)
    fit(again, tmp_path / "run", verbose=1)
    assert stretches == []
    assert [ticket.level for ticket in again.tickets] == [0, 1]
    assert "Level 2 ticket diverged." in capsys.readouterr().err
    for path, stamp in before.items():
        assert path.name == "config.json" or path.stat().st_mtime_ns == stamp
    # A ticket that comes out differently is trained again.
    monkeypatch.undo()
    sound = prepare(**settings)
    fit(sound, tmp_path / "run")
    assert [ticket.level for ticket in sound.tickets] == [0, 1, 2, 3, 4]
    assert directory.diverged() == []


def test_one_shot_goes_on_after_a_ticket_that_diverged(tmp_path, monkeypatch):
    calls = itertools.count(1)
    monkeypatch.setitem(
        search.REWIND_MODES,
        "weights",
        lambda at_k, _: exploding(at_k) if next(calls) == 2 else at_k,
    )
    made = prepare(levels=3, schedule="one_shot", controls=["reinit"])
    fit(made, tmp_path / "run")
    # Level 3 is kept, and no ticket stands at the place of another level.
    assert [ticket.level for ticket in made.tickets] == [0, 1]
    kept = {record.level for record in made.records}
    assert kept == {0, 1, 3}


def test_a_dense_network_that_diverges_ends_fit_with_what_to_do(tmp_path):
    def diverging():
        made = prepare()
        made.compile(keras.optimizers.SGD(1e30), toy.loss())
        return made

    message = (
        r"^The training loss became (nan|inf) between steps 0 and 10\. "
        r"Lower the learning rate, or clip gradients\.$"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            fit(diverging(), tmp_path / "run")


def spoil(folder, config, replicate):
    """Puts a θ0 that explodes into the run directory, and returns it."""
    prepared = preparation.prepare(config)
    trainer = prepared.trainer
    directory = runner.open_run(config, folder, prepared.fingerprint)
    seed = seeds.integer(config.seed, "replicate", replicate)
    start = exploding(trainer.initial(trainer.model, seed))
    directory.save_checkpoint(
        replicate, 0, lambda prefix: checkpoint.save(trainer, start, prefix)
    )
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_experiment_goes_on_without_a_replicate(
    tmp_path, monkeypatch, capsys, workers
):
    config = TINY.replace({"replicates": 2})
    directory = spoil(tmp_path, config, 0)
    assert experiment.unfinished(config, directory) == [0, 1]
    experiment.run_experiment(config, tmp_path, workers=workers)
    assert places(directory.diverged()) == [(0, 0, "ticket")]
    assert places(directory.records()) == [
        (1, 0, "ticket"),
        (1, 1, "ticket"),
        (1, 1, "reinit"),
    ]
    assert "of replicate 0 diverged" in capsys.readouterr().err
    assert experiment.unfinished(config, directory) == []
    grown = config.replace({"levels": 2})
    assert experiment.unfinished(grown, directory) == [1]
    stretches = steps_trained(monkeypatch)
    experiment.run_experiment(config, tmp_path, verbose=False, workers=1)
    assert stretches == []


@pytest.mark.slow
def test_an_experiment_of_which_all_diverge_says_so_in_a_line(tmp_path):
    config = TINY.replace({"learning_rate": 1e30, "replicates": 2})
    for _ in range(2):
        with pytest.raises(ValueError, match="All 2 replicates.*Lower") as told:
            experiment.run_experiment(config, tmp_path, verbose=False)
        assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_learning_rate_that_is_too_high(
    tmp_path, capsys
):
    settings = {"learning_rate": [1e30, 1e-3], "levels": 0}
    configs = experiment.expand(TINY.replace({"controls": ""}), settings)
    runs = experiment.run_sweep(configs, tmp_path / "s")
    assert [len(run.records()) for run in runs] == [0, 1]
    assert [len(run.diverged()) for run in runs] == [1, 0]
    assert "Lower the learning rate" in capsys.readouterr().err


def test_runs_of_a_sweep_take_over_what_diverged(tmp_path, monkeypatch):
    configs = experiment.expand(
        TINY.replace({"learning_rate": 1e30, "controls": ""}),
        {"rate": [0.2, 0.5]},
    )
    stretches = steps_trained(monkeypatch)
    runs = experiment.run_sweep(configs, tmp_path / "s", verbose=False)
    assert len(stretches) == 1
    assert [len(run.diverged()) for run in runs] == [1, 1]


AUTO = TINY.replace(
    {"rewind": "auto", "replicates": 3, "length": "8it", "controls": ""}
)


@pytest.mark.slow
def test_the_stable_step_is_that_of_the_first_replicate_that_trains(tmp_path):
    directory = spoil(tmp_path, AUTO, 0)
    for i in (0, 1):  # replicates 0 and 2, and then 1
        shard = experiment.Shard(i, 2)
        experiment.run_experiment(AUTO, tmp_path, verbose=False, shard=shard)
        if i == 0:
            probes = {
                r.replicate
                for r in directory.records()
                if r.variant.startswith("probe")
            }
            assert probes == {1}
    assert places(directory.diverged()) == [(0, 0, "ticket")]
    assert experiment.unfinished(AUTO, directory) == []


@pytest.mark.slow
def test_a_probe_that_diverges_is_unstable(tmp_path, monkeypatch):
    real = controls.data_order

    def unstable_at_first(ticket, seed):
        made = real(ticket, seed)
        if ticket.origin.step > 1:
            return made
        return dataclasses.replace(made, origin=exploding(made.origin))

    monkeypatch.setattr(controls, "data_order", unstable_at_first)
    config = AUTO.replace({"replicates": 1})
    directory = experiment.run_experiment(config, tmp_path, verbose=False)
    found = json.loads((tmp_path / "rewind.json").read_text())
    assert found["step"] > 1
    assert None in found["barriers"].values()
    assert all(n.variant.startswith("probe") for n in directory.diverged())


@pytest.mark.slow
def test_between_a_ticket_and_a_copy_that_diverged_there_is_no_line(
    tmp_path, monkeypatch, capsys
):
    def of_a_copy(ticket, seed):
        made = controls.data_order(ticket, seed)
        return dataclasses.replace(made, origin=exploding(made.origin))

    monkeypatch.setitem(controls.CONTROLS, "data_order", of_a_copy)
    config = TINY.replace({"controls": "data_order"})
    directory = experiment.run_experiment(config, tmp_path, verbose=False)
    lines = list(experiment.interpolate(directory))
    assert [place for *place, _ in lines] == [[0, 0], [0, 1]]
    assert all(line.barrier("test") == math.inf for *_, line in lines)
    assert __main__.main(["stability", str(tmp_path)]) in (0, None)
    out = capsys.readouterr().out
    assert "replicate 0  level  1  the copy diverged" in out


ONE_SHOT = NetworkGraph(3, {"reinit": None}, "one_shot")
STEPWISE = NetworkGraph(3, {"reinit": None, "data_order": None}, "geometric")


def test_what_depends_on_a_ticket():
    assert STEPWISE.dependents(2, "reinit") == set()
    assert STEPWISE.dependents(2) == {
        (2, "reinit"),
        (2, "data_order"),
        (3, "ticket"),
        (3, "reinit"),
        (3, "data_order"),
    }
    assert STEPWISE.dependents(0) == STEPWISE.networks - {(0, "ticket")}
    assert ONE_SHOT.dependents(2) == {(2, "reinit")}
    assert ONE_SHOT.dependents(0) == ONE_SHOT.networks - {(0, "ticket")}


def test_what_depends_on_a_ticket_can_be_read():
    every = "levels 1 to 3 and the controls of level 0"
    assert describe(0, STEPWISE.dependents(0)) == every
    assert describe(2, ONE_SHOT.dependents(2)) == "the controls of level 2"
    assert describe(3, NetworkGraph(3, {}, "geometric").dependents(3)) == ""
