"""Networks of a run on a Ray cluster, whose workers and nodes come and go."""

import dataclasses
import os
import signal
import sys

import pytest
import ray_builds
import ray_storm
import sample_searches
import sample_tickets
import toy

from tf_lottery import __main__, experiment
from tf_lottery.core.errors import UserError
from tf_lottery.runs import executors
from tf_lottery.runs.executors import ProcessPool
from tf_lottery.training import State, plan


@pytest.fixture(scope="module")
def cluster():
    """A cluster of a head without cores and, at first, one node of one."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        made = cluster_utils.Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False},
        )
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def jobs():
    """Three networks to train."""
    return sample_tickets.jobs(ray_builds.often_saving(), 3)


@pytest.fixture(scope="module")
def expected(jobs):
    """What the networks are, trained without disturbance on this machine."""
    with ProcessPool(ray_builds.often_saving, 1, 1) as pool:
        return digests(jobs, train(pool, jobs))


def with_nodes(cluster, count):
    while len(cluster.worker_nodes) < count:
        cluster.add_node(num_cpus=1)
    while len(cluster.worker_nodes) > count:
        cluster.remove_node(next(iter(cluster.worker_nodes)))


def connect(cluster, build=ray_builds.often_saving):
    from tf_lottery.runs.executors import ray_cluster

    return ray_cluster.RayExecutor(build, cluster.address, 1)


def in_folders(jobs, path):
    return [
        dataclasses.replace(job, folder=path / f"{i}")
        for i, job in enumerate(jobs)
    ]


def train(executor, jobs, on_progress=lambda *_: None):
    """Returns the outcome of each job, as the scheduler trains them."""
    outcomes, waiting = {}, list(jobs)
    while len(outcomes) < len(jobs):
        while waiting and executor.free_slots(len(waiting)):
            executor.submit(waiting.pop(0))
        outcomes |= dict(executor.wait(on_progress))
    return [outcomes[job] for job in jobs]


def digests(jobs, outcomes):
    """Returns all of the results but the time that they took."""
    return [
        (
            State(0, outcome.trained, {}).digest,
            State(0, outcome.best, {}).digest,
            {k: v for k, v in outcome.metrics.items() if k != "seconds"},
            outcome.curve,
        )
        for outcome in outcomes
    ]


class Watch:
    """Remembers the steps of each job, and acts once, in mid-training."""

    def __init__(self, action=lambda: None, at=2_000):
        self._action, self._at = action, at
        self.steps = {}
        self.training_at_once = 0

    def __call__(self, job, step, metrics):
        self.steps.setdefault(job, []).append(step)
        if metrics and step >= self._at and self._action:
            action, self._action = self._action, None
            action()

    def resumed(self):
        """The steps that a second worker started from."""
        return [
            step
            for steps in self.steps.values()
            for step in steps[1:]
            if steps.count(step) > 1 and step
        ]

    def restarted(self):
        """How many jobs started from step 0 more than once."""
        return sum(steps.count(0) > 1 for steps in self.steps.values())


@pytest.mark.slow
def test_a_killed_worker_costs_its_network_what_was_not_saved(
    cluster, jobs, expected, tmp_path
):
    with_nodes(cluster, 1)
    jobs = in_folders(jobs, tmp_path)
    with connect(cluster) as ray_executor:
        pid = ray_executor.call(pid_of)
        watch = Watch(lambda: os.kill(pid, signal.SIGKILL))
        outcomes = train(ray_executor, jobs, watch)
        assert ray_executor.call(pid_of) != pid
    assert digests(jobs, outcomes) == expected
    assert watch.resumed()
    assert not watch.restarted()


def pid_of(_):
    return os.getpid()


@pytest.mark.slow
def test_a_lost_node_costs_nobody_else_anything(
    cluster, jobs, expected, tmp_path
):
    with_nodes(cluster, 2)
    jobs = in_folders(jobs, tmp_path)
    watch = Watch(lambda: with_nodes(cluster, 1))
    with connect(cluster) as ray_executor:
        outcomes = train(ray_executor, jobs, watch)
    assert digests(jobs, outcomes) == expected
    assert watch.resumed()
    assert not watch.restarted()


@pytest.mark.slow
def test_a_new_node_is_used(cluster, jobs, expected):
    with_nodes(cluster, 1)
    watch = Watch(lambda: with_nodes(cluster, 2), at=1_000)
    with connect(cluster) as ray_executor:
        outcomes = train(ray_executor, jobs, watch)
        # All may have been trained before the new node's worker had started.
        signal.alarm(120)  # ends the process
        try:
            while ray_executor.free_slots(2) < 2:
                ray_executor.wait(lambda *_: None)
        finally:
            signal.alarm(0)
    assert digests(jobs, outcomes) == expected
    assert not watch.restarted()


@pytest.mark.slow
def test_a_network_that_kills_its_workers_is_named(cluster, jobs, tmp_path):
    with_nodes(cluster, 1)
    (job, *_) = in_folders(jobs, tmp_path)
    with connect(cluster, ray_builds.deadly) as ray_executor:
        message = "3 workers died while they trained the network of .*/0, none "
        with pytest.raises(UserError, match=message):
            train(ray_executor, [job])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "error", "place"),
    [
        (ray_builds.broken, ZeroDivisionError, "in outcomes"),
        (ray_builds.not_built, LookupError, "in not_built"),
    ],
)
def test_an_error_in_a_worker_is_raised_here_with_its_traceback(
    build, error, place, cluster, jobs
):
    with_nodes(cluster, 1)
    with connect(cluster, build) as ray_executor:
        with pytest.raises(error) as raised:
            train(ray_executor, jobs[:1])
        assert type(raised.value) is error
        assert place in "".join(raised.value.__notes__)


@pytest.mark.slow
def test_a_storm_leaves_the_bytes_of_an_undisturbed_run(tmp_path):
    ray_storm.storm(3, tmp_path)  # each kind once


@pytest.mark.slow
def test_a_users_search_is_the_same_on_a_cluster(cluster, tmp_path):
    def loss(y, outputs):  # no worker can import it
        return 1.5 * toy.loss()(y, outputs)

    def find(folder, **where):
        search = sample_searches.prepare(replicates=2, levels=1)
        search.compile("adam", loss)
        sample_searches.fit(search, tmp_path / folder, **where)
        return [
            path.read_bytes()
            for name in ("trained", "best", "ticket")
            for path in sorted((tmp_path / folder).rglob(name))
            if path.is_file()
        ]

    with_nodes(cluster, 1)
    here = find("here")
    assert len(here) == 8
    assert find("there", cluster=cluster.address) == here


def test_a_missing_package_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    name = f"{executors.__name__}.ray_cluster"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(executors, "ray_cluster", raising=False)
    assert command(tmp_path / "run", "local") == 2
    assert capsys.readouterr().err == (
        "tf-lottery: `cluster` needs Ray: pip install 'tf-lottery[ray]'.\n"
    )
    assert not (tmp_path / "run").exists()


def command(run_dir, cluster, *more):
    return __main__.main(
        ["run", "lenet_mnist", "--run_dir", str(run_dir), "--steps", "10"]
        + ["--cluster", cluster, *more]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", "is an address of Ray Client"),
        ("127.0.0.1:1", "could not connect to cluster '127.0.0.1:1'"),
    ],
)
def test_a_cluster_that_is_not_there_is_said_in_one_line(
    address, message, tmp_path, capsys
):
    assert command(tmp_path / "run", address) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_cluster_excludes_processes_of_this_machine():
    config = experiment.Config().replace({"length": "10it"})
    with pytest.raises(UserError, match="leave out `cluster`, or `workers`"):
        experiment.run_experiment(config, "run", workers=2, cluster="local")


def test_the_plan_names_the_cluster(tmp_path, capsys):
    assert command(tmp_path / "run", "head:6379", "--explain") == 0
    said = capsys.readouterr().out
    assert f"executor   {plan.RAY_CLUSTER}\n" in said
    assert "processes  one for each core, or each GPU, of cluster" in said
