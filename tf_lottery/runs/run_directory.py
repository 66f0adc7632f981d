"""Run directories: the trained networks of a run, on a disk or in a bucket."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tf_lottery.core.errors import MissingFileError, UserError
from tf_lottery.core.masks import Masks
from tf_lottery.core.storage import array_file, object_store
from tf_lottery.core.storage.leases import Leases
from tf_lottery.core.storage.object_store import BucketError
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.lottery.ticket_file import unpack
from tf_lottery.runs import layout, network_files
from tf_lottery.runs.record import (
    DivergedNetwork,
    Record,
    diverged_json,
    sort_key,
    start_fingerprint,
)
from tf_lottery.runs.results import Results, Row
from tf_lottery.runs.run_files import RunFiles, as_json
from tf_lottery.training import Diverged, TrainingResult

_Loaded = TypeVar("_Loaded")


class RunDirectory:
    """A directory that holds the trained networks of a run.

    `RunDirectory.open` opens a run to read it, `RunDirectory.open_or_create`
    to train it. Any number of processes can work on one directory.

    Args:
        files: The files of the directory.
        config: The content of config.json.
        reusable_runs: Runs whose networks are trained in the same way. A
            network that this run needs and one of these has is copied.
        leases: The leases on the training of networks. None: those of this
            run alone.

    Attributes:
        path: The directory; of one in a bucket, this process's local copy.
        address: The directory, or its address in a bucket.
        config: The content of config.json.
        leases: The leases on the training of networks.

    Raises:
        BucketError: The bucket does not exist, is not permitted, or does not
            answer. Every method may raise it.
    """

    def __init__(
        self,
        files: RunFiles,
        config: Mapping[str, Any],
        reusable_runs: "Sequence[RunDirectory]" = (),
        leases: Leases | None = None,
    ) -> None:
        self.path, self.address = files.path, files.address
        self.config = config
        self.leases = leases or Leases(f"{self.address}/{layout.LEASES}")
        self._files, self._results = files, Results(files)
        self._reusable_runs = tuple(reusable_runs)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunDirectory":
        """Returns an existing run directory.

        Args:
            path: The directory, or its address in a bucket,
                `gs://bucket/folder`.

        Raises:
            ValueError: It holds no run.
        """
        files = RunFiles(path)
        config = _read_config(files)
        if config is None:
            files.is_empty()  # Raises if there is no such bucket.
            raise _no_run(files)
        return cls(files, config)

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        fingerprint: Mapping[str, Any],
        metadata: Mapping[str, Any],
        reusable_runs: "Sequence[RunDirectory]" = (),
        leases: Leases | None = None,
        replicates: int | str = 1,
    ) -> "RunDirectory":
        """Returns a run directory, after creating it if it does not exist.

        Args:
            path: The directory, or its address in a bucket,
                `gs://bucket/folder`.
            fingerprint: Everything that determines the results, as JSON
                holds it.
            metadata: Further facts about the run, as JSON holds them: the
                preset's name, versions.
            reusable_runs: Runs whose networks are trained in the same way. A
                network that this run needs and one of these has is copied.
            leases: The leases on the training of networks. None: those of
                this run alone.
            replicates: The number of replicates that the run is planned for:
                a number >= 1, or two such as `"5:8"`.

        Raises:
            ValueError: The directory holds a run with another fingerprint,
                or other files, or cannot be written. It is left as it was.
        """
        files = RunFiles(path)
        new = {
            "fingerprint": dict(fingerprint),
            "metadata": dict(metadata),
            "replicates": replicates,
        }
        # As it is read back, so that old and new can be compared.
        new = json.loads(json.dumps(new))
        try:
            config = _write_config(files, new)
            directory = cls(files, config, reusable_runs, leases)
            # A killed process may have saved a network and not its row.
            directory._results.write()
        except BucketError:
            raise
        except OSError as error:
            raise UserError(
                f"Cannot write to {files.address!r}: {error.strerror}. "
                "Choose another run directory."
            ) from None
        return directory

    @property
    def replicates(self) -> int | str:
        """The number of replicates that the run is planned for.

        It is a number such as 5, or two such as `"5:8"`: three more follow if
        the first five are not decisive.
        """
        settings = self.config["metadata"].get("settings", {})
        return self.config.get("replicates", settings.get("replicates", 1))

    def has_checkpoint(self, replicate: int, step: int) -> bool:
        """Returns whether θ of a step exists, here or in a reusable run.

        Args:
            replicate: The replicate, >= 0.
            step: The step, >= 0.
        """
        name = layout.checkpoint_folder(replicate, step)
        marker = layout.CHECKPOINT_INDEX
        folder = self._files.folder(name, marker)
        for run in self._reusable_runs:
            if folder.exists():
                break
            source = run._files.folder(name, marker)
            if source.exists():
                self._files.create_folder(name, _copy_of(source), marker)
        return folder.exists()

    def save_checkpoint(
        self, replicate: int, step: int, write: Callable[[pathlib.Path], None]
    ) -> None:
        """Saves θ of a step.

        A θ0 that exists is kept: other processes may have started from it.

        Args:
            replicate: The replicate, >= 0.
            step: The step, >= 0.
            write: Writes a TensorFlow checkpoint under the path prefix that
                it is called with.
        """
        save = self._files.replace_folder if step else self._files.create_folder
        save(
            layout.checkpoint_folder(replicate, step),
            lambda folder: write(folder / layout.CHECKPOINT),
            layout.CHECKPOINT_INDEX,
        )

    def load_checkpoint(
        self, replicate: int, step: int, read: Callable[[pathlib.Path], _Loaded]
    ) -> _Loaded:
        """Returns what `read` returns for the checkpoint of θ of a step.

        Args:
            replicate: The replicate, >= 0.
            step: A step, >= 0, for which `has_checkpoint` was true or
                `save_checkpoint` was called.
            read: Reads a TensorFlow checkpoint from a path prefix.
        """
        folder = self.path / layout.checkpoint_folder(replicate, step)
        with self._files.errors_name_address():
            return read(folder / layout.CHECKPOINT)

    def load_rewind(self) -> dict[str, Any] | None:
        """Returns how the step to rewind to was found, if it was."""
        return self._files.read_json(layout.REWIND)

    def save_rewind(self, content: Mapping[str, Any]) -> None:
        """Saves how the step to rewind to was found.

        Args:
            content: The content of rewind.json: `"step"` and how it was found.
        """
        self._files.write(layout.REWIND, as_json(content))

    def save(
        self, replicate: int, ticket: Ticket, result: TrainingResult
    ) -> None:
        """Saves a trained network and updates results.csv.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket that was trained.
            result: The result of its training.
        """
        row = {
            "preset": self.config["metadata"].get("preset", ""),
            "replicate": replicate,
            "level": ticket.level,
            "variant": ticket.variant,
            "density": ticket.density,
            "weights_kept": ticket.masks.kept,
            **result.metrics,
        }
        self._replace_network(
            replicate,
            ticket,
            lambda folder: network_files.write(folder, ticket, result, row),
            layout.RECORD,
            old_marker=layout.DIVERGED,
        )

    def save_diverged(
        self, replicate: int, ticket: Ticket, outcome: Diverged
    ) -> None:
        """Saves that a network diverged, in place of an earlier result.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket that was trained.
            outcome: How its training diverged.
        """
        content = as_json(diverged_json(replicate, ticket, outcome))
        self._replace_network(
            replicate,
            ticket,
            lambda folder: array_file.write_bytes(
                folder / layout.DIVERGED, content
            ),
            layout.DIVERGED,
            old_marker=layout.RECORD,
        )

    def _replace_network(
        self,
        replicate: int,
        ticket: Ticket,
        write: Callable[[pathlib.Path], None],
        marker: str,
        old_marker: str,
    ) -> None:
        """Replaces a network's folder; removes what is left of its training."""
        network = replicate, ticket.level, ticket.variant
        name = layout.network_folder(*network)
        unfinished = layout.unfinished_folder(*network)
        self._files.replace_folder(
            name, write, marker, scratch=unfinished, old_marker=old_marker
        )
        self._files.remove_folder(unfinished)
        self._results.write()

    def load_diverged(self, replicate: int, ticket: Ticket) -> Diverged | None:
        """Returns how the training of a ticket diverged, if it did.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket, with the very masks and starting state.
        """
        outcome = self._load_diverged(replicate, ticket)
        if outcome is not None:
            return outcome
        for run in self._reusable_runs:
            outcome = run._load_diverged(replicate, ticket)
            if outcome is not None:
                self.save_diverged(replicate, ticket, outcome)
                return outcome
        return None

    def _load_diverged(self, replicate: int, ticket: Ticket) -> Diverged | None:
        name = layout.network_folder(replicate, ticket.level, ticket.variant)
        content = self._files.read_json(f"{name}/{layout.DIVERGED}")
        if content is None or content["digests"] != start_fingerprint(ticket):
            return None
        return DivergedNetwork.from_json(content).outcome

    def diverged(self) -> list[DivergedNetwork]:
        """Returns the networks whose training diverged, in order.

        They have no record and no row in results.csv.
        """
        contents = self._files.read_all(
            self._files.versions(layout.DIVERGED_NETWORKS)
        )
        networks = [json.loads(content) for content in contents if content]
        return [
            DivergedNetwork.from_json(content)
            for content in sorted(networks, key=sort_key)
        ]

    def unfinished(self, replicate: int, ticket: Ticket) -> pathlib.Path:
        """Returns the folder of a ticket's checkpoints during training.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket.
        """
        return self.path / _unfinished(replicate, ticket)

    def download_unfinished(self, replicate: int, ticket: Ticket) -> None:
        """Downloads the checkpoints that another process left of a training.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket.
        """
        self._files.download_new(_unfinished(replicate, ticket))

    def upload_unfinished(self, replicate: int, ticket: Ticket) -> None:
        """Uploads the checkpoints of a training for other processes.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket.
        """
        self._files.upload_new(_unfinished(replicate, ticket))

    def lease_name(self, replicate: int, ticket: Ticket) -> str:
        """Returns the name of the lease on a ticket's training.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket.
        """
        fingerprint = json.dumps(start_fingerprint(ticket)).encode()
        network = f"{replicate}-{ticket.level}-{ticket.variant}"
        return f"{network}-{hashlib.sha256(fingerprint).hexdigest()[:12]}"

    def load(self, replicate: int, ticket: Ticket) -> TrainingResult | None:
        """Returns the result of a ticket's training, if there is one.

        A result counts only if its training started from the same masks and
        the same state. One of a reusable run is copied into this run.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket.
        """
        record = self._matching_record(replicate, ticket)
        if record is None:
            record = self._copy_from_reusable(replicate, ticket)
        if record is None:
            return None
        name = layout.network_folder(replicate, ticket.level, ticket.variant)
        with self._files.errors_name_address():
            return network_files.read_result(self.path / name, ticket, record)

    def _matching_record(self, replicate: int, ticket: Ticket) -> Record | None:
        """Returns the record of this very training, if there is one."""
        name = layout.network_folder(replicate, ticket.level, ticket.variant)
        folder = self._files.folder(name, layout.RECORD)
        if not (folder / layout.RECORD).exists():
            return None
        record = self._record(folder)
        fingerprint = start_fingerprint(ticket)
        if any(record.digests.get(k) != v for k, v in fingerprint.items()):
            return None
        return record

    def _copy_from_reusable(
        self, replicate: int, ticket: Ticket
    ) -> Record | None:
        """Copies the network from a reusable run; returns its record."""
        name = layout.network_folder(replicate, ticket.level, ticket.variant)
        for run in self._reusable_runs:
            record = run._matching_record(replicate, ticket)
            if record is not None:
                self._files.replace_folder(
                    name,
                    _copy_of(run.path / name),
                    layout.RECORD,
                    lambda: self._matching_record(replicate, ticket) is None,
                )
                self._results.write()
                return record
        return None

    def ticket(
        self, replicate: int, level: int, variant: str = "ticket"
    ) -> Ticket:
        """Returns a ticket of the run, with its trained weights.

        Args:
            replicate: The replicate, >= 0.
            level: The level, >= 0.
            variant: `"ticket"` or the control's name.

        Raises:
            FileNotFoundError: The run has no such network.
        """
        name = layout.network_folder(replicate, level, variant)
        folder = self._files.folder(name, layout.RECORD)
        if not (folder / layout.RECORD).exists():
            raise MissingFileError(
                f"{self.address!r} has no {variant} of replicate "
                f"{replicate}, level {level}: results.csv lists what it has."
            )
        with self._files.errors_name_address():
            ticket = Ticket.load(folder / layout.TICKET)
            _, arrays = array_file.read(folder / layout.TRAINED, "trained")
        return dataclasses.replace(
            ticket,
            trained=unpack("weights", arrays, ticket.masks),
            best=unpack("best", arrays, ticket.masks) or None,
        )

    def masks(self, replicate: int, level: int) -> Masks:
        """Returns the masks of a ticket of the run.

        Args:
            replicate: The replicate, >= 0.
            level: The level, >= 0.

        Raises:
            FileNotFoundError: The run has no such ticket.
        """
        name = layout.network_folder(replicate, level, "ticket")
        folder = self._files.folder(name, layout.RECORD)
        with self._files.errors_name_address():
            return Ticket.load(folder / layout.TICKET).masks

    def line(self, replicate: int, level: int) -> dict[str, Any] | None:
        """Returns the linear path between a ticket and its copy, if saved.

        Args:
            replicate: The replicate, >= 0.
            level: The level, >= 0.
        """
        return self._files.read_json(layout.linear_path(replicate, level))

    def save_line(
        self, replicate: int, level: int, content: Mapping[str, Any]
    ) -> None:
        """Saves the linear path between a ticket and its copy.

        Args:
            replicate: The replicate, >= 0.
            level: The level, >= 0.
            content: The content of line.json.
        """
        name = layout.linear_path(replicate, level)
        self._files.write(name, as_json(content))

    def records(self) -> list[Record]:
        """Returns the records of all networks trained so far, in order."""
        folders = self._files.folders(layout.RECORDS)
        records = [self._record(folder) for folder in folders]
        return sorted(records, key=lambda record: sort_key(record.row))

    def rows(self) -> list[Row]:
        """Returns the rows of results.csv, of all networks trained so far."""
        return self._results.rows()

    def _record(self, folder: pathlib.Path) -> Record:
        with self._files.errors_name_address():
            return network_files.read_record(folder)


