"""This module knows the files of a run directory, and nobody else does.

::

  config.json                     what determines the run; and versions
  results.csv                     one row per trained network
  rewind.json                     how the first stable step was found, if it was
  report.html, figures/           drawn from the records
  replicate_0/theta_0/            θ0, and θk, as TensorFlow checkpoints
  replicate_0/level_3/line.json   what lies between a ticket and its copy
  replicate_0/level_3/.ticket.unfinished/    where a training under way is
  .leases/                        which process trains what
  replicate_0/level_3/ticket/     of each trained network, by level and variant:
      ticket                      its ticket file
      trained                     its trained weights; what it classified right
      record.json                 figures, learning curve, digests
  replicate_0/level_3/reinit/     of a network that diverged, in place of these:
      diverged.json               when its loss became nan, digests

Whatever is there is whole: files and folders are written beside their place
and renamed into it. So any number of processes work on one directory.

A run directory may lie in a bucket: the same files, of which each process has
a temporary copy. It brings what it looks for, and puts what it writes.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_lottery.core.errors import MissingFileError, UserError
from tf_lottery.core.masks import Masks
from tf_lottery.core.storage import array_file, object_store
from tf_lottery.core.storage.leases import Leases
from tf_lottery.core.storage.object_store import Bucket, BucketError
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.lottery.ticket_file import pack, unpack
from tf_lottery.training import Diverged, TrainingResult
from tf_lottery.training.state import digest

COLUMNS = (
    "preset",
    "replicate",
    "level",
    "variant",
    "density",
    "weights_kept",
    "steps",
    "early_stop_step",
    "validation_loss_at_early_stop",
    "validation_accuracy_at_early_stop",
    "test_accuracy_at_early_stop",
    "test_accuracy",
    "train_accuracy",
    "seconds",
)
"""The columns of results.csv."""

# Folder, and what changes with its record, to its row of results.csv.
Rows = dict[tuple[pathlib.Path, object], Mapping[str, Any]]

_RECORD = "record.json"  # the last file of a trained network's
_RECORDS = "replicate_*/level_*/*/record.json"
_DIVERGED = "diverged.json"  # in place of a record


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of one trained network.

    Attributes:
        replicate: Which replicate it belongs to.
        level: Its level.
        variant: `"ticket"` or the control's name.
        row: Its row of results.csv.
        curve: Column to values over its evaluations.
        digests: SHA-256 of what it started from and of what it made.
        per_example: `"validation"`, `"test"` to the deciding metric of each
            example at early stop, bool or float32 `[examples]`.
    """

    replicate: int
    level: int
    variant: str
    row: Mapping[str, Any]
    curve: Mapping[str, list[float]]
    digests: Mapping[str, str]
    per_example: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class DivergedNetwork:
    """What is known of one network whose training diverged.

    Attributes:
        replicate: Which replicate it belongs to.
        level: Its level.
        variant: `"ticket"` or the control's name.
        outcome: When its loss became nan or infinite.
    """

    replicate: int
    level: int
    variant: str
    outcome: Diverged

    @property
    def step(self) -> int:
        """The first step at which the loss was seen not to be finite."""
        return self.outcome.last


