"""The report of a run directory, read and written."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from tf_lottery import masking
from tf_lottery.analysis import (
    claims,
    conclusion,
    figures,
    published,
    report,
    table,
)
from tf_lottery.analysis.figures.connectivity import Between
from tf_lottery.analysis.ticket_structure import TicketStructure
from tf_lottery.core.errors import UserError
from tf_lottery.experiment import command, outcome, presets, sweep
from tf_lottery.lottery import stability
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs.run_directory import Record, RunDirectory, write_report


def write(run_dir: str | os.PathLike[str]) -> list[str]:
    """Writes the report of a run, or of a sweep and each of its runs.

    Args:
        run_dir: The directory of the run, or that of the sweep's runs; or
            its address in a bucket.

    Returns:
        What a terminal shows of it, in lines.

    Raises:
        ValueError: There is no run, or it holds no trained network.
    """
    runs = sweep.members(run_dir)
    if runs:
        return _of_sweep(run_dir, runs)
    return _of_run(RunDirectory.open(run_dir))


def _of_run(directory: RunDirectory) -> list[str]:
    records = _records(directory)
    metadata = directory.config["metadata"]
    preset, settings = metadata.get("preset", ""), metadata.get("settings", {})
    is_published = presets.is_published(settings)
    findings = claims.check(records, settings, is_published)
    judgment = outcome.judge(directory)
    drawn = figures.draw(
        records,
        published.bands(settings),
        is_published,
        _anatomy(directory, records),
        _lines(directory, records),
        stability.STABLE,
    )
    text = report.render(
        f"Lottery tickets: {preset or directory.path.name}",
        records,
        drawn,
        directory.config,
        findings,
        command.command(
            preset,
            settings,
            # On a CPU it is what any run is.
            deterministic=metadata.get("deterministic", False)
            and metadata.get("hardware", {}).get("GPU", "none") != "none",
        ),
        judgment,
    )
    page = write_report(directory.address, text, figures.files(drawn))
    return [
        table.text(records, judgment),
        "",
        *conclusion.sentences(judgment, records),
        *map(str, findings),
        "",
        page,
    ]


def _of_sweep(
    run_dir: str | os.PathLike[str], runs: Mapping[str, RunDirectory]
) -> list[str]:
    lines: list[str] = []
    tickets: list[Record] = []
    sentences: dict[str, list[str]] = {}
    for label, directory in runs.items():
        if not directory.records():
            lines += [label, "Nothing is trained yet.", ""]
            continue
        own = _of_run(directory)[:-2]
        lines += [label, *own, ""]
        records = _records(directory)
        judgment = outcome.judge(directory)
        sentences[label] = conclusion.sentences(judgment, records)
        tickets += [
            dataclasses.replace(record, variant=label)
            for record in records
            if record.variant == "ticket"
        ]
    if not tickets:
        raise UserError(f"{str(run_dir)!r} holds no trained network.")
    drawn = figures.compare(tickets)
    text = report.render_sweep(f"Sweep: {', '.join(runs)}", drawn, sentences)
    page = write_report(run_dir, text, figures.files(drawn))
    return [*lines, page]


def _records(directory: RunDirectory) -> list[Record]:
    """Returns a run's records, of level 0 the dense network alone.

    Its copies are looked at by what lies between them.
    """
    records = [
        record
        for record in directory.records()
        if record.level or record.variant == "ticket"
    ]
    if not records:
        raise UserError(f"{directory.address!r} holds no trained network.")
    return records


def _lines(directory: RunDirectory, records: Sequence[Record]) -> list[Between]:
    trained = {record.digests["trained"] for record in directory.records()}
    found = []
    for record in records:
        if record.variant != "ticket":
            continue
        line = directory.line(record.replicate, record.level)
        # Of networks that were trained anew since, nothing is known.
        if line is not None and set(line["between"]) <= trained:
            density = record.row["density"]
            ends = line["alphas"], line["errors"]
            found.append(Between(record.level, density, *ends))
    return sorted(found, key=lambda line: line.level)


def _anatomy(
    directory: RunDirectory, records: Sequence[Record]
) -> TicketStructure | None:
    """Returns the tickets of the replicate that has most levels, taken apart.

    None where that is the dense network alone.
    """
    levels: dict[int, list[int]] = {}
    for record in records:
        if record.variant == "ticket":
            levels.setdefault(record.replicate, []).append(record.level)
    replicate = max(levels, key=lambda r: len(levels[r]))
    if len(levels[replicate]) < 2:
        return None
    dense = directory.ticket(replicate, 0)
    initial, trained = dense.origin.weights, dense.trained or {}
    return TicketStructure(
        replicate,
        {path: initial[path] for path in dense.masks},
        {path: trained[path] for path in dense.masks},
        {n: directory.masks(replicate, n) for n in levels[replicate]},
        *_image(dense),
    )


def _image(ticket: Ticket) -> tuple[tuple[int, int, int] | None, str]:
    """Returns the shape of images, and the kernel that reads them flattened.

    None and "" where a network takes no images, or reads them otherwise.
    """
    try:
        model = ticket.template()
    except ValueError:  # a subclassed one, or of classes not known here
        return None, ""
    shape = getattr(model, "input_shape", ())
    kernels = masking.kernels(model, include=list(ticket.masks))
    path, kernel = next(iter(kernels.items()))
    flat = tuple(kernel.variable.shape)[:-1]
    match shape:
        case (_, int(height), int(width), int(channels)) if flat == (
            height * width * channels,
        ):
            return (height, width, channels), path
    return None, ""
