"""Fuzzing of what reads a stranger's files.

Atheris mutates tickets, mask files, and the JSON files of a run directory,
guided by the lines that they reach. Files are also taken apart, changed inside
and put together with right checksums, so that mutations get past these. An
input must be read, or refused by a `UserError` of one printable line, within
ten seconds of computing and 1 GiB of memory. Others are kept in `findings/`,
one for each place that raised, and printed: mend the reader, and run again.

    pip install atheris
    PYTHONPATH=tests/support python benchmarks/fuzz.py 200

gives each kind of file 200 seconds, in a process of its own.
"""

import contextlib
import hashlib
import io
import json
import pathlib
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import atheris

with atheris.instrument_imports(
    include=["tf_lottery"], enable_loader_override=False
):
    import sample_runs
    import sample_tickets
    import toy

    from tf_lottery import export
    from tf_lottery.analysis import figures
    from tf_lottery.core.errors import UserError
    from tf_lottery.core.storage import sealed_json
    from tf_lottery.experiment import report
    from tf_lottery.lottery.ticket import Ticket

MEMORY = 2**30
"""Bytes that an input may take. A file below 4 MiB may unpack to 256 MiB of
arrays and as many of masks, and its header to 200 MB."""
SECONDS = 10
LONGEST = 2**16
"""Bytes of an input."""
VALUES = (
    None,
    True,
    -1,
    0,
    1,
    7,
    2**31,
    2**63,
    10**300,
    0.5,
    -1e-300,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "ticket",
    "\x1b[2J\u202e\n",
    "=1+1",
    "javascript:alert(1)",
    "../../x",
    "$\\frac{$",
    "é" * 5_000,
    [],
    {},
    [[]],
    [1] * 2_000,
    [2**20, 2**20],
    ["<f4", "|O", ">c16", "|S9", "<M8[s]"],
)
"""What is put in the place of a value of a JSON text."""


class TicketFile:
    """Tickets."""

    @staticmethod
    def seeds(folder: pathlib.Path) -> Iterator[bytes]:
        """Yields files that are right."""
        for step in (0, 3):
            ticket = sample_tickets.make(toy.mlp(), step=step)
            ticket.save(folder / "t", values=bool(step))
            yield (folder / "t").read_bytes()

    @staticmethod
    def read(folder: pathlib.Path, data: bytes) -> None:
        """Reads a file of these bytes."""
        (folder / "t").write_bytes(data)
        ticket = Ticket.load(folder / "t")
        assert repr(ticket).isprintable()
        ticket._repr_html_()


class MaskFile:
    """Mask files of open_lth."""

    model = toy.mlp()

    @staticmethod
    def seeds(folder: pathlib.Path) -> Iterator[bytes]:
        """Yields files that are right."""
        ticket = sample_tickets.make(toy.mlp())
        export.write_masks(ticket, folder / "m.npz", "open_lth")
        yield (folder / "m.npz").read_bytes()

    @classmethod
    def read(cls, folder: pathlib.Path, data: bytes) -> None:
        """Reads a file of these bytes."""
        (folder / "m.npz").write_bytes(data)
        export.read_masks(folder / "m.npz", cls.model, "open_lth")


class Report:
    """A JSON file of a run directory, through to the report."""

    run = pathlib.Path(tempfile.mkdtemp(prefix="tf_lottery_fuzz"))
    draw = staticmethod(figures.draw)

    @classmethod
    def seeds(cls, folder: pathlib.Path) -> Iterator[bytes]:
        """Yields the file as a run writes it."""
        del folder
        if not (cls.run / "config.json").exists():
            directory = sample_runs.open_run(cls.run)
            sample_runs.fill(directory)
            directory.save_line(0, 1, LINE)
            file = cls.run / "config.json"
            config = sealed_json.unseal(file.read_bytes(), "")
            config["metadata"] |= METADATA
            file.write_bytes(sealed_json.seal(config))
        yield (cls.run / cls.file).read_bytes()

    @classmethod
    def read(cls, folder: pathlib.Path, data: bytes) -> None:
        """Reads a file of these bytes."""
        del folder
        honest = (cls.run / cls.file).read_bytes()
        # Drawing takes a second: one input in 200 draws its figures.
        is_drawn = zlib.crc32(data) % 200 == 0
        figures.draw = cls.draw if is_drawn else lambda *_: {}
        try:
            (cls.run / cls.file).write_bytes(data)
            for line in report.write(cls.run):
                assert all(c.isprintable() or c == "\n" for c in line)
        finally:
            (cls.run / cls.file).write_bytes(honest)


