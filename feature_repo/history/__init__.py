"""Every aggregate at any past time: snapshots on a grid of times, and labels joined with them by Feast."""

from feature_repo.history.features import MASKED_REASONS, FeatureHistory
from feature_repo.history.grid import snapshot_time, snapshot_times
from feature_repo.history.lock import history_lock
from feature_repo.history.snapshots import HistoryOptions, HistoryReport, forget_history, take_snapshots
from feature_repo.history.versions import remember_pins

__all__ = [
    "MASKED_REASONS",
    "FeatureHistory",
    "HistoryOptions",
    "HistoryReport",
    "forget_history",
    "history_lock",
    "remember_pins",
    "snapshot_time",
    "snapshot_times",
    "take_snapshots",
]
