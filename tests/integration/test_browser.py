"""The report in a real browser."""

import dataclasses

import numpy as np
import pytest
import studies

from tf_lottery import experiment
from tf_lottery.analysis import figures
from tf_lottery.analysis import report as analysis_report
from tf_lottery.core.masks import Masks

TINY = experiment.Config().replace(
    {
        "model_options": {"units": [9, 5]},
        "length": "60it",
        "evaluate_every": 20,
        "levels": 2,
        "rate": 0.5,
    }
)


@pytest.fixture(scope="module")
def report(tmp_path_factory, page):
    folder = tmp_path_factory.mktemp("report") / "run"
    experiment.run_experiment(TINY, folder, verbose=False)
    report.write(folder)
    page.open((folder / "report.html").as_uri())
    return page


def visible(page, selector):
    """How many elements are there to see."""
    return page.value(
        f"[...document.querySelectorAll({selector!r})].filter(element =>"
        "element.getClientRects().length &&"
        "getComputedStyle(element).visibility == 'visible').length"
    )


def test_every_figure_is_there_and_nothing_else_is_asked_for(report):
    figures = report.value("document.querySelectorAll('figure').length")
    assert figures == visible(report, "figure > svg, figure img") == 13
    assert report.value(
        "[...document.images].every(image => image.naturalWidth > 100)"
    )
    first, *others = report.requests
    assert first.startswith("file:")
    assert all(address.startswith("data:") for address in others)
    assert report.complaints == []


def test_the_pixels_that_are_read_are_shown(report):
    assert "weights of fc1 read each pixel" in report.value(
        "document.querySelector('#pixels figcaption').textContent"
    )


def test_a_point_says_what_it_stands_for_while_pointed_at(report):
    assert visible(report, "#accuracy .mark text") == 0
    report.point_at("#accuracy .mark.curve-1:last-child circle")
    assert visible(report, "#accuracy .mark text") == 1
    text = report.value(
        "document.querySelector('#accuracy .mark:hover').textContent"
    )
    row = report.value(
        "[...document.querySelectorAll('table')].find(table =>"
        "table.textContent.startsWith('level')).rows[3].textContent"
    )
    assert text.startswith("reinit at 25.0 % ")
    accuracy = text.removeprefix("reinit at 25.0 % ").removesuffix(" %")
    assert row.endswith(accuracy)
    report.point_at("h1")
    assert visible(report, "#accuracy .mark text") == 0


def test_a_curve_can_be_hidden(report):
    for there in (1, 0, 1):
        assert bool(visible(report, "#accuracy .curve-1")) == bool(there)
        assert bool(visible(report, "#accuracy .mark.curve-1")) == bool(there)
        assert visible(report, "#accuracy .curve-0")
        assert visible(report, "#early_stop_step .curve-1")
        report.point_at("label[for=accuracy-show-1]", click=True)
    report.point_at("label[for=accuracy-show-1]", click=True)


PHONE = 360
FONT = 9  # points; the smallest letters of a figure are hardly smaller


def test_a_figure_can_be_read_on_a_phone(report):
    address = report.value("location.href")
    report.open(address, PHONE)
    column = report.value("document.querySelector('.figures').clientWidth")
    assert 300 < column < PHONE
    scales = report.value(
        "[...document.querySelectorAll('figure > svg')].map(svg =>"
        "svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"
    )
    scales += report.value(
        "[...document.querySelectorAll('figure img')].map(image =>"
        "image.getBoundingClientRect().width / image.naturalWidth * 160 / 72)"
    )
    assert len(scales) == 13
    assert all(FONT * scale > 8 for scale in scales)  # CSS pixels
    widths = report.value(
        "[...document.querySelectorAll('figure > svg, figure img')].map("
        "element => element.getBoundingClientRect().width)"
    )
    assert max(widths) <= column
    report.open(address)


def test_wide_tables_scroll_inside_their_own_box(page, tmp_path):
    networks = studies.with_controls(
        np.random.default_rng(0), 3, "reinit", "shuffle", "random", levels=2
    )
    text = analysis_report.render("run", networks, {}, {})
    (tmp_path / "report.html").write_text(text)
    page.open((tmp_path / "report.html").as_uri(), PHONE)
    assert page.value("document.documentElement.scrollWidth") <= PHONE
    # [wider than its box, moves within it]
    boxes = page.value(
        "[...document.querySelectorAll('.scroll')].map(box =>"
        "{ box.scrollLeft = 9; return ["
        "box.scrollWidth > box.clientWidth + 9, box.scrollLeft == 9] })"
    )
    assert [True, True] in boxes
    assert [True, False] not in boxes


def test_a_sweep_with_long_names_is_as_wide_as_a_phone(page, tmp_path):
    names = [
        f"rate=0.{n},criterion=magnitude,rewind=500it,allocation=global"
        for n in range(1, 9)
    ]
    networks = [
        dataclasses.replace(network, variant=name)
        for name in names
        for network in studies.study(np.random.default_rng(0), 2, levels=2)
    ]
    text = analysis_report.render_sweep(
        f"Sweep: {', '.join(names)}",
        figures.compare(networks),
        {name: ["No verdict."] for name in names},
    )
    (tmp_path / "report.html").write_text(text)
    page.open((tmp_path / "report.html").as_uri(), PHONE)
    assert page.value("document.documentElement.scrollWidth") <= PHONE
    # A box and its name stay together.
    assert page.value(
        "[...document.querySelectorAll('.box')].every(box =>"
        "box.children[1].offsetTop - box.children[0].offsetTop < 9 &&"
        "box.children[1].offsetLeft > box.children[0].offsetLeft)"
    )


@pytest.mark.parametrize("width", [1200, PHONE])
def test_the_page_is_as_wide_as_the_window(report, tmp_path, width):
    address = report.value("location.href")
    report.open(address, width)
    assert report.value("document.documentElement.scrollWidth") <= width
    report.shoot(tmp_path / "report.png", whole=True)
    assert (tmp_path / "report.png").stat().st_size > 50_000


@pytest.mark.parametrize("dark", [False, True])
def test_a_table_of_densities_is_read_on_any_page(page, tmp_path, dark):
    masks = Masks({"a": np.eye(4), "b": np.ones((2, 2)), "c": np.zeros(3)})
    (tmp_path / "masks.html").write_text(
        '<meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        + masks._repr_html_()
    )
    page.open((tmp_path / "masks.html").as_uri(), 600, 300, dark)
    text = page.value("document.querySelector('pre').innerText")
    assert "25.00 % ██▌ " in text
    color = "getComputedStyle(document.querySelector('pre')).color"
    light, black = "rgb(255, 255, 255)", "rgb(0, 0, 0)"
    assert page.value(color) == (light if dark else black)
    page.shoot(tmp_path / "masks.png")