LINE = {
    "alphas": [0.0, 0.5, 1.0],
    "errors": {"test": [0.1, 0.2, 0.1]},
    "distance": 1.5,
    "between": ["0" * 64, "1" * 64],
}
METADATA = {
    "preset": "lenet_mnist",
    "settings": {"levels": 2, "replicates": "5:8", "controls": ["reinit*2"]},
    "hardware": {"CPU": "two cores", "GPU": "none"},
    "deterministic": True,
}


class Record(Report):
    """The record of a ticket."""

    file = "replicate_0/level_1/ticket/record.json"


class Dense(Report):
    """The record of the dense network."""

    file = "replicate_0/level_0/ticket/record.json"


class Config(Report):
    """The configuration of a run."""

    file = "config.json"


class Line(Report):
    """The errors between a ticket and its copy."""

    file = "replicate_0/level_1/line.json"


TARGETS = {
    "ticket": TicketFile,
    "masks": MaskFile,
    "record": Record,
    "dense record": Dense,
    "config": Config,
    "line": Line,
}


def mutated(data: bytes, longest: int, seed: int) -> bytes:
    """Returns a mutation of a file: of its bytes, or of what is in it."""
    draw = random.Random(seed)
    with contextlib.suppress(Exception):
        if draw.random() < 0.95:
            inside = _of_zip if data.startswith(b"PK") else _of_json
            return inside(data, draw)[:longest]
    return atheris.Mutate(data, longest)


def _of_json(data: bytes, draw: random.Random) -> bytes:
    content = json.loads(data)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        content = _changed(content, draw)
    if isinstance(content, dict) and "sha256" in content:
        content.pop("sha256")
        return sealed_json.seal(content)
    return json.dumps(content).encode()


def _changed(content: Any, draw: random.Random) -> Any:
    """Returns a JSON value with one value in it changed."""
    if isinstance(content, dict | list) and content and draw.random() < 0.9:
        keys = (
            list(content) if isinstance(content, dict) else range(len(content))
        )
        key = draw.choice(list(keys))
        kind = draw.random()
        if kind < 0.05:
            del content[key]
        elif kind < 0.1 and isinstance(content, dict):
            content[str(draw.choice(VALUES))] = content.pop(key)
        else:
            content[key] = _changed(content[key], draw)
        return content
    if isinstance(content, str) and draw.random() < 0.3:
        return atheris.Mutate(content.encode(), 200).decode(errors="replace")
    values = VALUES
    if draw.random() < 0.7:
        values = [v for v in VALUES if type(v) is type(content)] or VALUES
    return draw.choice(values)


