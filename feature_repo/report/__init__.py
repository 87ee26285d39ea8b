"""Coverage, freshness, lengths, duplicates and drift of the features, computed over the sources of the views."""

from feature_repo.report.making import FeatureReport, make_report
from feature_repo.report.storage import forget_pins, note_run

__all__ = ["FeatureReport", "forget_pins", "make_report", "note_run"]
