"""Report of the paper's experiments: tables, figures, explanations and calibration."""

from mpt_sentiment.reporting.run import SECTIONS, ReportResult, report
from mpt_sentiment.reporting.section import Figure, Post, Section, Table

__all__ = ["SECTIONS", "Figure", "Post", "ReportResult", "Section", "Table", "report"]