def _of_zip(data: bytes, draw: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    name = draw.choice([*entries, *["header.npy"] * 9])
    if name == "header.npy" and name in entries:
        entries[name] = _npy_text(_of_json(entries[name][128:], draw))
    elif name in entries:
        entries[name] = atheris.Mutate(entries[name], LONGEST)
    if "header.npy" in entries and draw.random() < 0.9:
        _sign(entries)
    return _zipped(entries, draw)


def _npy_text(text: bytes) -> bytes:
    kind = "{'descr': '|u1', 'fortran_order': False, "
    preamble = f"{kind}'shape': ({len(text)},), }}".ljust(117) + "\n"
    size = struct.pack("<H", len(preamble))
    return b"\x93NUMPY\x01\x00" + size + preamble.encode() + text


def _sign(entries: dict[str, bytes]) -> None:
    """Makes the header hold the right digests."""
    header = json.loads(entries["header.npy"][128:])
    for name, entry in header["arrays"].items():
        data = entries.get(f"{name}.npy", b"")[128:]
        entry["sha256"] = hashlib.sha256(data).hexdigest()
    entries["header.npy"] = _npy_text(json.dumps(header).encode())


def _zipped(entries: dict[str, bytes], draw: random.Random) -> bytes:
    methods = [zipfile.ZIP_STORED, *[zipfile.ZIP_DEFLATED] * 9]
    if draw.random() < 0.05:
        methods = [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", draw.choice(methods)) as file:
        for name, data in entries.items():
            file.writestr(zipfile.ZipInfo(name), data, draw.choice(methods))
    return stream.getvalue()


class Harness:
    """Reads inputs, and keeps those that hurt."""

    def __init__(self, name: str, findings: pathlib.Path) -> None:
        self.read, self.findings = TARGETS[name].read, findings
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tf_lottery_fuzz"))
        self.name, self.counts, self.most = name, {}, 0

    def __call__(self, data: bytes) -> None:
        """Reads one input."""
        before = _peak(reset=True)
        start = time.process_time()
        outcome = self._outcome(data)
        held, took = _peak() - before, time.process_time() - start
        self.most = max(self.most, held)
        if held > MEMORY:
            outcome = f"took {held >> 20} MiB"
        if took > SECONDS:
            outcome = f"took {took:.0f} s"
        if outcome not in ("read", "refused"):
            self._keep(data, outcome)
            outcome = "finding"
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
        if sum(self.counts.values()) % 100 == 0:
            status = {"counts": self.counts, "most": self.most}
            (self.findings / f"{self.name}.json").write_text(json.dumps(status))

    def _outcome(self, data: bytes) -> str:
        try:
            self.read(self.folder, data)
        except UserError as error:
            is_line = str(error).isprintable() and len(str(error)) < 1_000
            return "refused" if is_line else f"says {str(error)!r}"
        except Exception:
            return traceback.format_exc()
        return "read"

    def _keep(self, data: bytes, outcome: str) -> None:
        place = [line for line in outcome.splitlines() if "File" in line][-1:]
        digest = hashlib.sha256("".join(place or [outcome[:9]]).encode())
        file = self.findings / f"{self.name} {digest.hexdigest()[:8]}"
        if not file.exists():
            file.write_bytes(data)
            file.with_suffix(".txt").write_text(outcome)


def _peak(reset: bool = False) -> int:
    """Returns this process's most bytes of memory so far, or since a reset."""
    if reset:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    raise OSError("this system does not say how much memory it gave")


def fuzz(name: str, seconds: int, findings: pathlib.Path) -> None:
    """Fuzzes one target; returns only at an error."""
    with tempfile.TemporaryDirectory(prefix="tf_lottery_fuzz") as folder:
        corpus = pathlib.Path(folder) / "corpus"
        corpus.mkdir()
        for index, seed in enumerate(TARGETS[name].seeds(pathlib.Path(folder))):
            (corpus / f"{index}").write_bytes(seed)
            # Otherwise nothing behind the first check would be reached.
            TARGETS[name].read(pathlib.Path(folder), seed)
        harness = Harness(name, findings)
        hard = (
            8 * MEMORY
            + 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        )
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        options = [
            "-seed=1",
            "-mutate_depth=2",
            "-timeout=600",  # of the clock: the machine may be busy
            "-rss_limit_mb=0",
            f"-max_len={LONGEST}",
            f"-max_total_time={seconds}",
            f"-artifact_prefix={findings}/",
            str(corpus),
        ]
        atheris.Setup([sys.argv[0], *options], harness, custom_mutator=mutated)
        atheris.Fuzz()


def main() -> None:
    """Fuzzes every target in a process of its own, and prints the figures."""
    seconds, *names = sys.argv[1:]
    findings = pathlib.Path("findings").absolute()
    findings.mkdir(exist_ok=True)
    if len(names) == 1:
        fuzz(names[0], int(seconds), findings)
        return
    for name in TARGETS:
        command = [sys.executable, __file__, seconds, name]
        log = findings / f"{name}.log"
        with log.open("w") as output:
            status = subprocess.run(command, stderr=output).returncode
        figures_of = json.loads((findings / f"{name}.json").read_text())
        print(name, f"status {status}", figures_of, flush=True)
    print(*sorted(p.name for p in findings.glob("*.txt")), sep="\n")


if __name__ == "__main__":
    main()
