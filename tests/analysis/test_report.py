"""The report of a run is complete, escaped, and a single file."""

import dataclasses
import html
import re
import shlex

import numpy as np
import pytest
import studies

from tf_lottery import __main__, cli
from tf_lottery.analysis import claims, figures, report
from tf_lottery.experiment import command, presets
from tf_lottery.runs import provenance

SETTINGS = {
    **vars(presets.get("lenet_mnist", "paper")),
    "controls": ("reinit", "shuffle"),
    "replicates": 3,
}
CONFIG = {
    "fingerprint": {"data": "<0>"},
    "metadata": {
        "preset": "lenet_mnist",
        "settings": SETTINGS,
        "keras": "3.15.1",
        "deterministic": True,
        "hardware": {"processor": "An abacus", "cores": 2, "GPU": "none"},
    },
}


def page(networks, findings=(), config=CONFIG, title="study", made=""):
    return report.render(
        title, networks, figures.draw(networks), config, findings, made
    )


def test_the_report_shows_verdicts_claims_figures_and_origin():
    networks = studies.caught_up(
        studies.with_controls(
            np.random.default_rng(0), 5, "reinit", gain=0.02, share=0.1
        )
    )
    findings = claims.check(networks, studies.LENET, True)
    shown = page(networks, findings, made="tf-lottery run <it>")
    assert "Tickets against reinit" in shown
    assert "is a winning ticket over 5 replicates" in shown
    assert "Also winning: levels 1 to 9." in shown
    assert "Order of the tests: levels 7, 8, 9, 10, 6, 5, 4, 3, 2, 1." in shown
    assert "Not tested: early-stop steps, the sizes of effects" in shown
    assert claims.tally(findings) in shown
    for finding in findings:
        assert f'<td class="{finding.outcome}">{finding.outcome}' in shown
        assert finding.value in shown
    assert "105 trained networks, n = 5 replicates, up to level 10." in shown
    assert "The run is under way: 192 are planned." in shown
    assert "tf-lottery run &lt;it&gt;" in shown
    assert "<td>processor</td><td>An abacus</td>" in shown
    # 105 networks of 30 seconds.
    assert "52 min 30 s, summed over networks" in shown
    assert "<td>rates</td><td>output: 0.1</td>" in shown


def test_the_report_stands_alone_and_escapes():
    networks = studies.study(np.random.default_rng(0), 1)
    shown = page(networks, title="<toy>")
    assert "&lt;toy&gt;" in shown
    assert "&lt;0&gt;" in shown
    drawn = figures.draw(networks)
    narrow = sum(bool(drawing.narrow) for drawing in drawn.values())
    images = len(drawn) + narrow
    assert shown.count("data:image/png;base64,") == images > narrow > 0
    assert not re.search(r'(src|srcset|href)="(?!data:)', shown)
    assert "<script" not in shown
    ids = re.findall(r' id="([^"]+)"', shown)
    assert len(ids) == len(set(ids))
    text = html.unescape(shown)
    assert all(d.caption in text for d in drawn.values())


def test_every_figure_has_its_words_in_reports_of_runs_and_sweeps():
    networks = studies.study(np.random.default_rng(0), 2)
    swept = figures.compare(
        [dataclasses.replace(n, variant="rate=<1>") for n in networks]
    )
    pages = {
        page(networks): figures.draw(networks),
        report.render_sweep("sweep", swept, {}): swept,
    }
    for shown, drawn in pages.items():
        said = re.findall(r'alt="([^"]*)"', shown)
        texts = list(map(html.unescape, said))
        assert texts == [d.alt for d in drawn.values()]
        assert not any(set(text) & set("<>") for text in said)


FOLDERS = {
    "rate=0.1,seed=2": "./rate=0.1,seed=2/report.html",
    "javascript:alert(1)//=": "./javascript%3Aalert%281%29%2F%2F=/report.html",
    "//evil.org/=": "./%2F%2Fevil.org%2F=/report.html",
    'a="onclick': "./a=%22onclick/report.html",
    "a=?#ü": "./a=%3F%23%C3%BC/report.html",
}


@pytest.mark.parametrize(("folder", "link"), FOLDERS.items())
def test_links_of_a_sweep_lead_to_folders_beside_it(folder, link):
    shown = report.render_sweep("sweep", {}, {folder: ["Nothing."]})
    assert re.findall('<a href="([^"]*)"', shown) == [link]


def test_a_dollar_in_a_name_is_no_formula():
    networks = [
        dataclasses.replace(n, variant="a=$\\frac{$")
        for n in studies.study(np.random.default_rng(0), 1)
    ]
    assert figures.compare(networks)


def test_names_of_curves_are_escaped():
    networks = [
        dataclasses.replace(n, variant="<b>") if n.level else n
        for n in studies.study(np.random.default_rng(0), 1)
    ]
    networks += studies.study(np.random.default_rng(0), 1)
    assert "<b>" not in page(networks).replace("<b>Figure", "")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize("lacking", ["", "test", "validation", "curve"])
def test_a_run_that_lacks_something_has_a_report(count, levels, lacking):
    networks = [
        dataclasses.replace(
            n,
            row={k: v for k, v in n.row.items() if not _of(k, lacking)},
            per_example={
                k: v for k, v in n.per_example.items() if k != lacking
            },
            curve={} if lacking else n.curve,
        )
        for n in studies.study(np.random.default_rng(0), count, levels=levels)
    ]
    shown = page(networks, claims.check(networks, studies.LENET, True), {})
    assert "<h2>Levels</h2>" in shown
    assert "nan" not in shown.replace("base64", "")[:4_000]


def _of(column, lacking):
    return column.startswith(f"{lacking}_") or (
        lacking == "validation" and column == "early_stop_step"
    )


def test_a_report_without_a_verdict_says_why():
    row = {"density": 1.0, "test_accuracy": 0.9}
    bare = studies.Network(0, 0, "ticket", row)
    assert "a verdict needs validation data" in page([bare])


CHANGES = {
    "nothing": {},
    "grown": {"controls": ("reinit", "shuffle"), "replicates": 3, "seed": 4},
    "other settings": {
        "rates": {"output": 0.3, "*conv*": 0.1},
        "learning_rate": 0.1,
        "warmup": "1ep",
        "milestones": ("2ep", "30it"),
        "initial_weights": "my weights.h5",
    },
}


@pytest.mark.parametrize("scale", ["quick", "paper"])
@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_command_makes_the_same_run(preset, scale, change):
    config = presets.get(preset, scale).replace(change)
    words = shlex.split(command.command(preset, vars(config), "some dir"))
    arguments = __main__._parser().parse_args(words[1:])
    assert arguments.run_dir == "some dir"
    assert cli.run.configs(arguments) == {"": config}
    if not change:
        assert f"--scale {scale}" in " ".join(words)
        assert len(words) == 7


def test_the_command_of_a_deterministic_run_asks_for_one():
    settings = vars(presets.get("lenet_mnist", "quick"))
    text = command.command("lenet_mnist", settings, "d", deterministic=True)
    arguments = __main__._parser().parse_args(shlex.split(text)[1:])
    assert arguments.deterministic
    plain = command.command("lenet_mnist", settings, "d")
    assert "--deterministic" not in plain


@pytest.mark.parametrize(
    ("preset", "settings"), [("", SETTINGS), ("mine", SETTINGS)]
)
def test_a_run_of_no_preset_has_no_command(preset, settings):
    assert command.command(preset, settings) == ""


def test_hardware_is_named():
    known = provenance.hardware()
    assert known["processor"]
    assert known["cores"] >= 1
    assert known["GPU"]
