"""Writes `BUILD` from the imports: `python tests/support/bazel.py`."""

import ast
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "tf_lottery"
LOAD = (
    'load("@rules_python//python:defs.bzl", '
    '"py_binary", "py_library", "py_test")'
)
HEAD = f'''"""Bazel targets: one library per room, one test per test file.

Generated from the imports by `python tests/support/bazel.py`.
"""

{LOAD}

package(default_visibility = ["//visibility:public"])
'''

DATA = {
    "analysis": ["tf_lottery/analysis/report/report.html.jinja"],
    "data": ["tf_lottery/data/mnist.npz"],
}
"""Files that a room reads at run time."""


def imported_modules(file: pathlib.Path) -> Iterator[str]:
    """Yields the dotted names of the modules that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "tf_lottery":
                yield from (f"tf_lottery.{a.name}" for a in node.names)
            else:
                yield node.module


def rooms() -> dict[str, list[pathlib.Path]]:
    """Returns the files of every room: a package or module of tf_lottery."""
    found: dict[str, list[pathlib.Path]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.setdefault(room, []).append(file)
    return found


def imported_rooms(files: list[pathlib.Path]) -> set[str]:
    """Returns the rooms that files import; `tf_lottery` is the façade."""
    modules = {module for file in files for module in imported_modules(file)}
    inside = {m.split(".")[1] for m in modules if m.startswith("tf_lottery.")}
    return inside | ({"tf_lottery"} & modules)


def _rule(kind: str, name: str, **lists: list[str]) -> str:
    lines = [f"{kind}(", f'    name = "{name}",']
    for key, values in lists.items():
        if key == "main":
            lines.append(f'    {key} = "{values[0]}",')
        elif len(values) == 1:
            lines.append(f'    {key} = ["{values[0]}"],')
        elif values:
            lines.append(f"    {key} = [")
            lines += [f'        "{value}",' for value in values]
            lines.append("    ],")
    return "\n".join([*lines, ")"])


def _paths(files: list[pathlib.Path]) -> list[str]:
    return [str(file.relative_to(ROOT)) for file in files]


def build() -> str:
    """Returns the text of `BUILD`."""
    rules = []
    library = rooms()
    facade = library.pop("__init__")
    main = library.pop("__main__")
    for room, files in library.items():
        deps = sorted(imported_rooms(files) - {room})
        data = DATA.get(room, [])
        rules.append(
            _rule(
                "py_library",
                room,
                srcs=_paths(files),
                data=data,
                deps=[f":{dep}" for dep in deps],
            )
        )
    every = [f":{room}" for room in library]
    rules.append(
        _rule("py_library", "tf_lottery", srcs=_paths(facade), deps=every)
    )
    deps = [f":{room}" for room in sorted(imported_rooms(main))]
    rules.append(
        _rule(
            "py_binary",
            "tf-lottery",
            main=_paths(main),
            srcs=_paths(main),
            deps=deps,
        )
    )
    tests = sorted((ROOT / "tests").rglob("*.py"))
    support = [f for f in tests if not f.name.startswith("test_")]
    rules.append(
        _rule("py_library", "testing", srcs=_paths(support), deps=every)
    )
    for file in tests:
        if file not in support:
            deps = [":testing", *(f":{r}" for r in imported_rooms([file]))]
            name = str(file.relative_to(ROOT).with_suffix(""))
            rules.append(
                _rule("py_test", name, srcs=_paths([file]), deps=sorted(deps))
            )
    return HEAD + "".join(f"\n{rule}\n" for rule in rules)


if __name__ == "__main__":
    (ROOT / "BUILD").write_text(build())
