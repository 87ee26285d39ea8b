"""What ``feast apply`` reads: every entity, view and service of this repository."""

from pathlib import Path

from feature_repo.objects import feast_objects

# Feast collects the module's globals. Add objects of your own below.
globals().update(feast_objects(Path(__file__).parent))