def write_report(
    path: str | os.PathLike[str], html: str, figures: Mapping[str, bytes]
) -> str:
    """Writes report.html and the figures that it shows into a folder.

    Args:
        path: The folder, or its address in a bucket.
        html: The page.
        figures: Name of a file to its content.

    Returns:
        The path of the page, or its address.
    """
    files = RunFiles(path)
    if object_store.of(path) is None:
        (files.path / layout.FIGURES).mkdir(exist_ok=True)
    for name, content in figures.items():
        files.write(f"{layout.FIGURES}/{name}", content)
    files.write(layout.REPORT, html.encode())
    return f"{files.address}/{layout.REPORT}"


def is_run(path: str | os.PathLike[str]) -> bool:
    """Returns whether a folder holds a run.

    Args:
        path: The folder, or its address in a bucket.
    """
    return RunFiles(path).read(layout.CONFIG) is not None


def find_runs(path: str | os.PathLike[str]) -> dict[str, RunDirectory]:
    """Returns the runs of a sweep by label, such as `"rate=0.1"`.

    Args:
        path: The folder of the sweep, or its address in a bucket.
    """
    bucket = object_store.of(path)
    if bucket:
        address = bucket.address
        labels = [label for label in bucket.folders() if "=" in label]
    else:
        address = str(path)
        labels = sorted(p.name for p in pathlib.Path(path).glob("*=*"))
    return {
        label: RunDirectory.open(f"{address}/{label}")
        for label in labels
        if is_run(f"{address}/{label}")
    }


