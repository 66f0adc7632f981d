"""Reading runs: comparisons, verdicts, claims, figures, the report.

It takes records and returns values and text; it trains nothing.
"""

from tf_lottery.analysis import conclusion, power, verdict

__all__ = ["conclusion", "power", "verdict"]
