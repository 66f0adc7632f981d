"""Files of one trained network: ticket, trained weights, record."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_lottery.core.storage import array_file
from tf_lottery.lottery import ticket_file
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.lottery.ticket_file import pack, unpack
from tf_lottery.runs import layout
from tf_lottery.runs.record import Record, start_fingerprint
from tf_lottery.training import TrainingResult
from tf_lottery.training.state import digest


def contents(
    ticket: Ticket, result: TrainingResult, row: Mapping[str, Any]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Returns the files of a trained network, and what its record says.

    Args:
        ticket: The ticket that was trained.
        result: The result of its training.
        row: Its row of results.csv.
    """
    files = {
        layout.TICKET: ticket_file.encode(ticket),
        layout.TRAINED: array_file.encode(
            "trained", *_trained_file(ticket, result)
        ),
    }
    record = {
        "row": row,
        "digests": {
            **start_fingerprint(ticket),
            "trained": digest(result.trained),
        },
        "curve": {
            key: [point[key] for point in result.curve]
            for key in (result.curve[-1] if result.curve else ())
        },
    }
    return files, record


def _trained_file(
    ticket: Ticket, result: TrainingResult
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns header and arrays of the file of trained weights."""
    arrays = pack("weights", result.trained, ticket.masks)
    metrics = result.metrics
    # At the last step, the best weights are the trained ones.
    is_last = metrics.get("early_stop_step") == metrics["steps"]
    best = {} if is_last or result.best is None else result.best
    arrays |= pack("best", best, ticket.masks)
    arrays |= pack("slots", result.slots, ticket.masks)
    examples = {}
    for split, values in result.per_example.items():
        if values.dtype == bool:
            examples[split] = len(values)
            arrays[f"correct/{split}"] = np.packbits(values)
        else:
            arrays[f"per_example/{split}"] = values
    return {"examples": examples}, arrays


def read_record(folder: pathlib.Path, content: Mapping[str, Any]) -> Record:
    """Returns the record of a trained network.

    Args:
        folder: Its folder.
        content: The content of its record.json.
    """
    header, arrays = array_file.read(folder / layout.TRAINED, "trained")
    per_example = {
        split: np.unpackbits(arrays[f"correct/{split}"], count=count).astype(
            bool
        )
        for split, count in header["examples"].items()
    }
    per_example |= {
        key.removeprefix("per_example/"): array
        for key, array in arrays.items()
        if key.startswith("per_example/")
    }
    return Record(
        **content["network"],
        row=content["row"],
        curve=content["curve"],
        digests=content["digests"],
        per_example=per_example,
    )


def read_result(
    folder: pathlib.Path, ticket: Ticket, content: Mapping[str, Any]
) -> TrainingResult:
    """Returns the result of a network's training.

    Args:
        folder: The network's folder.
        ticket: The ticket that was trained.
        content: The content of its record.json.
    """
    record = read_record(folder, content)
    _, arrays = array_file.read(folder / layout.TRAINED, "trained")
    return TrainingResult(
        trained=unpack("weights", arrays, ticket.masks),
        slots=unpack("slots", arrays, ticket.masks),
        metrics={
            name: value
            for name, value in record.row.items()
            if name not in layout.NETWORK_COLUMNS
        },
        curve=tuple(
            dict(zip(record.curve, point, strict=True))
            for point in zip(*record.curve.values(), strict=True)
        ),
        per_example=record.per_example,
        best=unpack("best", arrays, ticket.masks) or None,
    )


def read_ticket(folder: pathlib.Path) -> Ticket:
    """Returns the ticket of a network, with its trained weights.

    Args:
        folder: The network's folder.
    """
    ticket = Ticket.load(folder / layout.TICKET)
    _, arrays = array_file.read(folder / layout.TRAINED, "trained")
    return dataclasses.replace(
        ticket,
        trained=unpack("weights", arrays, ticket.masks),
        best=unpack("best", arrays, ticket.masks) or None,
    )
