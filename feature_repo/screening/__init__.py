"""Which texts of the outside are left out, and why: documented rules that ``screening.yaml`` can change."""

from feature_repo.screening.languages import guess_language, language_code, other_language
from feature_repo.screening.limits import Limits, Purpose
from feature_repo.screening.rules import RULES_FILE
from feature_repo.screening.screen import Screening

__all__ = ["RULES_FILE", "Limits", "Purpose", "Screening", "guess_language", "language_code", "other_language"]
