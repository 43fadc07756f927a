"""The licence of the weights: what names one, and a model that gets one when it is finished."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ..artifact.hub import own_folder
from ..artifact.pair_store import is_pair, name_licence_of_pair
from ..artifact.record import LICENCE
from ..artifact.store import load_artifact, save_artifact
from ..errors import VqkitError
from ..report.card import put_licence_into_card
from .session import locked


def name_licence(source: str | Path, licence: str) -> None:
    """Write a licence into an artifact, or a pair, and its card; weights, ids and files stay what
    they are.

    source: a folder. Halves of a pair have licences of their own. licence: an identifier as
    apache-2.0; another one is replaced. VqkitError.
    """
    check_licence(licence)
    folder = own_folder(source)
    named = name_licence_of_pair if is_pair(folder) else _name_licence_of_model
    if named is _name_licence_of_model:
        # What is no artifact is to get no lock either.
        load_artifact(folder)
    with locked(folder):
        named(folder, licence)
        put_licence_into_card(folder, licence)


def _name_licence_of_model(folder: Path, licence: str) -> None:
    save_artifact(replace(load_artifact(folder), licence=licence), folder)


def check_licence(licence: str | None) -> None:
    """VqkitError for what is no identifier of a licence."""
    if licence is not None and not re.fullmatch(LICENCE, licence):
        raise VqkitError(
            f"'{licence}' is no identifier of a licence: write apache-2.0, cc-by-4.0 or one of "
            "your own, in letters, digits, '.', '+' and '-'"
        )
