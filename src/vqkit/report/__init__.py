"""HTML report, model card and pictures from the results of a run. Reads results only; matplotlib is imported late."""

from __future__ import annotations

from .card import write_card
from .page import write_report
from .pictures import comparison_sheet
from .sheets import animation, contact_sheet, write_prior_pictures
from .summary import Ranked, RunSummary

__all__ = [
    "Ranked",
    "RunSummary",
    "animation",
    "comparison_sheet",
    "contact_sheet",
    "write_card",
    "write_prior_pictures",
    "write_report",
]
