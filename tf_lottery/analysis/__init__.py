"""This package knows how runs are read: one question a file.

It takes records and returns rows, verdicts, figures and the report.
"""

from tf_lottery.analysis import winning

__all__ = ["winning"]
