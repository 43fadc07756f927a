"""HTML report, model card and pictures from the results of a run. Reads results only; matplotlib is imported late."""

from __future__ import annotations

from .card import add_prior_to_card, write_card
from .page import write_report
from .pictures import comparison_sheet
from .prior_page import write_prior_report
from .prior_verdict import derived_figures
from .sheets import animation, contact_sheet, write_prior_pictures
from .summary import PriorSummary, Ranked, RunSummary

__all__ = [
    "PriorSummary",
    "Ranked",
    "RunSummary",
    "add_prior_to_card",
    "animation",
    "comparison_sheet",
    "contact_sheet",
    "derived_figures",
    "write_card",
    "write_prior_pictures",
    "write_prior_report",
    "write_report",
]
