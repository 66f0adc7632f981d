"""Writes the report of a run directory."""

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
from tf_lottery.analysis.figures import InterpolatedErrors
from tf_lottery.analysis.ticket_structure import TicketStructure
from tf_lottery.core.errors import UserError
from tf_lottery.experiment import command, outcome, presets, sweep
from tf_lottery.lottery import stability
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs import foreign_files
from tf_lottery.runs.record import Record
from tf_lottery.runs.run_directory import RunDirectory, write_report


def write(run_dir: str | os.PathLike[str]) -> list[str]:
    """Writes the report of a run, or of a sweep and each of its runs.

    Args:
        run_dir: Directory of the run or of the sweep, or its address in a
            bucket.

    Returns:
        Lines for the terminal: the table of levels, the verdict, the claims,
        and the path of the report.

    Raises:
        UserError: The directory holds no run, or no trained network, or
            files that are not as runs write them.
    """
    foreign_files.require_sound(run_dir)
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
    rendered = figures.draw(
        records,
        published.bands(settings),
        is_published,
        _ticket_structure(directory, records),
        _paths_between_copies(directory, records),
        stability.STABLE,
    )
    text = report.render(
        f"Lottery tickets: {preset or directory.path.name}",
        records,
        rendered,
        directory.config,
        findings,
        command.command(
            preset,
            settings,
            # On a CPU every run is deterministic.
            deterministic=metadata.get("deterministic", False)
            and metadata.get("hardware", {}).get("GPU", "none") != "none",
        ),
        judgment,
    )
    page = write_report(directory.address, text, figures.files(rendered))
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
        lines += [label, *_of_run(directory)[:-2], ""]
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
    rendered = figures.compare(tickets)
    text = report.render_sweep(f"Sweep: {', '.join(runs)}", rendered, sentences)
    page = write_report(run_dir, text, figures.files(rendered))
    return [*lines, page]


def _records(directory: RunDirectory) -> list[Record]:
    """Returns a run's records without copies of the dense network.

    The figure of connectivity shows these.
    """
    records = [
        record
        for record in directory.records()
        if record.level or record.variant == "ticket"
    ]
    if not records:
        raise UserError(f"{directory.address!r} holds no trained network.")
    return records


def _paths_between_copies(
    directory: RunDirectory, records: Sequence[Record]
) -> list[InterpolatedErrors]:
    trained = {record.digests["trained"] for record in directory.records()}
    paths = []
    for record in records:
        if record.variant != "ticket":
            continue
        line = directory.line(record.replicate, record.level)
        # A network that was trained again since has another digest.
        if line is None or not set(line["between"]) <= trained:
            continue
        path = stability.LinearPath(
            line["alphas"], line["errors"], line["distance"]
        )
        paths.append(
            InterpolatedErrors(
                record.level,
                record.row["density"],
                path.alphas,
                path.errors,
                {split: path.barrier(split) for split in path.errors},
            )
        )
    return sorted(paths, key=lambda path: path.level)


def _ticket_structure(
    directory: RunDirectory, records: Sequence[Record]
) -> TicketStructure | None:
    """Returns the tickets of the replicate with the most levels.

    `None` if only dense networks are trained.
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
        *_image_reader(dense),
    )


def _image_reader(
    ticket: Ticket,
) -> tuple[tuple[int, int, int] | None, str]:
    """Returns the shape of images and the kernel that reads them flattened.

    `None` and "" if the network does not read flattened images.
    """
    try:
        model = ticket.template()
    except ValueError:  # The model is subclassed, or its classes are not known.
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
