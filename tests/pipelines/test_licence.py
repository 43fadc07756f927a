"""The licence of the weights: in the artifact, in its card, and said when it is missing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

import vqkit
from vqkit import cli
from vqkit.artifact.store import load_artifact, save_artifact
from vqkit.errors import VqkitError
from vqkit.report.card import card_text
from vqkit.report.summary import RunSummary

from ..untrained import untrained


def header(licence: str | None) -> dict:
    """What the hub reads of a card."""
    summary = RunSummary(title="x", command="x", config_yaml="x", metrics={}, licence=licence)
    return yaml.safe_load(card_text(summary, "x", []).split("---")[1])


def test_cards_name_licences_as_the_hub_does():
    assert header("Apache-2.0")["license"] == "apache-2.0"
    own = header("My-Own+2")
    assert (own["license"], own["license_name"]) == ("other", "my-own+2")
    none = header(None)
    assert (none["license"], none["license_name"]) == ("other", "not-chosen")
    assert none["library_name"] == "vqkit" and none["pipeline_tag"] == "image-to-image"


def test_a_licence_is_kept_with_the_weights_and_changes_no_id(tmp_path):
    artifact = untrained().artifact
    data = {**artifact.data, "name": "test", "channels": 3, "size": [16, 16]}
    for licence in (None, "cc-by-4.0"):
        folder = tmp_path / str(licence)
        save_artifact(replace(artifact, data=data, licence=licence), folder)
        found = load_artifact(folder)
        assert found.licence == licence and found.content_id == artifact.content_id
        tree = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert tree.get("licence") == licence and ("licence" in tree) == (licence is not None)
    tree["licence"] = "no licence, but\na sentence"
    (folder / "config.json").write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(VqkitError, match="licence"):
        load_artifact(folder)


def test_wrong_licences_are_refused_before_anything_starts(tmp_path, capsys):
    words = ["train", "emoji", "--out", str(tmp_path / "run"), "--licence", "free for all"]
    assert cli.main(words) == 2
    assert "'free for all' is no identifier of a licence" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(VqkitError, match="identifier of a licence"):
        vqkit.train("emoji", tmp_path / "run", licence="a\nb")


def test_check_names_a_missing_licence(tmp_path, capsys, monkeypatch):
    # Other instructions of the processor need processes of their own, which know no licence.
    monkeypatch.setattr("vqkit.pipelines.check.flips_elsewhere", lambda *_: {})
    artifact = untrained().artifact
    data = {**artifact.data, "name": "test", "channels": 3, "size": [16, 16]}
    for licence, said in ((None, "missing"), ("mit", "mit")):
        folder = tmp_path / str(licence)
        save_artifact(replace(artifact, data=data, licence=licence), folder)
        cli.main(["check", str(folder)])
        line = next(
            line for line in capsys.readouterr().out.splitlines() if line.startswith("licence")
        )
        assert said in line
