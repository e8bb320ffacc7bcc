"""What was found, as pages of pictures and tables."""

from leanconv.report.evaluations import write_evaluation
from leanconv.report.page import write_report

__all__ = ["write_evaluation", "write_report"]
