"""The documentation builds, is whole, and its code runs."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re
import subprocess
import sys
import urllib.parse
import zlib

import numpy as np
import pytest

import tf_lottery

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text() for path in sorted(DOCS.glob("*.md"))}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as CONTRIBUTING.md says; a broken link or reference is an error."""
    folder = tmp_path_factory.mktemp("site")
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    run = subprocess.run(
        [*sphinx, str(DOCS), str(folder)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.slow
def test_pages_are_read_in_a_browser(site, open_page):
    page, requests, errors = open_page((site / "index.html").as_uri())
    assert "winning ticket" in page.inner_text("body")
    page.click("a[href='practitioner.html'] >> visible=true")
    page.wait_for_url("**/practitioner.html")
    assert page.inner_text("h1").startswith("For practitioners")
    # Nothing is wider than the page, and nothing comes from elsewhere.
    assert page.evaluate(
        "document.documentElement.scrollWidth <= window.innerWidth"
    )
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert errors == []


@pytest.fixture(scope="module")
def reference(site):
    """Every name of the API reference, to its kind."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(content).decode().splitlines()
    kinds = dict(line.split()[:2] for line in lines if " py:" in line)
    assert len(kinds) > 200
    return kinds


def test_every_public_name_is_in_the_reference(reference):
    names = {f"tf_lottery.{name}" for name in tf_lottery.__all__}
    # A module stands under the name of its room.
    moved = {
        name: getattr(pkgutil.resolve_name(name), "__name__", name)
        for name in names - reference.keys()
    }
    assert set(moved.values()) - reference.keys() == set()


def exported(module):
    if hasattr(module, "__all__"):
        return module.__all__
    return [
        name
        for name, member in inspect.getmembers(module, callable)
        if not name.startswith("_")
        and getattr(member, "__module__", "") == module.__name__
    ]


def test_whatever_a_module_of_the_reference_exports_is_in_it(reference):
    modules = [name for name, kind in reference.items() if kind == "py:module"]
    # Masked layers are listed as a table.
    modules.remove("tf_lottery.masking.layers")
    # What a package takes from its modules may stand under their names.
    known = {id(pkgutil.resolve_name(name)) for name in reference}
    missing = [
        f"{module}.{name}"
        for module in modules
        for name in exported(importlib.import_module(module))
        if f"{module}.{name}" not in reference
        and id(pkgutil.resolve_name(f"{module}:{name}")) not in known
    ]
    assert missing == []


def test_no_docstring_is_read_as_a_type(site):
    # Sphinx takes what stands before a colon in an attribute's first line.
    for page in site.glob("api/*.html"):
        assert not re.search(r'<dt class="field-\w+">Type<', page.read_text())


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, text in PAGES.items()
        if "```python" in text and name != "from_tfmot.md"  # test_tfmot.py
    ],
)
def test_the_code_of_a_guide_runs(name, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGES[name], re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks), name, "exec"), {})


def test_the_worked_addition_of_contributing_works():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(code, names)
    score = names["large_final_same_sign"]
    trained, origin = np.array([3.0, -2.0, 1.0]), np.array([1.0, 1.0, 5.0])
    scores = score({"k": trained}, {"k": origin})
    assert scores["k"].tolist() == [3, 0, 1]


FAULTS = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", PAGES["faults.md"], re.M)
EXCLUDING = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGES["faults.md"])


def test_every_fault_says_where_it_was_found_and_what_excludes_it():
    rows = [row for row in FAULTS if row[0] != "fault"]
    assert len(rows) > 20
    for fault, where, excluded_by in rows:
        assert re.search("https://| ran$|: read ", where), fault
        assert "::" in excluded_by, fault


@pytest.mark.parametrize(("file", "name"), sorted(set(EXCLUDING)))
def test_a_test_that_excludes_a_fault_exists(file, name):
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize(
    "url",
    sorted(
        {
            url
            for text in PAGES.values()
            for url in re.findall(r"\]\((\w+:[^)]*)\)", text)
        }
    ),
)
def test_a_link_to_elsewhere_is_well_formed_and_of_one_commit(url):
    parts = urllib.parse.urlsplit(url)
    assert parts.scheme == "https"
    assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc)
    assert re.fullmatch(r"[\w./~+-]*", parts.path)
    if re.search("/(blob|tree)/", parts.path):
        assert re.search("/(blob|tree)/[0-9a-f]{40}(/|$)", parts.path)
