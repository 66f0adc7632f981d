"""The example files ask for what the command line can do."""

import os
import pathlib
import re
import subprocess

import pytest

from tf_lottery import __main__, cli
from tf_lottery.experiment import Shard

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def slurm(tmp_path, index, count):
    """The words of the command, as a shell runs the script in an array."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    program = tmp_path / "tf-lottery"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    return subprocess.run(
        ["bash", EXAMPLES / "slurm_array.sh"],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_ARRAY_TASK_ID": str(index),
            "SLURM_ARRAY_TASK_COUNT": str(count),
        },
        capture_output=True,
        check=True,
        text=True,
    ).stdout.splitlines()


def slurm_count():
    text = (EXAMPLES / "slurm_array.sh").read_text()
    (last,) = re.findall(r"^#SBATCH --array=0-(\d+)$", text, re.M)
    return int(last) + 1


def kubernetes(_, index, __):
    """The words of the command, as the kubelet fills in the index."""
    text = (EXAMPLES / "kubernetes_indexed_job.yaml").read_text()
    listed = re.search(r" command:\n((?: +- .*\n)+)", text)[1]
    filled = listed.replace("$(JOB_COMPLETION_INDEX)", str(index))
    program, *words = re.findall(r"^ +- (.*)$", filled, re.M)
    assert program == "tf-lottery"
    return words


def kubernetes_count():
    text = (EXAMPLES / "kubernetes_indexed_job.yaml").read_text()
    (count,) = re.findall(r"^  completions: (\d+)$", text, re.M)
    assert f"parallelism: {count}\n" in text
    assert "completionMode: Indexed\n" in text
    return int(count)


def slurm_ray(tmp_path):
    """The words of the command, as a shell runs the script on two nodes."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    for name in ("ray", "srun", "tf-lottery"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {name}.words\n')
        program.chmod(0o755)
    subprocess.run(
        ["bash", EXAMPLES / "slurm_ray.sh"],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "12345",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "2",
        },
        check=True,
    )
    head = (tmp_path / "ray.words").read_text().split()
    words = (tmp_path / "tf-lottery.words").read_text().split()
    assert "--port=22345" in head
    assert head[-1] == "stop"
    assert words[-1].endswith(":22345")
    return words


def kuberay(_):
    """The words of the command of the job."""
    text = (EXAMPLES / "kuberay.yaml").read_text()
    folded = re.search(r"entrypoint: >-\n((?:    .*\n)+?)  \w", text)[1]
    program, *words = folded.split()
    assert program == "tf-lottery"
    return words


@pytest.mark.parametrize("words", [slurm_ray, kuberay])
def test_a_job_on_a_cluster_trains_on_it(words, tmp_path):
    arguments = __main__._parser().parse_args(words(tmp_path))
    assert arguments.cluster
    (config,) = cli.run.configs(arguments).values()
    assert config.replicates == 5


@pytest.mark.parametrize(
    ("words", "count"),
    [(slurm, slurm_count()), (kubernetes, kubernetes_count())],
)
def test_an_array_job_trains_every_replicate_once(words, count, tmp_path):
    own = []
    for index in range(count):
        (tmp_path / str(index)).mkdir()
        said = words(tmp_path / str(index), index, count)
        arguments = __main__._parser().parse_args(said)
        (config,) = cli.run.configs(arguments).values()
        own += Shard.parse(arguments.shard).own(config.replicates)
    assert sorted(own) == list(range(config.replicates))


def test_every_example_is_tested():
    assert sorted(path.name for path in EXAMPLES.iterdir()) == [
        "kuberay.yaml",
        "kubernetes_indexed_job.yaml",
        "slurm_array.sh",
        "slurm_ray.sh",
    ]
