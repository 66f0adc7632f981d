"""Several processes on one run, and the shards of array jobs."""

import json

import pytest
from run_processes import TINY, Process, contents

from tf_lottery import __main__, experiment
from tf_lottery.experiment import Shard


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    processes = [Process(folder, name) for name in ("one", "other")]
    for process in processes:
        process.wait_until(lambda process=process: "ready" in process.output())
    yield processes
    for process in processes:
        process.kill()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The files of a run that this process trains alone."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    config = experiment.Config().replace(TINY)
    experiment.run_experiment(config, folder, "lenet_mnist", verbose=False)
    return contents(folder)


@pytest.mark.slow
def test_two_shards_at_the_same_time_train_the_whole_run(pair, alone, tmp_path):
    run = tmp_path / "run"
    for index, process in enumerate(pair):
        process.start(TINY, run, shard=f"{index}/2")
    for process in pair:
        process.wait()
        assert len(process.trained()) == 1 + 2 * 2
    assert __main__.main(["report", str(run)]) == 0
    assert contents(run) == alone


@pytest.mark.slow
def test_a_run_of_a_killed_process_is_taken_over(pair, alone, tmp_path):
    one, other = pair
    settings = {**TINY, "replicates": 1, "levels": 1, "controls": []}
    one.start(settings, tmp_path / "run", freeze_at=60)
    level = tmp_path / "run" / "replicate_0" / "level_0"
    one.wait_until(lambda: list(level.glob(".ticket.unfinished/*_60")))
    other.start(settings, tmp_path / "run")
    other.wait()
    assert other.output()[-2].startswith(f"process {one.process.pid} on ")
    one.process.kill()
    one.process.wait()
    other.start(settings, tmp_path / "run")
    other.wait()
    assert other.output()[-2:] == ["resumes at step 60", "ended"]
    assert len(other.trained()) == 2
    files = contents(tmp_path / "run")
    assert len(files.pop("results.csv")) == 2
    assert len(files) == 2 * 3
    for name, content in files.items():
        assert content == alone[name]
    assert not list(tmp_path.glob("run/**/.*.*"))


def command(run_dir, shard):
    settings = [
        word
        for name in ("model_options", "evaluate_every", "rate")
        for word in ("--set", f"{name}={json.dumps(TINY[name])}")
    ]
    return __main__.main(
        ["run", "lenet_mnist", "--run_dir", str(run_dir), "--steps", "100"]
        + ["--levels", "2", "--replicates", "2", "--controls", "reinit"]
        + ["--set", "rates={}", *settings, "--shard", shard]
    )


@pytest.mark.slow
def test_shards_one_after_another_train_the_whole_run(alone, tmp_path, capsys):
    run = tmp_path / "a run"
    assert command(run, "1/2") == 0
    out, err = capsys.readouterr()
    assert out == (
        "Shard 1/2 is done, others are not. Once they are: "
        f"tf-lottery report '{run}'\n"
    )
    assert "Shard 1/2: replicate 1 of 2; others are left to" in err
    assert not (run / "replicate_0").exists()
    assert not (run / "report.html").exists()
    assert command(run, "2/3") == 0
    out, err = capsys.readouterr()
    assert "Shard 2/3: replicate none of 2" in err
    assert command(run, "0/2") == 0
    assert capsys.readouterr().out.endswith("report.html\n")
    assert contents(run) == alone


@pytest.mark.parametrize("shard", ["2/2", "x/y", "1/0", "1", "", "/", "1/2/"])
def test_a_malformed_shard_is_refused(shard, tmp_path, capsys):
    assert command(tmp_path / "run", shard) == 2
    assert capsys.readouterr().err == (
        "tf-lottery: A shard is written i/n, of n shards number i from 0 to "
        f"n-1, such as 0/4; got {shard!r}.\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_replicate_of_a_sweep_belongs_to_one_shard(count):
    replicates = {"rate=0.1": 2, "rate=0.2": 1, "rate=0.4": 3}
    trained = [
        (label, replicate)
        for index in range(count)
        for label, each in Shard(index, count).within(replicates).items()
        for replicate in each.own(replicates[label])
    ]
    assert len(trained) == len(set(trained)) == 6
    sizes = [
        sum(
            len(each.own(replicates[label]))
            for label, each in Shard(index, count).within(replicates).items()
        )
        for index in range(count)
    ]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
def test_a_shard_of_a_sweep_trains_only_its_replicates(tmp_path):
    settings = {**TINY, "levels": 0, "replicates": 1, "length": "2it"}
    configs = experiment.expand(
        experiment.Config(), {**settings, "learning_rate": [1e-3, 2e-3]}
    )
    runs = experiment.run_sweep(
        configs, tmp_path / "s", verbose=False, shard=Shard(1, 2)
    )
    assert [[0], []] == [
        experiment.unfinished(config, run)
        for config, run in zip(configs.values(), runs, strict=True)
    ]