def _unfinished(replicate: int, ticket: Ticket) -> str:
    return layout.unfinished_folder(replicate, ticket.level, ticket.variant)


def _copy_of(source: pathlib.Path) -> Callable[[pathlib.Path], None]:
    """Returns a function that copies a folder's files into another folder."""

    def write(folder: pathlib.Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)

    return write


def _write_config(files: RunFiles, new: dict[str, Any]) -> dict[str, Any]:
    """Writes config.json, unless that of another run exists; returns it."""
    # Before config.json is read: a run that just begins has nothing else.
    is_empty = files.is_empty()
    config = _read_config(files)
    if config is not None:
        _require_same(files.address, config["fingerprint"], new["fingerprint"])
    elif not is_empty:
        raise UserError(
            f"{files.address!r} is not empty and holds no run. Choose "
            "another run directory."
        )
    else:
        files.path.mkdir(parents=True, exist_ok=True)
        config = new
    config |= {key: new[key] for key in ("metadata", "replicates")}
    files.write(layout.CONFIG, as_json(config))
    return config


def _read_config(files: RunFiles) -> dict[str, Any] | None:
    try:
        return files.read_json(layout.CONFIG)
    except BucketError:
        raise
    except (OSError, ValueError):
        raise _no_run(files) from None


def _no_run(files: RunFiles) -> UserError:
    return UserError(
        f"{files.address!r} holds no run: it has no readable config.json."
    )


def _require_same(address: str, old: Any, new: Any, name: str = "") -> None:
    """Raises if two fingerprints differ; the message names the setting."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{name}.{key}" if name else key
            _require_same(address, old.get(key), new.get(key), inner)
    elif old != new:
        raise UserError(
            f"{address!r} holds another configuration: {name} is "
            f"{_short(old)} there and {_short(new)} here. Choose another "
            "run directory, or the same setting."
        )


def _short(value: Any) -> str:
    text = "the default" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
