"""The command `export`."""

import argparse
import pathlib
from typing import TYPE_CHECKING

from tf_lottery.cli.silence import silence_tensorflow
from tf_lottery.cli.terminal import show
from tf_lottery.core import registries, registry
from tf_lottery.core.errors import UserError

if TYPE_CHECKING:
    import keras

    from tf_lottery.export.formats import Format
    from tf_lottery.runs.run_directory import RunDirectory

TEXT = "write a ticket of a run to a file, to serve or to train"

TICKETS = {"ticket": True, "seed_ticket": False}
"""Formats to train from: whether they store weights, or only the seed."""
KNOWN = dict.fromkeys([*registries.FORMATS, *TICKETS])
"""Names of all formats."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the ticket, the formats, and how files are measured."""
    parser.add_argument("run_dir", metavar="DIR", help="the run's directory")
    selection = parser.add_mutually_exclusive_group(required=True)
    selection.add_argument(
        "--level",
        type=int,
        metavar="L",
        help="pruning rounds of the ticket; 0: the dense network",
    )
    selection.add_argument(
        "--max_drop",
        type=float,
        metavar="D",
        help="export the smallest ticket shown to lose at most this much of "
        "the run's metric on validation data: 0.005 is half a point",
    )
    parser.add_argument(
        "--replicate",
        type=int,
        default=0,
        metavar="R",
        help="replicate that trained the ticket (default: 0)",
    )
    parser.add_argument(
        "--format",
        default="saved_model",
        metavar="F",
        help="saved_model (default), sparse_saved_model, keras, litert, "
        "sparse_litert, onnx; ticket, seed_ticket (to train: masks, and the "
        "initial weights or the seed that draws them); or several, separated "
        "by commas",
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "float16", "int8"),
        help="type of the stored weights (default: float32)",
    )
    parser.add_argument(
        "--shrink",
        action="store_true",
        help="remove the units that the mask has disconnected",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads used to measure (default: 1)",
    )
    parser.add_argument("--data_dir", metavar="D", help="as in `run`")
    parser.add_argument(
        "--output",
        required=True,
        metavar="OUT",
        help="the file; with several formats, the directory of the files",
    )


def execute(arguments: argparse.Namespace) -> None:
    """Writes the ticket; prints size, speed and accuracy of each file."""
    names = arguments.format.split(",")
    for name in names:
        registry.get(KNOWN, name, "format")
    with silence_tensorflow():
        from tf_lottery import export
        from tf_lottery.export import atomic_output
        from tf_lottery.runs.run_directory import RunDirectory
    formats = {
        name: export.check(name, arguments.dtype)
        for name in names
        if name not in TICKETS
    }
    if len(formats) < len(names) and (
        arguments.shrink or arguments.dtype != "float32"
    ):
        raise UserError(
            f"Formats {' and '.join(TICKETS)} keep a ticket exactly: leave "
            "out --shrink and --dtype, or export them separately."
        )
    directory = RunDirectory.open(arguments.run_dir)
    if arguments.max_drop is not None:
        arguments.level = _smallest(
            directory, arguments.replicate, arguments.max_drop
        )
    ticket = directory.ticket(arguments.replicate, arguments.level)
    paths = {name: pathlib.Path(arguments.output) for name in names}
    if len(names) > 1:
        for name in names:
            suffix = formats[name].suffix if name in formats else ".ticket"
            paths[name] = paths[name] / f"{name}{suffix}"
    for name in sorted(paths.keys() - formats.keys()):
        with atomic_output.replacing(paths[name]) as file:
            ticket.save(file, values=TICKETS[name])
        show(paths[name])
    if formats:
        _serve(arguments, directory, export.plain(ticket), formats, paths)


def _smallest(
    directory: "RunDirectory", replicate: int, max_drop: float
) -> int:
    """Returns the level of the smallest ticket within `max_drop`."""
    from tf_lottery.analysis import smallest
    from tf_lottery.analysis.deciding import deciding

    records = [r for r in directory.records() if r.replicate == replicate]
    if not any(r.level == 0 for r in records):
        raise UserError(
            f"{directory.address!r} has no replicate {replicate}: results.csv "
            "lists what it has."
        )
    drops = smallest.drops(records, max_drop, smallest.CONFIDENCE)
    chosen = smallest.choose(drops, max_drop)
    metric = deciding([r.row for r in records if not r.level])
    if chosen is None:
        raise UserError(
            smallest.refusal(drops, metric, max_drop, smallest.CONFIDENCE)
        )
    show(
        f"Level {chosen.level}, {100 * chosen.density:.1f} % of the weights: "
        f"{metric.difference(-chosen.drop)} of validation {metric.title} "
        f"({metric.bound(-chosen.most)}, 97.5 % confidence over "
        f"{chosen.examples:,} examples)."
    )
    return chosen.level


def _serve(
    arguments: argparse.Namespace,
    directory: "RunDirectory",
    model: "keras.Model",
    formats: dict[str, "Format"],
    paths: dict[str, pathlib.Path],
) -> None:
    """Writes files to serve; prints size, speed and accuracy of each."""
    with silence_tensorflow():
        from tf_lottery import data, export
        from tf_lottery.export import suppress_output
    prefix = ""
    if arguments.shrink:
        shrunk = export.shrink(model)
        model, prefix = shrunk.model, "units that are dead are gone; "
        show(f"{shrunk.before:,} weights shrunk to {shrunk.after:,}.")
        for line in shrunk.stayed:
            show(f"Stayed: {line}")
    dataset = directory.config["metadata"].get("settings", {}).get("dataset")
    test = validation = None
    if dataset:
        loaded = data.load_dataset(dataset, arguments.data_dir)
        test, validation = loaded.test, loaded.validation
    for name in formats:
        with suppress_output.suppress_stderr():
            export.write(
                model,
                paths[name],
                name,
                arguments.dtype,
                x=None if validation is None else validation.x[:32],
            )
        show(paths[name])
    if not dataset:
        show("Not measured: the run has no data set known by name.")
        return
    if test is None:
        show(f"Not measured: {dataset} has no test data.")
        return
    reference = model.predict(test.x, batch_size=256, verbose=0)
    exports = [
        export.comparison.Export(
            f"{name}, {arguments.dtype}",
            paths[name],
            format,
            reference,
            prefix + format.why[arguments.dtype],
        )
        for name, format in formats.items()
    ]
    original = export.plain(directory.ticket(arguments.replicate, 0))
    with suppress_output.suppress_stderr():
        measured = export.comparison.with_original(
            original, exports, test.x, test.y, arguments.threads
        )
    show()
    show(export.comparison.table(measured))
    show()
    for line in export.comparison.sentences(measured, arguments.threads):
        show(line)
