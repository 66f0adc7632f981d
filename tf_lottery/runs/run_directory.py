"""Run directories: the trained networks of a run, on a disk or in a bucket."""

import contextlib
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tensorflow as tf

from tf_lottery.core.errors import MissingFileError, UserError, one_line
from tf_lottery.core.masks import Masks
from tf_lottery.core.storage import atomic, commit, sealed_json
from tf_lottery.core.storage.folder import Folder, StorageError, open_folder
from tf_lottery.core.storage.lock import Lock
from tf_lottery.core.storage.sealed_json import DamagedFileError
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs import foreign_files, layout, locks, network_files
from tf_lottery.runs.in_progress import InProgressFolder
from tf_lottery.runs.record import (
    DivergedNetwork,
    Record,
    diverged_json,
    network_json,
    sort_key,
    start_fingerprint,
)
from tf_lottery.runs.results import Results, Row
from tf_lottery.training import Diverged, TrainingResult

_Loaded = TypeVar("_Loaded")
_log = logging.getLogger(__name__)


class RunDirectory:
    """A directory that holds the trained networks of a run.

    `RunDirectory.open` opens a run to read it, `RunDirectory.open_or_create`
    to train it, and `owned` makes this process the only one that does. Any
    number of processes can read.

    Args:
        folder: The directory.
        config: The content of config.json.
        reusable_runs: Runs whose networks are trained in the same way. A
            network that this run needs and one of these has is copied.

    Attributes:
        address: The directory, or its address in an object store.
        config: The content of config.json.

    Raises:
        StorageError: The storage is missing, forbidden, full, or does not
            answer. Every method may raise it.
    """

    def __init__(
        self,
        folder: Folder,
        config: Mapping[str, Any],
        reusable_runs: "Sequence[RunDirectory]" = (),
    ) -> None:
        self.address = folder.address
        self.config = config
        self._folder = folder
        self._results = Results(folder, self._network_record)
        self._reusable_runs = tuple(reusable_runs)
        self._in_progress = InProgressFolder(folder)
        self._lock: Lock | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunDirectory":
        """Returns an existing run directory.

        Args:
            path: The directory, or its address in an object store, such as
                `gs://bucket/folder`.

        Raises:
            UserError: It holds no run, or its config.json is damaged.
        """
        folder = open_folder(path)
        foreign_files.require_no_links(path)
        config = _read_config(folder)
        if config is None:
            folder.folders()  # Raises if there is no such bucket.
            raise UserError(
                f"{folder.address!r} holds no run: it has no config.json."
            )
        return cls(folder, config)

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        fingerprint: Mapping[str, Any],
        metadata: Mapping[str, Any],
        reusable_runs: "Sequence[RunDirectory]" = (),
        replicates: int | str = 1,
    ) -> "RunDirectory":
        """Returns a run directory, after creating it if it does not exist.

        Args:
            path: The directory, or its address in an object store, such as
                `gs://bucket/folder`.
            fingerprint: Everything that determines the results, as JSON
                holds it.
            metadata: Further facts about the run, as JSON holds them: the
                preset's name, versions.
            reusable_runs: Runs whose networks are trained in the same way. A
                network that this run needs and one of these has is copied.
            replicates: The number of replicates that the run is planned for:
                a number >= 1, or two such as `"5:8"`.

        Raises:
            UserError: The directory holds a run with another fingerprint,
                or other files, or cannot be written. It is left as it was.
        """
        folder = open_folder(path)
        new = {
            "fingerprint": dict(fingerprint),
            "metadata": dict(metadata),
            "replicates": replicates,
        }
        # As it is read back, so that old and new can be compared.
        new = json.loads(json.dumps(new))
        _create_config(folder, new)
        return cls(folder, new, reusable_runs)

    @contextlib.contextmanager
    def owned(
        self,
        shard: tuple[int, int] = (0, 1),
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> Iterator[None]:
        """Makes this process the only one that trains the run, or a shard.

        What killed processes left is removed, and results.csv is written.

        Args:
            shard: Number of the shard of replicates, and of all shards.
            on_wait: Called with a sentence before a wait for an owner on
                another machine, who may be dead.

        Raises:
            LockedError: Another live process trains it.
        """
        with locks.shard_lock(self._folder, shard, on_wait) as self._lock:
            if _read_config(self._folder) != self.config:
                self._folder.write(layout.CONFIG, sealed_json.seal(self.config))
            self._remove_leftovers(*shard)
            # A killed process may have saved a network and not its row.
            self._results.scan(skip_damaged=True)
            self._results.write()
            yield
        self._lock = None

    def _remove_leftovers(self, index: int, count: int) -> None:
        """Removes what killed processes left of a shard's replicates."""
        files = self._folder.files()
        for name in files:
            path = pathlib.PurePosixPath(name)
            replicate = layout.replicate_of(path)
            is_own = (
                count == 1 if replicate is None else replicate % count == index
            )
            trained = layout.network_of_unfinished(path.parent)
            is_over = trained and f"{trained}/{layout.RECORD}" in files
            if is_own and (is_over or atomic.is_temporary(path)):
                self._folder.remove(name)

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.address.rstrip("/").rpartition("/")[2]

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
        if self._undamaged(lambda: commit.read(self._folder, name)):
            return True
        return any(run._copy(name, self._folder) for run in self._reusable_runs)

    def save_checkpoint(
        self, replicate: int, step: int, write: Callable[[pathlib.Path], None]
    ) -> None:
        """Saves θ of a step.

        Args:
            replicate: The replicate, >= 0.
            step: The step, >= 0.
            write: Writes a TensorFlow checkpoint under the path prefix that
                it is called with.
        """
        name = layout.checkpoint_folder(replicate, step)
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            with _tensorflow_errors(folder):
                write(folder / layout.CHECKPOINT)
            files = {p.name: p.read_bytes() for p in folder.iterdir()}
        self._commit(name, files, {"replicate": replicate, "step": step})

    def load_checkpoint(
        self, replicate: int, step: int, read: Callable[[pathlib.Path], _Loaded]
    ) -> _Loaded:
        """Returns what `read` returns for the checkpoint of θ of a step.

        Args:
            replicate: The replicate, >= 0.
            step: A step, >= 0, for which `has_checkpoint` was true or
                `save_checkpoint` was called.
            read: Reads a TensorFlow checkpoint from a path prefix.

        Raises:
            DamagedFileError: It is not as it was written.
            MissingFileError: It was removed.
        """
        name = layout.checkpoint_folder(replicate, step)
        with commit.checkout(self._folder, name) as found:
            if found is None:
                raise MissingFileError(
                    f"{self.address}/{name} has gone. The same command trains "
                    "again what is lost."
                )
            record, folder = found
            self._require(name, record, {"replicate": replicate, "step": step})
            return read(folder / layout.CHECKPOINT)

    def load_rewind(self) -> dict[str, Any] | None:
        """Returns how the step to rewind to was found, if it was."""
        return self._undamaged(
            lambda: _read(self._folder, layout.REWIND, foreign_files.rewind)
        )

    def save_rewind(self, content: Mapping[str, Any]) -> None:
        """Saves how the step to rewind to was found.

        Args:
            content: The content of rewind.json: `"step"` and how it was found.
        """
        self._folder.write(layout.REWIND, sealed_json.seal(content))

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
            **network_json(replicate, ticket),
            "density": ticket.density,
            "weights_kept": ticket.masks.kept,
            **result.metrics,
        }
        self._save_network(
            replicate, ticket, *network_files.contents(ticket, result, row)
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
        self._save_network(
            replicate, ticket, {}, diverged_json(ticket, outcome)
        )

    def _save_network(
        self,
        replicate: int,
        ticket: Ticket,
        files: Mapping[str, bytes],
        content: Mapping[str, Any],
    ) -> None:
        """Replaces a network's folder; removes what is left of its training."""
        name = _folder_of(replicate, ticket)
        content = {"network": network_json(replicate, ticket), **content}
        self._commit(name, files, content)
        self._in_progress.remove(_unfinished(replicate, ticket))
        self._results.update(name, content)
        self._results.write()

    def _commit(
        self, name: str, files: Mapping[str, bytes], content: Mapping[str, Any]
    ) -> None:
        if self._lock is not None:
            self._lock.check()
        commit.commit(self._folder, name, files, content)

    def load_diverged(self, replicate: int, ticket: Ticket) -> Diverged | None:
        """Returns how the training of a ticket diverged, if it did.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket, with the very masks and starting state.
        """
        record = self._matching_record(replicate, ticket)
        if record is None or "diverged" not in record:
            return None
        return DivergedNetwork.from_record(record).outcome

    def diverged(self) -> list[DivergedNetwork]:
        """Returns the networks whose training diverged, in order.

        They have no row in results.csv.
        """
        return [
            DivergedNetwork.from_record(record)
            for record in self._records()
            if "diverged" in record
        ]

    def unfinished(self, replicate: int, ticket: Ticket) -> pathlib.Path:
        """Returns the folder of a ticket's checkpoints during training.

        It lies on a disk. For a run in an object store, it holds what an
        earlier process uploaded there.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket.
        """
        return self._in_progress.local(_unfinished(replicate, ticket))

    def upload_unfinished(
        self, replicate: int, ticket: Ticket, at_once: bool = False
    ) -> None:
        """Uploads a ticket's checkpoints, if the run is in an object store.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket.
            at_once: Whether to upload them even if others just were.
        """
        self._in_progress.upload(_unfinished(replicate, ticket), at_once)

    def load(self, replicate: int, ticket: Ticket) -> TrainingResult | None:
        """Returns the result of a ticket's training, if there is one.

        A result counts only if its training started from the same masks and
        the same state. One of a reusable run is copied into this run. One that
        is damaged does not count; a warning names it.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket.
        """
        record = self._matching_record(replicate, ticket)
        if record is None or "diverged" in record:
            return None
        name = _folder_of(replicate, ticket)
        return self._undamaged(lambda: self._result(name, ticket))

    def _result(self, name: str, ticket: Ticket) -> TrainingResult | None:
        with commit.checkout(self._folder, name) as found:
            if found is None:
                return None
            record, folder = found
            return network_files.read_result(folder, ticket, record)

    def _matching_record(
        self, replicate: int, ticket: Ticket
    ) -> dict[str, Any] | None:
        """Returns the record of this very training, copied here if need be."""
        name = _folder_of(replicate, ticket)
        fingerprint = start_fingerprint(ticket)

        def matching(run: RunDirectory) -> dict[str, Any] | None:
            record = run._undamaged(lambda: run._network_record(name))
            if record is None:
                return None
            known = record["digests"]
            same = all(known.get(k) == v for k, v in fingerprint.items())
            return record if same else None

        record = matching(self)
        for run in self._reusable_runs if record is None else ():
            record = matching(run)
            if record is not None and run._copy(name, self._folder):
                self._results.update(name, record)
                self._results.write()
                return record
        return record

    def _copy(self, name: str, target: Folder) -> bool:
        """Copies a folder to another run; returns whether there was one."""
        found = self._undamaged(lambda: commit.read(self._folder, name))
        if found is None:
            return False
        record, files = found
        del record["files"]
        commit.commit(target, name, files, record)
        return True

    def _undamaged(self, read: Callable[[], _Loaded]) -> _Loaded | None:
        """Returns what was read; None, after a warning, if it is damaged."""
        try:
            return read()
        except DamagedFileError as error:
            _log.warning("Trained again: %s", error)
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
            MissingFileError: The run has no such network.
            DamagedFileError: A file is not as it was written.
        """
        name = layout.network_folder(replicate, level, variant)
        with self._checkout(name) as folder:
            return network_files.read_ticket(folder)

    def masks(self, replicate: int, level: int) -> Masks:
        """Returns the masks of a ticket of the run.

        Args:
            replicate: The replicate, >= 0.
            level: The level, >= 0.

        Raises:
            MissingFileError: The run has no such ticket.
            DamagedFileError: A file is not as it was written.
        """
        name = layout.network_folder(replicate, level, "ticket")
        with self._checkout(name, [layout.TICKET]) as folder:
            return Ticket.load(folder / layout.TICKET).masks

    @contextlib.contextmanager
    def _checkout(
        self, name: str, files: Sequence[str] | None = None
    ) -> Iterator[pathlib.Path]:
        """Yields a folder with the files of a network that was trained."""
        record = self._network_record(name)
        with commit.checkout(self._folder, name, files) as found:
            if found is None or record is None or "diverged" in record:
                network = layout.parse(name)
                raise MissingFileError(
                    f"{self.address!r} has no {network['variant']} of "
                    f"replicate {network['replicate']}, level "
                    f"{network['level']}: results.csv lists what it has."
                )
            yield found[1]

    def line(self, replicate: int, level: int) -> dict[str, Any] | None:
        """Returns the linear path between a ticket and its copy, if saved.

        Args:
            replicate: The replicate, >= 0.
            level: The level, >= 0.

        Raises:
            DamagedFileError: It is not as it was written.
        """
        name = layout.linear_path(replicate, level)
        return _read(self._folder, name, foreign_files.line)

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
        self._folder.write(name, sealed_json.seal(content))

    def records(self) -> list[Record]:
        """Returns the records of all networks trained so far, in order.

        Raises:
            DamagedFileError: A file is not as it was written.
        """
        return [
            self._trained_record(record)
            for record in self._records()
            if "diverged" not in record
        ]

    def _trained_record(self, record: Mapping[str, Any]) -> Record:
        name = layout.network_folder(**record["network"])
        with self._checkout(name, [layout.TRAINED]) as folder:
            return network_files.read_record(folder, record)

    def _records(self) -> list[dict[str, Any]]:
        """Returns the contents of all networks' records, in order."""
        names = layout.networks(self._folder.files())
        records = [self._network_record(name) for name in names]
        return sorted(
            (record for record in records if record),
            key=lambda record: sort_key(record["network"]),
        )

    def _network_record(self, name: str) -> dict[str, Any] | None:
        record = commit.read_record(self._folder, name)
        if record is None:
            return None
        address = f"{self.address}/{name}/{layout.RECORD}"
        foreign_files.checked(record, foreign_files.record, address)
        self._require(name, record["network"], layout.parse(name))
        return record

    def _require(
        self, name: str, record: Mapping[str, Any], of: Mapping[str, Any]
    ) -> None:
        """Raises if the record in a folder is that of another folder."""
        if any(record.get(key) != value for key, value in of.items()):
            raise sealed_json.damaged(
                f"{self.address}/{name}/{layout.RECORD}",
                "it was copied from another folder",
            )

    def rows(self) -> list[Row]:
        """Returns the rows of results.csv, of all networks trained so far."""
        self._results.scan()
        return self._results.rows()

    def write_results(self) -> None:
        """Writes results.csv, with the networks of all shards."""
        self._results.scan()
        self._results.write()


def write_report(
    path: str | os.PathLike[str], html: str, figures: Mapping[str, bytes]
) -> str:
    """Writes report.html and the figures that it shows into a folder.

    Args:
        path: The folder, or its address in an object store.
        html: The page.
        figures: Name of a file to its content.

    Returns:
        The path of the page, or its address.
    """
    folder = open_folder(path)
    foreign_files.require_no_links(path)
    for name, content in figures.items():
        folder.write(f"{layout.FIGURES}/{name}", content)
    folder.write(layout.REPORT, html.encode())
    return f"{folder.address}/{layout.REPORT}"


def is_run(path: str | os.PathLike[str]) -> bool:
    """Returns whether a folder holds a run.

    Args:
        path: The folder, or its address in an object store.
    """
    return open_folder(path).read(layout.CONFIG) is not None


def find_runs(path: str | os.PathLike[str]) -> dict[str, RunDirectory]:
    """Returns the runs of a sweep by label, such as `"rate=0.1"`.

    Args:
        path: The folder of the sweep, or its address in an object store.
    """
    folder = open_folder(path)
    addresses = {
        label: f"{folder.address}/{label}"
        for label in folder.folders()
        if "=" in label
    }
    return {
        label: RunDirectory.open(address)
        for label, address in addresses.items()
        if is_run(address)
    }


def _folder_of(replicate: int, ticket: Ticket) -> str:
    return layout.network_folder(replicate, ticket.level, ticket.variant)


def _unfinished(replicate: int, ticket: Ticket) -> str:
    return layout.unfinished_folder(replicate, ticket.level, ticket.variant)


def _create_config(folder: Folder, new: Mapping[str, Any]) -> None:
    """Writes config.json, unless that of another run exists."""
    old = _read_config(folder)
    if old is None:
        if _holds_other_files(folder):
            raise UserError(
                f"{folder.address!r} is not empty and holds no run. Choose "
                "another run directory."
            )
        # Two processes may begin at the same moment.
        if folder.create(layout.CONFIG, sealed_json.seal(new)):
            return
        old = _read_config(folder) or {}
    _require_same(folder.address, old.get("fingerprint"), new["fingerprint"])


def _holds_other_files(folder: Folder) -> bool:
    if set(folder.folders()) - {locks.FOLDER}:
        return True
    names = map(pathlib.PurePosixPath, folder.files())
    return any(
        name.parts[0] != locks.FOLDER and not atomic.is_temporary(name)
        for name in names
    )


def _read_config(folder: Folder) -> dict[str, Any] | None:
    return _read(folder, layout.CONFIG, foreign_files.config)


def _read(
    folder: Folder, name: str, check: Callable[[dict[str, Any]], None]
) -> dict[str, Any] | None:
    """Returns the content of a JSON file; None if it does not exist."""
    data = folder.read(name)
    if data is None:
        return None
    address = f"{folder.address}/{name}"
    content = sealed_json.unseal(data, address)
    return foreign_files.checked(content, check, address)


@contextlib.contextmanager
def _tensorflow_errors(folder: pathlib.Path) -> Iterator[None]:
    """Replaces TensorFlow's error of a full disk by one line."""
    try:
        yield
    except tf.errors.OpError as error:
        raise StorageError(
            f"TensorFlow cannot write a checkpoint to {str(folder)!r}: "
            f"{one_line(error, 150)}. Make room there, or set TMPDIR to "
            "another folder; the same command goes on from here."
        ) from None


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
