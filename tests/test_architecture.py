"""Holds the order of the rooms, `BUILD` and the public names."""

import bazel
import pytest

# A room imports only rooms before it.
ORDER = (
    *("core", "analysis", "masking", "data", "models"),
    *("pruning", "training", "lottery", "controls", "export", "tfmot"),
    *("runs", "ticket_search", "experiment", "cli"),
)
ROOMS = bazel.rooms()


def test_every_room_stands_in_the_order():
    assert set(ROOMS) - {"__init__", "__main__"} == set(ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_imports_run_one_way(room):
    earlier = set(ORDER[: ORDER.index(room) + 1])
    assert bazel.imported_rooms(ROOMS[room]) <= earlier


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("tensorflow_model_optimization", "tfmot.py"),
        ("tf_keras", "tfmot.py"),
        ("tensorflow_datasets", "data"),
        ("numba", "training/backends/sparse_cpu"),
        ("llvmlite", "training/backends/sparse_cpu"),
    ],
)
def test_heavy_libraries_are_imported_where_they_are_used_only(library, home):
    for file in bazel.PACKAGE.rglob("*.py"):
        if not str(file.relative_to(bazel.PACKAGE)).startswith(home):
            modules = bazel.imported_modules(file)
            assert library not in {m.split(".")[0] for m in modules}, file


def test_core_needs_no_tensorflow():
    modules = {m for f in ROOMS["core"] for m in bazel.imported_modules(f)}
    assert not {"tensorflow", "keras"} & {m.split(".")[0] for m in modules}


def test_build_is_generated_from_the_imports():
    text = (bazel.ROOT / "BUILD").read_text()
    assert text == bazel.build(), "run: python tests/support/bazel.py"


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
