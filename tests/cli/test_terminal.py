"""What commands print of names from files."""

import argparse

import pytest
import sample_runs

from tf_lottery import __main__ as command_line
from tf_lottery.cli import report, terminal
from tf_lottery.core import density_table


def test_nothing_that_a_terminal_obeys_is_printed(capsys):
    terminal.show("a\x1b[2J\nb", "\x1b[32mshown\x1b[0m")
    assert capsys.readouterr().out == "\x1b[32mshown\x1b[0ma\\x1b[2J\nb\n"


def test_an_error_of_the_system_is_printed_without_them(capsys, tmp_path):
    name = str(tmp_path / "\x1b[2J")
    assert command_line.main(["report", name]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_table_of_layers_is_printed_without_them():
    row = density_table.Row(("\x1b[2J",), 1, 4)
    table = density_table.Table("\x1b[1m", ("kernel",), (row,), ("\x9b",))
    assert all(c.isprintable() or c == "\n" for c in repr(table))
    assert r"\x1b[2J" in table._repr_html_()


@pytest.mark.parametrize("name", ["figures", "report.html"])
def test_the_report_follows_no_link(name, tmp_path):
    sample_runs.fill(sample_runs.open_run(tmp_path / "run"))
    (tmp_path / "run" / name).symlink_to(tmp_path)
    with pytest.raises(ValueError, match="is a link, a pipe or a device"):
        report.execute(argparse.Namespace(run_dir=tmp_path / "run"))
