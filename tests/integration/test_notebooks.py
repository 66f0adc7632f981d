"""Every notebook runs, and is kept as it ran."""

import ast
import re

import nbformat
import notebooks
import pytest

pytestmark = pytest.mark.slow

BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/"
    "colab-badge.svg)](https://colab.research.google.com/github/tf-lottery/"
    "tf_lottery/blob/main/colab/{name})"
)


@pytest.fixture(params=notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [out for cell in code_cells(notebook) for out in cell.outputs]


def said(notebook):
    """All text that the outputs hold, pictures apart."""
    texts = []
    for out in outputs(notebook):
        texts.append(out.get("text", ""))
        for kind, value in out.get("data", {}).items():
            if kind.startswith("text/"):
                texts.append(value)
    return "\n".join(texts)


def require_fit_to_read(notebook):
    """No warnings, progress bars, log lines of C++, or paths of a machine."""
    text = said(notebook)
    noise = r"warning|\r|[IWE]0000 |(?<![\w.])/(home|root|tmp|usr)/"
    assert not re.search(noise, text, re.IGNORECASE), text


def test_there_are_seven():
    numbers = [path.name[:3] for path in notebooks.NOTEBOOKS]
    assert numbers == [f"{number:02}_" for number in range(1, 8)]


def test_it_runs_top_to_bottom(path, tmp_path):
    require_fit_to_read(notebooks.executed(path, tmp_path))


def test_its_badge_opens_it(path, notebook):
    assert notebook.cells[0].source == BADGE.format(name=path.name)


def test_it_installs_on_colab_alone(notebook):
    guard = 'if "google.colab" in sys.modules:\n    %pip install -q tf-lottery'
    assert code_cells(notebook)[0].source.endswith(guard)
    rest = "\n".join(cell.source for cell in code_cells(notebook)[1:])
    assert "%pip" not in rest


def test_it_ends_with_an_assertion(notebook):
    last = ast.parse(code_cells(notebook)[-1].source)
    assert any(isinstance(node, ast.Assert) for node in ast.walk(last))


def test_it_is_kept_as_it_ran(path, notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert any("image/png" in out.get("data", {}) for out in outputs(notebook))
    assert all(out.output_type != "error" for out in outputs(notebook))
    assert path.stat().st_size < 300_000


def test_what_is_kept_is_fit_to_read(notebook):
    require_fit_to_read(notebook)
