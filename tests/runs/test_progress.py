"""Progress of a run without a terminal."""

import re
import types

from tf_lottery.runs.progress import Progress

TICKET = types.SimpleNamespace(level=2, variant="ticket", density=0.64)


def output(capsys, **settings):
    progress = Progress(400, **settings)
    for step in (100, 150, 200):
        progress.advance(0, TICKET, step, {"validation_loss": 0.5})
    progress.trained(0, TICKET, {"seconds": 3.0, "steps": 200})
    progress.close()
    return capsys.readouterr().err


def test_a_log_has_one_line_per_network_and_no_bar(capsys):
    text = output(capsys)
    assert text == "level  2  ticket    density  64.00 %  3.0 s\n"


def test_a_log_of_a_long_run_has_lines_during_training(capsys):
    text = output(capsys, line_interval=0)
    assert "\r" not in text
    # An earlier process took 100 of the 400 steps.
    assert text.splitlines()[:3] == [
        "level  2  ticket    step     100  0% of the run's steps",
        "level  2  ticket    step     150  17% of the run's steps",
        "level  2  ticket    step     200  33% of the run's steps",
    ]


def test_nothing_is_printed_unless_verbose(capsys):
    assert output(capsys, verbose=False, line_interval=0) == ""


def test_a_long_run_estimates_its_time_once(capsys):
    progress = Progress(10**15, estimate_after=0)
    for step in (100, 150, 200):
        progress.advance(0, TICKET, step, {})
    progress.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"At [\d,]+ steps a second this takes about [\d,]+ minutes more\. "
        "Fewer levels, controls, replicates or epochs take less.",
        line,
    )