class RunDirectory:
    """A directory that holds a run, new or begun earlier.

    Args:
        path: The directory; made if it is not there. Or an address in a
            bucket, `gs://bucket/folder`.
        fingerprint: What determines the results. A directory that was begun
            with another identity is refused.
        metadata: What else is worth knowing: the preset's name, versions.
        reusable_runs: Runs whose networks are trained in the same way: what
            they keep is taken over where this run asks for the same.
        leases: Who trains what, of this run and its siblings. None: of this
            run, in a folder of its own.
        replicates: How many replicates the run is planned for, and judged at:
            a number, or two such as `"5:8"`.

    Attributes:
        path: The directory; of one in a bucket, what this process has of it.
        address: The directory, or its address in a bucket.
        config: What its config.json holds.

    Raises:
        ValueError: The directory holds another run or other files, or cannot
            be written. It is left as it was.
        BucketError: The bucket is not there, not permitted, or out of reach.
            Every method may raise it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fingerprint: Mapping[str, Any],
        metadata: Mapping[str, Any],
        reusable_runs: "Sequence[RunDirectory]" = (),
        leases: Leases | None = None,
        replicates: int | str = 1,
    ) -> None:
        self._siblings = tuple(reusable_runs)
        self._lie_in(path)
        self.leases = leases or Leases(f"{self.address}/.leases")
        config = {
            "fingerprint": dict(fingerprint),
            "metadata": dict(metadata),
            "replicates": replicates,
        }
        # As JSON gives it back, so that old and new compare.
        config = json.loads(json.dumps(config))
        try:
            self._begin(config)
            # A killed process may have kept a network and not its row.
            self._write_results()
        except BucketError:
            raise
        except OSError as error:
            raise UserError(
                f"Cannot write to {self.address!r}: {error.strerror}. "
                "Choose another run directory."
            ) from None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunDirectory":
        """Returns the run directory that is there.

        Raises:
            ValueError: There is none.
        """
        directory = cls.__new__(cls)
        directory._lie_in(path)
        directory._siblings = ()
        file = directory._bring("config.json")
        if directory._bucket and not file.exists():
            directory._bucket.is_empty()  # Or it says that there is no bucket.
        directory.config = _read_config(file, directory.address)
        return directory

    def _lie_in(self, path: str | os.PathLike[str]) -> None:
        self._bucket = object_store.of(path)
        self.path = (
            self._bucket.local_copy() if self._bucket else pathlib.Path(path)
        )
        self.address = self._bucket.address if self._bucket else str(self.path)
        self._rows: Rows = {}

    @property
    def replicates(self) -> int | str:
        """The number of replicates that the run is planned for.

        5, or `"5:8"`, as `analysis.looks` takes it.
        """
        settings = self.config["metadata"].get("settings", {})
        return self.config.get("replicates", settings.get("replicates", 1))

    def checkpoint(self, replicate: int, step: int) -> pathlib.Path:
        """Returns the prefix of the checkpoint of θ at a step."""
        return self._replicate(replicate) / f"theta_{step}" / "checkpoint"

    def find_checkpoint(self, replicate: int, step: int) -> bool:
        """Returns whether θ of that step is kept; takes over a sibling's."""
        prefix = self.checkpoint(replicate, step)
        folder, last = prefix.parent, f"{prefix.name}.index"
        self._bring_folder(folder, last)
        for sibling in self._siblings:
            if folder.exists():
                break
            theirs = sibling.checkpoint(replicate, step).parent
            sibling._bring_folder(theirs, last)
            if theirs.exists():
                _copy_folder(theirs, folder, lambda: False)
                self._put_checkpoint(prefix, is_first=True)
        return folder.exists()

    def save_checkpoint(
        self, replicate: int, step: int, write: Callable[[pathlib.Path], None]
    ) -> None:
        """Keeps θ of a step; `write` writes the checkpoint at a prefix.

        θ0 is what it was first: others may have begun with it.
        """
        prefix = self.checkpoint(replicate, step)
        array_file.write_folder(
            prefix.parent,
            lambda beside: write(beside / prefix.name),
            replaces=lambda: step > 0,
        )
        self._put_checkpoint(prefix, is_first=step == 0)

    def _put_checkpoint(self, prefix: pathlib.Path, is_first: bool) -> None:
        if self._bucket:
            place, folder = self._bucket, prefix.parent
            put = place.put_first if is_first else place.put_folder
            put(self._name(folder), folder, f"{prefix.name}.index")

    @property
    def rewind(self) -> dict[str, Any] | None:
        """How the step was found that tickets restart from, if it was."""
        return self._json("rewind.json")

    @rewind.setter
    def rewind(self, found: dict[str, Any]) -> None:
        self._keep_json("rewind.json", found)

    def save(self, replicate: int, ticket: Ticket, run: TrainingResult) -> None:
        """Keeps a trained network, and brings results.csv up to date."""
        row = {
            "preset": self.config["metadata"].get("preset", ""),
            "replicate": replicate,
            "level": ticket.level,
            "variant": ticket.variant,
            "density": ticket.density,
            "weights_kept": ticket.masks.kept,
            **run.metrics,
        }
        record = {
            "row": row,
            "digests": {
                **started_from(ticket),
                "trained": digest(run.trained),
            },
            "curve": {
                key: [point[key] for point in run.curve]
                for key in (run.curve[-1] if run.curve else ())
            },
        }
        arrays = pack("weights", run.trained, ticket.masks)
        # At the last step both are the same.
        is_last = run.metrics.get("early_stop_step") == run.metrics["steps"]
        best = {} if is_last or run.best is None else run.best
        arrays |= pack("best", best, ticket.masks)
        arrays |= pack("slots", run.slots, ticket.masks)
        decisions = {
            s: v for s, v in run.per_example.items() if v.dtype == bool
        }
        examples = {s: len(v) for s, v in decisions.items()}
        arrays |= {f"correct/{s}": np.packbits(v) for s, v in decisions.items()}
        arrays |= {
            f"per_example/{s}": v
            for s, v in run.per_example.items()
            if s not in decisions
        }

        def write(folder: pathlib.Path) -> None:
            ticket.save(folder / "ticket")
            header = {"examples": examples}
            array_file.write(folder / "trained", "trained", header, arrays)
            _write_json(folder / _RECORD, record)

        folder = self._network_folder(replicate, ticket.level, ticket.variant)
        unfinished = self.unfinished(replicate, ticket)
        array_file.write_folder(folder, write, unfinished)
        shutil.rmtree(unfinished, ignore_errors=True)
        if self._bucket:
            self._bucket.remove(self._name(folder / _DIVERGED))
            self._bucket.put_folder(self._name(folder), folder, _RECORD)
            self._bucket.remove_folder(self._name(unfinished))
        self._write_results()

    def save_diverged(
        self, replicate: int, ticket: Ticket, outcome: Diverged
    ) -> None:
        """Keeps that a network diverged, in place of what was kept of it."""
        content = _as_json(
            {
                "replicate": replicate,
                "level": ticket.level,
                "variant": ticket.variant,
                "first_step": outcome.first,
                "last_step": outcome.last,
                # JSON has neither nan nor infinity.
                "loss": str(outcome.loss),
                "digests": started_from(ticket),
            }
        )
        folder = self._network_folder(replicate, ticket.level, ticket.variant)
        unfinished = self.unfinished(replicate, ticket)
        array_file.write_folder(
            folder,
            lambda beside: array_file.write_bytes(beside / _DIVERGED, content),
            unfinished,
        )
        shutil.rmtree(unfinished, ignore_errors=True)
        if self._bucket:
            self._bucket.remove(self._name(folder / _RECORD))
            self._bucket.write(self._name(folder / _DIVERGED), content)
            self._bucket.remove_folder(self._name(unfinished))
        self._write_results()

    def load_diverged(self, replicate: int, ticket: Ticket) -> Diverged | None:
        """Returns how the training of this very ticket diverged, if it did.

        If a sibling keeps it, it is taken over.
        """
        own = self._divergence_of(replicate, ticket)
        if own is not None:
            return own
        for sibling in self._siblings:
            theirs = sibling._divergence_of(replicate, ticket)
            if theirs is not None:
                self.save_diverged(replicate, ticket, theirs)
                return theirs
        return None

    def _divergence_of(self, replicate: int, ticket: Ticket) -> Diverged | None:
        cell = self._network_folder(replicate, ticket.level, ticket.variant)
        content = self._json(self._name(cell / _DIVERGED))
        if content is None or content["digests"] != started_from(ticket):
            return None
        return _diverged_network(content).outcome

    def diverged(self) -> list[DivergedNetwork]:
        """Returns the networks whose training diverged, in order.

        They have no record and no row of results.csv.
        """
        form = f"replicate_*/level_*/*/{_DIVERGED}"
        if self._bucket:
            files = self._bucket.files()
            names = [n for n in files if pathlib.PurePath(n).match(form)]
        else:
            names = [self._name(path) for path in self.path.glob(form)]
        contents = []
        for name in names:
            # Another process may be replacing it.
            with contextlib.suppress(FileNotFoundError):
                contents.append(self._json(name))
        found = [content for content in contents if content is not None]
        return [_diverged_network(c) for c in sorted(found, key=_order)]

    def unfinished(self, replicate: int, ticket: Ticket) -> pathlib.Path:
        """Returns the folder for what is kept while a ticket trains."""
        cell = self._network_folder(replicate, ticket.level, ticket.variant)
        return cell.with_name(f".{cell.name}.unfinished")

    def bring_unfinished(self, replicate: int, ticket: Ticket) -> None:
        """Brings what another process kept while the ticket was trained."""
        if self._bucket:
            folder = self.unfinished(replicate, ticket)
            self._bucket.bring_new(self._name(folder), folder)

    def put_unfinished(self, replicate: int, ticket: Ticket) -> None:
        """Puts where others find it what is kept while the ticket trains."""
        if self._bucket:
            folder = self.unfinished(replicate, ticket)
            self._bucket.put_new(self._name(folder), folder)

    def leased_as(self, replicate: int, ticket: Ticket) -> str:
        """Returns what a lease on the training of a ticket is called."""
        told = json.dumps(started_from(ticket)).encode()
        place = f"{replicate}-{ticket.level}-{ticket.variant}"
        return f"{place}-{hashlib.sha256(told).hexdigest()[:12]}"

    def load(self, replicate: int, ticket: Ticket) -> TrainingResult | None:
        """Returns the run that trained this very ticket, if it is kept.

        If a sibling keeps it, it is taken over. Kept is what started from the
        same masks and weights: of a level that came out differently, nothing
        that follows from it is reused.
        """
        folder = self._network_folder(replicate, ticket.level, ticket.variant)
        record = self._record_of(replicate, ticket)
        if record is None:
            record = self._taken_over(replicate, ticket)
        if record is None:
            return None
        with self.naming():
            _, arrays = array_file.read(folder / "trained", "trained")
        names = [k for k in record.row if k not in COLUMNS[:6]]
        points = zip(*record.curve.values(), strict=True)
        return TrainingResult(
            trained=unpack("weights", arrays, ticket.masks),
            slots=unpack("slots", arrays, ticket.masks),
            metrics={name: record.row[name] for name in names},
            curve=tuple(
                dict(zip(record.curve, p, strict=True)) for p in points
            ),
            per_example=record.per_example,
            best=unpack("best", arrays, ticket.masks) or None,
        )

    def _taken_over(self, replicate: int, ticket: Ticket) -> Record | None:
        """Returns a sibling's record of this very training, kept here now."""
        cell = replicate, ticket.level, ticket.variant
        for sibling in self._siblings:
            record = sibling._record_of(replicate, ticket)
            if record is not None:
                folder = self._network_folder(*cell)
                _copy_folder(
                    sibling._network_folder(*cell),
                    folder,
                    lambda: self._record_of(replicate, ticket) is None,
                )
                if self._bucket:
                    self._bucket.put_folder(self._name(folder), folder, _RECORD)
                self._write_results()
                return record
        return None

    def _record_of(self, replicate: int, ticket: Ticket) -> Record | None:
        """Returns the record of the training of this very ticket."""
        folder = self._network_folder(replicate, ticket.level, ticket.variant)
        self._bring_folder(folder, _RECORD)
        if not (folder / _RECORD).exists():
            return None
        record = self._record(folder)
        started = started_from(ticket)
        if any(record.digests.get(k) != v for k, v in started.items()):
            return None
        return record

    def ticket(
        self, replicate: int, level: int, variant: str = "ticket"
    ) -> Ticket:
        """Returns a ticket of the run, with its trained weights.

        Raises:
            FileNotFoundError: The run has no such level.
        """
        folder = self._network_folder(replicate, level, variant)
        self._bring_folder(folder, _RECORD)
        if not (folder / _RECORD).exists():
            raise MissingFileError(
                f"{self.address!r} has no {variant} of replicate "
                f"{replicate}, level {level}: results.csv lists what it has."
            )
        with self.naming():
            ticket = Ticket.load(folder / "ticket")
            _, arrays = array_file.read(folder / "trained", "trained")
        return dataclasses.replace(
            ticket,
            trained=unpack("weights", arrays, ticket.masks),
            best=unpack("best", arrays, ticket.masks) or None,
        )

    def line(self, replicate: int, level: int) -> dict[str, Any] | None:
        """Returns what lies between a ticket and its copy, if it is kept."""
        return self._json(f"replicate_{replicate}/level_{level}/line.json")

    def save_line(
        self, replicate: int, level: int, content: Mapping[str, Any]
    ) -> None:
        """Keeps what lies between a ticket and its copy."""
        name = f"replicate_{replicate}/level_{level}/line.json"
        self._keep_json(name, content)

    def masks(self, replicate: int, level: int) -> Masks:
        """Returns the masks of a ticket of the run.

        Raises:
            FileNotFoundError: The run has no such level.
        """
        folder = self._network_folder(replicate, level, "ticket")
        self._bring_folder(folder, _RECORD)
        with self.naming():
            return Ticket.load(folder / "ticket").masks

    def records(self) -> list[Record]:
        """Returns the records of all networks trained so far."""
        self._bring_cells()
        found = [self._record(folder) for folder in self._network_folders()]
        return sorted(found, key=lambda record: _order(record.row))

    def rows(self) -> list[Mapping[str, Any]]:
        """Returns the rows of results.csv, of all networks trained so far."""
        self._rows = self._read_rows()
        return sorted(self._rows.values(), key=_order)

    def _write_results(self) -> None:
        """Brings results.csv up to date with what all processes keep."""
        written = None
        # Again if another process kept something in the meantime: whoever
        # writes last has seen everything.
        while written != (rows := self._read_rows()):
            self._rows = written = rows
            text = io.StringIO()
            writer = csv.DictWriter(
                text, COLUMNS, extrasaction="ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(sorted(rows.values(), key=_order))
            self._keep("results.csv", text.getvalue().encode())

    def _read_rows(self) -> Rows:
        if self._bucket:
            return self._rows_in(self._bucket)
        rows: Rows = {}
        for folder in self._network_folders():
            record = folder / _RECORD
            # Another process may be replacing it.
            with contextlib.suppress(FileNotFoundError):
                place = folder, record.stat().st_mtime_ns
                known = self._rows.get(place)
                rows[place] = known or _read_json(record)["row"]
        return rows

    def _rows_in(self, place: Bucket) -> Rows:
        """Returns the rows of all records in a bucket, of which one is read.

        Those that are known are not asked for again.
        """
        stamps = {
            (self.path / name).parent: stamp
            for name, stamp in self._records_in(place).items()
        }

        def row(found: tuple[pathlib.Path, str]) -> Mapping[str, Any] | None:
            if found in self._rows:
                return self._rows[found]
            content = place.read(self._name(found[0] / _RECORD))
            return json.loads(content)["row"] if content else None

        rows = object_store.each(row, stamps.items())
        read = zip(stamps.items(), rows, strict=True)
        return {found: row for found, row in read if row is not None}

    def _records_in(self, place: Bucket) -> dict[str, str]:
        """Returns what tells the states of all records in a bucket apart."""
        return {
            name: stamp
            for name, stamp in place.files().items()
            if pathlib.PurePath(name).match(_RECORDS)
        }

    def _bring_cells(self) -> None:
        """Brings all trained networks, if they lie in a bucket."""
        if not self._bucket:
            return
        there = self._records_in(self._bucket)
        here = {
            self._name(folder / _RECORD): object_store.md5(
                (folder / _RECORD).read_bytes()
            )
            for folder in self._network_folders()
        }
        differ = [
            self.path / name
            for name in here.keys() | there.keys()
            if here.get(name) != there.get(name)
        ]
        object_store.each(
            lambda f: self._bring_folder(f.parent, _RECORD), differ
        )

    def _bring_folder(self, folder: pathlib.Path, last: str) -> None:
        """Makes a folder what it is in the bucket, if it lies in one."""
        if self._bucket:
            self._bucket.bring_folder(self._name(folder), folder, last)

    def _bring(self, name: str) -> pathlib.Path:
        """Returns the path of a file, brought if it lies in a bucket."""
        path = self.path / name
        if self._bucket:
            self._bucket.bring(name, path)
        return path

    def _json(self, name: str) -> dict[str, Any] | None:
        """Returns what a file holds, if it is kept."""
        path = self._bring(name)
        return _read_json(path) if path.exists() else None

    def _keep_json(self, name: str, content: Any) -> None:
        self._keep(name, _as_json(content))

    def _keep(self, name: str, content: bytes) -> None:
        array_file.write_bytes(self.path / name, content)
        if self._bucket:
            self._bucket.write(name, content)

    def _name(self, path: pathlib.Path) -> str:
        return path.relative_to(self.path).as_posix()

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Has errors name the address, and not what this process has of it."""
        try:
            yield
        except (FileNotFoundError, ValueError) as error:
            if not self._bucket:
                raise
            is_missing = isinstance(error, FileNotFoundError)
            kind = FileNotFoundError if is_missing else ValueError
            text = str(error).replace(str(self.path), self.address)
            raise kind(text) from None

    def _begin(self, config: dict[str, Any]) -> None:
        # Looked for in this order: a run begins with its config.json.
        holds_any = self._holds_any()
        file = self._bring("config.json")
        if file.exists():
            self.config = _read_config(file, self.address)
            _require_same(
                self.address, self.config["fingerprint"], config["fingerprint"]
            )
        elif holds_any:
            raise UserError(
                f"{self.address!r} is not empty and holds no run. Choose "
                "another run directory."
            )
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            self.config = config
        self.config |= {k: config[k] for k in ("metadata", "replicates")}
        self._keep_json("config.json", self.config)

    def _holds_any(self) -> bool:
        """Returns whether there is anything but a run that just begins."""
        if self._bucket:
            return not self._bucket.is_empty()
        return self.path.is_dir() and any(
            not path.name.startswith(".config.json.")
            for path in self.path.iterdir()
        )

    def _replicate(self, replicate: int) -> pathlib.Path:
        return self.path / f"replicate_{replicate}"

    def _network_folder(
        self, replicate: int, level: int, variant: str
    ) -> pathlib.Path:
        return self._replicate(replicate) / f"level_{level}" / variant

    def _network_folders(self) -> list[pathlib.Path]:
        return [
            path.parent
            for path in self.path.glob("replicate_*/level_*/*/record.json")
            # A killed process may have left a folder half written.
            if not path.parent.name.startswith(".")
        ]

    def _record(self, folder: pathlib.Path) -> Record:
        content = _read_json(folder / "record.json")
        with self.naming():
            header, arrays = array_file.read(folder / "trained", "trained")
        per_example = {
            split: np.unpackbits(
                arrays[f"correct/{split}"], count=count
            ).astype(bool)
            for split, count in header["examples"].items()
        }
        per_example |= {
            key.removeprefix("per_example/"): array
            for key, array in arrays.items()
            if key.startswith("per_example/")
        }
        row = content["row"]
        cell = row["replicate"], row["level"], row["variant"]
        return Record(
            *cell, row, content["curve"], content["digests"], per_example
        )


def write_report(
    path: str | os.PathLike[str], html: str, figures: Mapping[str, bytes]
) -> str:
    """Writes report.html, and the figures' files by name, into a folder.

    Args:
        path: The folder, or its address in a bucket.
        html: The page.
        figures: Name of a file to its content.

    Returns:
        The path of the page, or its address.
    """
    files = {f"figures/{name}": c for name, c in figures.items()}
    files["report.html"] = html.encode()  # the last one: it shows the others
    place = object_store.of(path)
    if place:
        for name, content in files.items():
            place.write(name, content)
        return f"{place.address}/report.html"
    folder = pathlib.Path(path)
    (folder / "figures").mkdir(exist_ok=True)
    for name, content in files.items():
        array_file.write_bytes(folder / name, content)
    return str(folder / "report.html")


def is_run(path: str | os.PathLike[str]) -> bool:
    """Returns whether a folder, or an address, holds a run."""
    place = object_store.of(path)
    if place:
        return place.read("config.json") is not None
    return (pathlib.Path(path) / "config.json").exists()


def runs(path: str | os.PathLike[str]) -> dict[str, RunDirectory]:
    """Returns the runs of a sweep, in a folder or at an address, by label."""
    place = object_store.of(path)
    if place:
        found = {
            label: f"{place.address}/{label}"
            for label in place.folders()
            if "=" in label
        }
    else:
        folders = sorted(pathlib.Path(path).glob("*=*"))
        found = {folder.name: str(folder) for folder in folders}
    return {n: RunDirectory.open(p) for n, p in found.items() if is_run(p)}


def _order(row: Mapping[str, Any]) -> tuple[int, int, bool, str]:
    """Sorts by replicate and level, tickets before controls."""
    variant = row["variant"]
    return row["replicate"], row["level"], variant != "ticket", variant


def _diverged_network(content: Mapping[str, Any]) -> DivergedNetwork:
    first, last = content["first_step"], content["last_step"]
    outcome = Diverged(first, last, float(content["loss"]))
    place = content["replicate"], content["level"], content["variant"]
    return DivergedNetwork(*place, outcome)


def started_from(ticket: Ticket) -> dict[str, str]:
    """Returns what tells the training of one ticket from that of another."""
    told = {"masks": ticket.masks.digest, "start": ticket.start.digest}
    if ticket.data_seed is not None:
        told["data_seed"] = str(ticket.data_seed)
    return told


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _read_config(file: pathlib.Path, address: str) -> dict[str, Any]:
    try:
        return _read_json(file)
    except (OSError, ValueError):
        raise UserError(
            f"{address!r} holds no run: it has no readable config.json."
        ) from None


def _require_same(address: str, there: Any, here: Any, name: str = "") -> None:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            inner = f"{name}.{key}" if name else key
            _require_same(address, there.get(key), here.get(key), inner)
    elif there != here:
        raise UserError(
            f"{address!r} holds another configuration: {name} is "
            f"{_short(there)} there and {_short(here)} here. Choose another "
            "run directory, or the same setting."
        )


def _short(value: Any) -> str:
    text = "the default" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _write_json(path: pathlib.Path, content: Any) -> None:
    array_file.write_bytes(path, _as_json(content))


def _as_json(content: Any) -> bytes:
    return f"{json.dumps(content, indent=2, sort_keys=True)}\n".encode()


def _copy_folder(
    source: pathlib.Path, folder: pathlib.Path, replaces: Callable[[], bool]
) -> None:
    def write(beside: pathlib.Path) -> None:
        shutil.copytree(source, beside, dirs_exist_ok=True)

    array_file.write_folder(folder, write, replaces=replaces)
