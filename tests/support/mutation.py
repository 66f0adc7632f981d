"""Mutation testing: `python tests/support/mutation.py [--sample N] [MODULE]`.

Each mutant is a module with one change, such as `<` for `<=`, in memory. It is
killed if a test fails. Mutants run one after another, each in a process that
is forked with TensorFlow imported, because importing it takes longer than the
tests. Words of messages are not changed.
"""

import argparse
import ast
import copy
import functools
import gc
import importlib.util
import os
import pathlib
import random
import resource
import sys
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest

ROOT = pathlib.Path(__file__).parents[2]
IGNORED = "ignore::pytest.PytestAssertRewriteWarning"
SEED = 0
LONGEST = 600
"""Seconds of CPU time that the tests of a module take at most."""

GUARDS = {
    "core.masks": ["core/test_masks.py"],
    "core.storage.mask_codec": ["core/storage/test_mask_codec.py"],
    "core.storage.array_file": ["core/storage/test_array_file.py"],
    "core.storage.commit": ["core/storage/test_commit.py"],
    "core.storage.sealed_json": ["core/storage/test_commit.py"],
    "core.storage.lock": ["core/storage/test_lock.py"],
    "pruning.prune": ["lottery/test_search.py", "pruning/test_pruning.py"],
    "pruning.magnitude": ["lottery/test_search.py", "pruning/test_pruning.py"],
    "pruning.allocation": ["lottery/test_search.py", "pruning/test_pruning.py"],
    "pruning.schedule": ["lottery/test_search.py", "pruning/test_pruning.py"],
    "lottery.rewinding": ["lottery/test_rewinding.py"],
    "lottery.search": ["lottery/test_search.py"],
    "lottery.ticket_file": ["lottery/test_ticket.py"],
    "analysis.verdict": ["analysis/test_verdict.py"],
    "analysis.smallest": ["analysis/test_smallest.py"],
    "training.backends.functional_model": [
        "training/backends/test_functional_model.py"
    ],
}
"""Module of `tf_lottery` to the test files that must kill its mutants."""

COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
NAMES |= {"sorted": "list", "round": "int", "ceil": "floor"}
SKIPPED = {"annotation", "returns", "decorator_list", "bases", "type_params"}
REMOVED = (ast.AugAssign, ast.Expr, ast.Delete)


