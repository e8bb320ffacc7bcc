"""What a comparison says, for people to read: sentences, plots and an HTML page."""

from leanconv.report.page import write_report

__all__ = ["write_report"]
