"""The report in Chromium."""

import numpy as np
import pytest
import studies

from tf_lottery import experiment
from tf_lottery.analysis import report as analysis_report
from tf_lottery.experiment import report

pytestmark = pytest.mark.slow

TINY = experiment.Config().replace(
    {
        "model_options": {"units": [9, 5]},
        "length": "60it",
        "evaluate_every": 20,
        "levels": 2,
        "rate": 0.5,
    }
)
WIDTHS = [390, 1280]  # CSS pixels, of a phone and of a laptop
POINT = 72 / 160  # of an image pixel: figures have 160 dots per inch


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    experiment.run_experiment(TINY, folder, verbose=False)
    report.write(folder)
    return (folder / "report.html").as_uri()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_shows_every_figure_and_loads_nothing(
    open_page, address, width
):
    page, requests, errors = open_page(address, width)
    images = page.locator("figure img")
    assert images.count() == page.locator("figure").count() == 13
    for image in images.all():
        assert image.is_visible()
        assert image.get_attribute("alt")
        assert image.evaluate("e => e.naturalWidth") > 100
    assert "weights of fc1 read each pixel" in page.inner_text("#pixels")
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert errors == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(open_page, address, width):
    page, _, _ = open_page(address, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for image in page.locator("figure img").all():
        box = image.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_the_letters_of_figures_are_legible_on_a_phone(open_page, address):
    page, _, _ = open_page(address, WIDTHS[0])
    scales = page.locator("figure img").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().width / e.naturalWidth)"
    )
    # A letter has 9 points or more, and 8 CSS pixels can be read.
    assert min(scales) * 9 / POINT > 8


def test_wide_tables_scroll_inside_their_box(open_page, tmp_path):
    networks = studies.with_controls(
        np.random.default_rng(0), 3, "reinit", "shuffle", "random", levels=2
    )
    text = analysis_report.render("run", networks, {}, {})
    (tmp_path / "report.html").write_text(text)
    width = WIDTHS[0]
    page, _, _ = open_page((tmp_path / "report.html").as_uri(), width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # [is wider than its box, scrolls]
    boxes = page.locator(".scroll").evaluate_all(
        "all => all.map(e => { e.scrollLeft = 9;"
        "return [e.scrollWidth > e.clientWidth + 9, e.scrollLeft == 9] })"
    )
    assert [True, True] in boxes
    assert [True, False] not in boxes