def alternatives(node: ast.AST) -> Iterator[ast.AST]:
    """Yields what could stand wrongly in place of a node."""
    like = functools.partial(_like, node)
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for other in COMPARISONS[type(op)]:
                yield like(ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        if type(node.op) in OPERATORS:
            yield like(op=OPERATORS[type(node.op)]())
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield like(value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield like(value=node.value + 1)
    elif isinstance(node, ast.If | ast.IfExp):
        yield from (like(test=ast.Constant(b)) for b in (True, False))
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield like(ifs=[])
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Name | ast.Attribute):
        field = "id" if isinstance(node, ast.Name) else "attr"
        if getattr(node, field) in NAMES:
            yield like(**{field: NAMES[getattr(node, field)]})
    elif isinstance(node, ast.Call):
        for keyword in node.keywords:
            if not _is_strict(keyword):
                others = [k for k in node.keywords if k is not keyword]
                yield like(keywords=others)
    elif isinstance(node, ast.Assign) and not isinstance(
        node.targets[0], ast.Name | ast.Tuple
    ):
        yield ast.Pass()
    if isinstance(node, REMOVED) and not _is_text(node):
        yield ast.Pass()


def _like(node: ast.AST, **fields: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _is_text(node: ast.AST) -> bool:
    """Returns whether a statement is a docstring, or the words of a message."""
    value = getattr(node, "value", None)
    return isinstance(value, ast.Constant | ast.JoinedStr | ast.Yield)


def _is_strict(node: ast.AST) -> bool:
    """Returns whether it is the `strict` of `zip`, a guard against our bugs."""
    return isinstance(node, ast.keyword) and node.arg == "strict"


def mutants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yields the change and the source of every mutant of a module."""
    for siblings, i in _slots(tree):
        node = siblings[i]
        for other in alternatives(node):
            siblings[i] = other
            change = f"{ast.unparse(node)}  ->  {ast.unparse(other)}"
            line = getattr(node, "lineno", "in a comprehension")
            yield f"{line}: {' '.join(change.split())}", ast.unparse(tree)
        siblings[i] = node


def _slots(node: ast.AST) -> Iterator[tuple[list | dict, int | str]]:
    """Yields where the nodes below a node stand, so that they can be replaced.

    Args:
        node: A node; what a `raise` says is left out.
    """
    if isinstance(node, ast.Raise | ast.JoinedStr) or _is_strict(node):
        return
    for field, value in ast.iter_fields(node):
        inside = value if isinstance(value, list) else [value]
        if field in SKIPPED or not all(isinstance(n, ast.AST) for n in inside):
            continue
        for i, child in enumerate(inside):
            at = (value, i) if value is inside else (vars(node), field)
            yield at
            yield from _slots(child)


class Finder:
    """Imports the mutant in place of a module."""

    def __init__(self, module: str, file: str) -> None:
        self.module, self.file = module, file

    def find_spec(self, name: str, *_: object) -> object:
        """Returns the spec of the mutant; None for other modules."""
        if name == self.module:
            return importlib.util.spec_from_file_location(name, self.file)
        return None


def run_tests(module: str, source: str, seconds: int) -> tuple[bool, float]:
    """Returns whether all tests of a mutant pass, and the CPU time they took.

    Args:
        module: The module.
        source: Its source, changed or not.
        seconds: CPU time after which the mutant fails: it never ends.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "mutant.py")
        file.write_text(source)
        child = os.fork()
        if not child:
            status = 1
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
                status = _pytest(module, str(file))
            finally:
                os._exit(status)
        _, status, usage = os.wait4(child, 0)
    return status == 0, usage.ru_utime + usage.ru_stime


def _pytest(module: str, file: str) -> int:
    """Runs the tests of a mutant, and returns pytest's status."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.meta_path.insert(0, Finder(f"tf_lottery.{module}", file))
    options = ["-x", "--tb=no", "-p", "no:cacheprovider", "-W", IGNORED]
    files = [str(ROOT / "tests" / name) for name in GUARDS[module]]
    return pytest.main([*options, *files])


def test_module(module: str, sample: int | None) -> None:
    """Prints the survivors of a module, and how many mutants were killed."""
    path = ROOT / "tf_lottery" / f"{module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text())
    passes, seconds = run_tests(module, ast.unparse(tree), LONGEST)
    if not passes or run_tests(module, "raise", LONGEST)[0]:
        sys.exit(f"The tests of {module} do not pass, or do not import it.")
    every = list(mutants(tree))
    count = min(sample or len(every), len(every))
    killed = 0
    for change, source in random.Random(SEED).sample(every, count):
        survives, _ = run_tests(module, source, 20 + int(3 * seconds))
        killed += not survives
        if survives:
            print(f"{path.relative_to(ROOT)}:{change[:200]}", flush=True)
    print(f"{module}: {killed} of {count} killed, {len(every)} in all")


def main() -> None:
    """Runs the modules that are named; all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", nargs="*", default=list(GUARDS))
    parser.add_argument("--sample", type=int, help="mutants per module")
    arguments = parser.parse_args()
    # Imports of TensorFlow survive a fork; what it computes does not.
    for name in ("hypothesis.extra.numpy", "scipy.stats", "numba"):
        importlib.import_module(name)
    importlib.import_module("tensorflow")
    importlib.import_module("keras")
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile(
        "quick", phases=phases, max_examples=20
    )
    hypothesis.settings.load_profile("quick")
    gc.freeze()  # So that pytest collects its own garbage only.
    os.chdir(ROOT)
    for module in arguments.module:
        test_module(module, arguments.sample)


if __name__ == "__main__":
    main()
