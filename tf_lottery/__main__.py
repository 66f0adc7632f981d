"""This module knows the command line."""

import argparse
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from absl.flags import argparse_flags

from tf_lottery.version import __version__

if TYPE_CHECKING:
    from tf_lottery.experiment.config import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tf-lottery` and returns its exit status.

    Args:
        argv: The arguments; None: those of the process.

    Returns:
        0; 2 after bad input, with one line on standard error; 130 after
        Ctrl-C.
    """
    try:
        arguments = _parser().parse_args(argv)
        arguments.command(arguments)
    except (ValueError, TypeError, FileNotFoundError, ImportError) as error:
        print(f"tf-lottery: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "tf-lottery: interrupted. The same command goes on from here.",
            file=sys.stderr,
        )
        return 130
    return 0


class _Parser(argparse_flags.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}. Try: {self.prog} --help\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="tf-lottery",
        description="Find, prove and hand on lottery tickets "
        "(Frankle & Carbin 2019).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"tf-lottery {__version__}",
    )
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", parser_class=_Parser
    )
    add = _adder(commands)
    add("list", _list, "show presets, models, data sets and the rest")
    run = add("run", _run, "run an experiment, or what of it is not done yet")
    run.add_argument("preset", metavar="PRESET", help="see `tf-lottery list`")
    run.add_argument("--run_dir", required=True, metavar="DIR")
    run.add_argument(
        "--scale",
        default="quick",
        help="paper: the published setting; quick: minutes (default)",
    )
    run.add_argument("--levels", metavar="N", help="pruning rounds")
    run.add_argument("--replicates", metavar="R", help="how many seeds")
    run.add_argument("--steps", metavar="N", help="training steps a network")
    run.add_argument(
        "--controls", metavar="NAMES", help="such as reinit,shuffle"
    )
    run.add_argument("--seed", metavar="S")
    run.add_argument(
        "--data_dir",
        metavar="D",
        help="where TensorFlow Datasets keeps data (default: its own folder)",
    )
    run.add_argument(
        "--workers",
        type=int,
        metavar="W",
        help="processes to train in (default: as is fastest here)",
    )
    run.add_argument(
        "--deterministic",
        action="store_true",
        help="the same bytes every time on a GPU too, more slowly",
    )
    run.add_argument(
        "--explain",
        action="store_true",
        help="say how networks would be trained here, and train none",
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting; may be repeated; a list of values is a sweep",
    )
    report = add("report", _report, "draw the report of a run again")
    report.add_argument("run_dir", metavar="DIR")
    connect = add(
        "stability", _stability, "measure the barrier between copies of a run"
    )
    connect.add_argument("run_dir", metavar="DIR")
    connect.add_argument("--level", type=int, metavar="L", help="default: all")
    connect.add_argument("--data_dir", metavar="D")
    export = add("export", _export, "write a ticket of a run to serve")
    export.add_argument("run_dir", metavar="DIR")
    export.add_argument("--level", type=int, required=True, metavar="L")
    export.add_argument("--replicate", type=int, default=0, metavar="R")
    export.add_argument(
        "--format",
        default="saved_model",
        metavar="F",
        help="saved_model (default), sparse_saved_model, keras, litert, "
        "sparse_litert, onnx; or several, separated by commas",
    )
    export.add_argument(
        "--dtype", default="float32", help="float32 (default), float16, int8"
    )
    export.add_argument(
        "--shrink",
        action="store_true",
        help="without the units that the mask has left dead",
    )
    export.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads to measure with (default: 1)",
    )
    export.add_argument("--data_dir", metavar="D", help="as in `run`")
    export.add_argument(
        "--output",
        required=True,
        metavar="OUT",
        help="the file; of several formats, the directory that holds them",
    )
    return parser


def _adder(
    commands: "argparse._SubParsersAction[_Parser]",
) -> Callable[..., _Parser]:
    def add(
        name: str, command: Callable[[argparse.Namespace], None], text: str
    ) -> _Parser:
        parser = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False
        )
        parser.set_defaults(command=command)
        return parser

    return add


def _list(arguments: argparse.Namespace) -> None:
    del arguments
    with _quiet():
        from tf_lottery import controls, data, models, pruning
        from tf_lottery.experiment import presets
    for kind, table in (
        ("presets", presets.PRESETS),
        ("models", models.MODELS),
        ("data sets", [*data.DATASETS, "any image set of TFDS by name"]),
        ("criteria", pruning.CRITERIA),
        ("allocations", pruning.ALLOCATIONS),
        ("schedules", pruning.SCHEDULES),
        ("controls", controls.CONTROLS),
    ):
        print(f"{kind + ':':<13} {', '.join(table)}")


def _configs(arguments: argparse.Namespace) -> "dict[str, Config]":
    """Returns the settings that the arguments of `run` ask for, by label."""
    settings = {}
    for pair in arguments.set:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE; got {pair!r}.")
        settings[key] = value
    for name in ("levels", "replicates", "controls", "seed"):
        value = getattr(arguments, name)
        if value is not None:
            settings[name] = value
    if arguments.steps is not None:
        settings["length"] = f"{arguments.steps}it"
    with _quiet():
        from tf_lottery.experiment import presets, sweep
    preset = presets.find(arguments.preset, arguments.scale)
    return sweep.expand(preset, settings)


def _run(arguments: argparse.Namespace) -> None:
    configs = _configs(arguments)
    from tf_lottery import experiment

    if arguments.workers is not None and arguments.workers < 1:
        raise ValueError(
            f"--workers must be 1 or more; got {arguments.workers}."
        )
    if arguments.explain:
        for config in configs.values():
            for line in experiment.explain(
                config, arguments.workers, arguments.data_dir
            ):
                print(line)
        return
    run: Callable[..., object] = experiment.run_sweep
    what: object = configs
    if "" in configs:
        run, what = experiment.run_experiment, configs[""]
    run(
        what,
        arguments.run_dir,
        arguments.preset,
        workers=arguments.workers,
        data_dir=arguments.data_dir,
        deterministic=arguments.deterministic,
    )
    _report(arguments)


def _report(arguments: argparse.Namespace) -> None:
    with _quiet():
        from tf_lottery import reports
    print("\n".join(reports.write(arguments.run_dir)))


def _stability(arguments: argparse.Namespace) -> None:
    with _quiet():
        from tf_lottery import experiment
        from tf_lottery.store import RunDirectory
    lines = experiment.connect(
        RunDirectory.open(arguments.run_dir),
        arguments.level,
        arguments.data_dir,
    )
    for replicate, level, line in lines:
        barriers = "  ".join(
            f"{split} {100 * line.barrier(split):6.2f}" for split in line.errors
        )
        print(
            f"replicate {replicate}  level {level:>2}  barrier in points: "
            f"{barriers}  distance {line.distance:.2f}",
            flush=True,
        )


def _export(arguments: argparse.Namespace) -> None:
    with _quiet():
        from tf_lottery import export
        from tf_lottery.store import RunDirectory
    names = arguments.format.split(",")
    formats = {name: export.check(name, arguments.dtype) for name in names}
    directory = RunDirectory.open(arguments.run_dir)
    ticket = directory.ticket(arguments.replicate, arguments.level)
    paths = {name: pathlib.Path(arguments.output) for name in names}
    if len(names) > 1:
        paths = {
            name: paths[name] / f"{name}{found.suffix}"
            for name, found in formats.items()
        }
    model, prefix = export.plain(ticket), ""
    if arguments.shrink:
        shrunk = export.shrink(ticket)
        model, prefix = shrunk.model, "units that are dead are gone; "
        print(f"{shrunk.before:,} weights shrunk to {shrunk.after:,}.")
        for line in shrunk.stayed:
            print(f"Stayed: {line}")
    for name, path in paths.items():
        with _quiet():
            export.write(model, path, name, arguments.dtype)
        print(path)
    with _quiet():
        from tf_lottery import data
    name = directory.config["about"].get("settings", {}).get("dataset")
    test = data.load_dataset(name, arguments.data_dir).test if name else None
    if test is None:
        print("Not measured: the run has no test data that are known by name.")
        return
    reference = model.predict(test.x, batch_size=256, verbose=0)
    exports = [
        export.comparison.Export(
            f"{name}, {arguments.dtype}",
            paths[name],
            found,
            reference,
            prefix + found.why[arguments.dtype],
        )
        for name, found in formats.items()
    ]
    original = export.plain(directory.ticket(arguments.replicate, 0))
    with _quiet():
        measured = export.comparison.with_original(
            original, exports, test.x, test.y, arguments.threads
        )
    print()
    print(export.comparison.table(measured))
    print()
    for line in export.comparison.sentences(measured, arguments.threads):
        print(line)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TensorFlow's start-up chatter off the terminal.

    It comes from C++, some of it before any setting is read, so standard
    error itself is turned away while TensorFlow starts; what it said is shown
    if that fails. Only the command line does this, never the package.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow as tf

            # Devices too announce themselves when they are first looked for.
            tf.config.list_logical_devices()
            tf.get_logger().setLevel("ERROR")
            yield
        except BaseException:
            said.seek(0)
            os.write(terminal, said.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


if __name__ == "__main__":
    sys.exit(main())
