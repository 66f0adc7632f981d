"""Holds imports, the table of rooms and BUILD together."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "tf_lottery"

# Each room and the rooms it imports; imports run upwards only.
TABLE = {
    # values
    "version": (),
    "lookup": (),
    "duration": (),
    "seeds": (),
    "strategies": ("lookup",),
    "archive": (),
    "gaps": (),
    "display": (),
    "planes": (),
    "masks": ("display", "lookup"),
    # mechanism
    "masked_variable": (),
    "layers": ("masked_variable",),
    "masking": ("display", "layers", "lookup", "masked_variable", "masks"),
    "drawn": ("lookup", "masking"),
    # choices
    "pruning": ("lookup", "masking", "masks", "seeds"),
    "sparse_training": ("masking",),
    "data": ("lookup", "seeds"),
    "models": ("lookup", "seeds"),
    "training": (
        "archive",
        "data",
        "duration",
        "masking",
        "masks",
        "seeds",
        "sparse_training",
    ),
    # algorithm
    "rewinding": ("masks", "training"),
    "tickets": (
        "archive",
        "drawn",
        "gaps",
        "lookup",
        "masking",
        "masks",
        "planes",
        "rewinding",
        "training",
    ),
    "stability": (),
    "search": ("lookup", "masks", "pruning", "tickets", "training"),
    "controls": (
        "lookup",
        "masking",
        "masks",
        "pruning",
        "seeds",
        "tickets",
        "training",
    ),
    # hand-over
    "export": ("gaps", "lookup", "masking", "masks", "tickets"),
    "tfmot": ("masking", "masks", "tickets", "training"),
    "starts": (
        "controls",
        "masking",
        "masks",
        "seeds",
        "tickets",
        "training",
    ),
    # bookkeeping
    "bucket": ("archive",),
    "leases": ("bucket",),
    "store": ("archive", "bucket", "leases", "masks", "tickets", "training"),
    "identity": (),
    "plan": ("controls", "pruning"),
    "progress": ("tickets", "training"),
    "crews": ("data", "duration", "masking", "training"),
    "study": (
        "controls",
        "crews",
        "plan",
        "progress",
        "search",
        "seeds",
        "stability",
        "store",
        "tickets",
        "training",
    ),
    # reading
    "analysis": (),
    "metric_drops": ("analysis", "data", "tickets", "training"),
    # front doors: the practitioner's, the researcher's, the terminal's
    "callbacks": ("masking",),
    "ticket_search": (
        "analysis",
        "callbacks",
        "controls",
        "crews",
        "data",
        "duration",
        "identity",
        "masking",
        "metric_drops",
        "progress",
        "pruning",
        "search",
        "starts",
        "store",
        "study",
        "tickets",
        "training",
    ),
    "experiment": (
        "analysis",
        "controls",
        "crews",
        "data",
        "duration",
        "identity",
        "leases",
        "lookup",
        "masking",
        "models",
        "plan",
        "progress",
        "seeds",
        "stability",
        "store",
        "strategies",
        "study",
        "ticket_search",
        "training",
    ),
    "reports": (
        "analysis",
        "experiment",
        "masking",
        "stability",
        "store",
        "tickets",
    ),
    "command_line": (
        "analysis",
        "data",
        "experiment",
        "export",
        "lookup",
        "reports",
        "store",
        "strategies",
    ),
    "__main__": ("command_line", "lookup", "version"),
}


def files(room):
    if (PACKAGE / room).is_dir():
        return sorted((PACKAGE / room).rglob("*.py"))
    return [PACKAGE / f"{room}.py"]


def imported_modules(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "tf_lottery":
                yield from (f"tf_lottery.{a.name}" for a in node.names)
            else:
                yield node.module


def imported_rooms(paths):
    own = [m for p in paths for m in imported_modules(p)]
    return {m.split(".")[1] for m in own if m.startswith("tf_lottery.")}


def build_rules():
    rules = []

    def rule(kind):
        return lambda **kwargs: rules.append((kind, kwargs))

    def glob(patterns):
        found = [p for pattern in patterns for p in ROOT.glob(pattern)]
        return sorted(str(p.relative_to(ROOT)) for p in found)

    names = {k: rule(k) for k in ("py_library", "py_binary", "py_test")}
    code = (ROOT / "BUILD").read_text()
    exec(code, {**names, "glob": glob, "package": lambda **_: None})
    return rules


def rooms_in_package():
    inside = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"}
    return inside | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}


def test_every_room_stands_in_the_table():
    assert rooms_in_package() == set(TABLE)


@pytest.mark.parametrize("room", TABLE)
def test_imports_are_those_of_the_table(room):
    assert imported_rooms(files(room)) - {room} == set(TABLE[room])


def test_imports_run_one_way():
    earlier = set()
    for room, imports in TABLE.items():
        assert set(imports) <= earlier, f"{room} imports a later room"
        earlier.add(room)


@pytest.mark.parametrize("room", TABLE)
def test_nothing_inside_imports_the_facade(room):
    modules = {m for f in files(room) for m in imported_modules(f)}
    assert "tf_lottery" not in modules


@pytest.mark.parametrize(
    ("library", "room"),
    [
        ("tensorflow_model_optimization", "tfmot"),
        ("tf_keras", "tfmot"),
        ("tensorflow_datasets", "data"),
        ("numba", "sparse_training"),
        ("llvmlite", "sparse_training"),
    ],
)
def test_heavy_libraries_are_imported_where_they_are_used_only(library, room):
    for other in set(TABLE) - {room}:
        for file in files(other):
            roots = {m.split(".")[0] for m in imported_modules(file)}
            assert library not in roots


def test_build_has_one_library_per_room_with_its_imports():
    libraries = {
        kwargs["name"]: kwargs
        for kind, kwargs in build_rules()
        if kind == "py_library"
    }
    assert set(libraries) == set(TABLE) - {"__main__"} | {"tf_lottery"}
    for room, imports in TABLE.items():
        if room == "__main__":
            continue
        rule = libraries[room]
        assert sorted(rule["deps"]) == sorted(f":{i}" for i in imports)
        expected = [str(f.relative_to(ROOT)) for f in files(room)]
        assert sorted(rule["srcs"]) == expected


def test_build_has_one_test_per_test_file_with_its_imports():
    tests = {
        kwargs["srcs"][0]: kwargs
        for kind, kwargs in build_rules()
        if kind == "py_test"
    }
    here = {
        str(p.relative_to(ROOT)): p
        for p in (ROOT / "tests").glob("**/test_*.py")
    }
    assert set(tests) == set(here)
    for name, path in here.items():
        modules = set(imported_modules(path))
        rooms = {
            m.split(".")[1] for m in modules if m.startswith("tf_lottery.")
        }
        if "tf_lottery" in modules:
            rooms.add("tf_lottery")
        libraries = {f":{room}" for room in rooms}
        assert set(tests[name]["deps"]) == libraries, name


def test_the_public_names_are_frozen():
    import tf_lottery

    assert tf_lottery.__all__ == [
        "__version__",
        "Duration",
        "MaskedConv2D",
        "MaskedDense",
        "Masks",
        "Ticket",
        "TicketSearch",
        "analysis",
        "build_model",
        "controls",
        "export",
        "find_tickets",
        "get_masks",
        "load_dataset",
        "mask_model",
        "masked_optimizer",
        "prune",
        "pruning",
        "run_experiment",
        "set_masks",
        "stability",
        "strip_masks",
        "summary",
        "tfmot",
    ]
    for name in tf_lottery.__all__:
        assert getattr(tf_lottery, name) is not None
