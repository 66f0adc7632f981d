"""What a run says of itself where there is no terminal."""

import re
import types

from tf_lottery.runs.progress import Progress

TICKET = types.SimpleNamespace(level=2, variant="ticket", density=0.64)


def said(capsys, **settings):
    progress = Progress(400, **settings)
    for step in (100, 150, 200):
        progress.advance(0, TICKET, step, {"validation_loss": 0.5})
    progress.trained(0, TICKET, {"seconds": 3.0, "steps": 200})
    progress.close()
    return capsys.readouterr().err


def test_a_log_gets_a_line_a_network_and_no_bar(capsys):
    text = said(capsys)
    assert text == "level  2  ticket    density  64.00 %  3.0 s\n"


def test_a_log_of_a_long_run_gets_lines_between(capsys):
    text = said(capsys, line_interval=0)
    assert "\r" not in text
    # A hundred of 400 steps were taken earlier.
    assert text.splitlines()[:3] == [
        "level  2  ticket    step     100  0% of the run's steps",
        "level  2  ticket    step     150  17% of the run's steps",
        "level  2  ticket    step     200  33% of the run's steps",
    ]


def test_who_asks_for_silence_gets_it(capsys):
    assert said(capsys, verbose=False, line_interval=0) == ""


def test_a_long_run_says_once_how_long_it_will_take(capsys):
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
