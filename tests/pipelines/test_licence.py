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
from vqkit.pipelines.licence import name_licence
from vqkit.report.card import card_text
from vqkit.report.summary import RunSummary

from ..untrained import untrained


def header(licence: str | None) -> dict:
    """What the hub reads of a card."""
    summary = RunSummary(title="x", command="x", config_yaml="x", metrics={}, licence=licence)
    return yaml.safe_load(card_text(summary, "x", []).split("---")[1])


def saved(folder):
    artifact = untrained().artifact
    data = {**artifact.data, "name": "test", "channels": 3, "size": [16, 16]}
    save_artifact(replace(artifact, data=data), folder)
    return load_artifact(folder)


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


def test_check_says_that_a_licence_is_missing_and_names_one(tmp_path, capsys, monkeypatch):
    # Other instructions of the processor need processes of their own, which know no licence.
    monkeypatch.setattr("vqkit.pipelines.check.flips_elsewhere", lambda *_: {})
    saved(tmp_path)
    for words, said in (([], "missing"), (["--licence", "mit"], "mit")):
        cli.main(["check", str(tmp_path), *words])
        line = next(
            line for line in capsys.readouterr().out.splitlines() if line.startswith("licence")
        )
        assert said in line


def test_a_finished_model_gets_a_licence_and_another_one(tmp_path):
    before = saved(tmp_path)
    card = card_text(
        RunSummary(title="x", command="x", config_yaml="x", metrics={}), "x", []
    ).replace("# x", "# Mine\nlicense: as it is said below")
    (tmp_path / "README.md").write_bytes(card.encode())
    for licence, names in (("cc-by-4.0", ["cc-by-4.0", None]), ("My-Own", ["other", "my-own"])):
        name_licence(tmp_path, licence)
        found = load_artifact(tmp_path)
        assert found.licence == licence and found.content_id == before.content_id
        text = (tmp_path / "README.md").read_text(encoding="utf-8")
        told = yaml.safe_load(text.split("---")[1])
        assert [told["license"], told.get("license_name")] == names
        rest = {name: value for name, value in told.items() if not name.startswith("license")}
        assert rest == {name: value for name, value in header(None).items() if name in rest}
        assert "name a licence" not in text and text.split("---", 2)[2] == card.split("---", 2)[2]
    # As the hub's own editor writes one of several, with a link.
    listed = text.replace("license: other\n", "license:\n- mit\n  \n- bsd\nlicense_link: LICENSE\n")
    (tmp_path / "README.md").write_bytes(listed.encode())
    name_licence(tmp_path, "mit")
    told = yaml.safe_load((tmp_path / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert told == {"license": "mit", **rest}


def test_a_model_is_whole_between_the_two_files_that_name_its_licence(tmp_path):
    saved(tmp_path)
    config = (tmp_path / "config.json").read_bytes()
    name_licence(tmp_path, "mit")
    # The process ended after the weights were written.
    (tmp_path / "config.json").write_bytes(config)
    assert load_artifact(tmp_path).licence is None
    name_licence(tmp_path, "mit")
    assert load_artifact(tmp_path).licence == "mit"
    tree = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    tree["data"]["name"] = "another"
    (tmp_path / "config.json").write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(VqkitError, match="do not belong together"):
        load_artifact(tmp_path)


def test_what_is_no_licence_or_no_model_is_left_as_it_is(tmp_path, capsys):
    saved(tmp_path / "model")
    before = sorted((path.name, path.read_bytes()) for path in (tmp_path / "model").iterdir())
    assert cli.main(["check", str(tmp_path / "model"), "--licence", "free for all"]) == 2
    assert "identifier of a licence" in capsys.readouterr().err
    after = sorted((path.name, path.read_bytes()) for path in (tmp_path / "model").iterdir())
    assert before == after
    with pytest.raises(VqkitError, match="not a vqkit artifact"):
        name_licence(tmp_path, "mit")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(VqkitError, match="on the hub"):
        name_licence("hf://user/name", "mit")


def test_push_names_a_licence(tmp_path, capsys):
    saved(tmp_path)
    # What is no name on the hub is refused once the model has its licence, and nothing is sent.
    assert cli.main(["push", str(tmp_path), "no name", "--licence", "cc0-1.0"]) == 2
    assert "no model on the hub" in capsys.readouterr().err
    assert load_artifact(tmp_path).licence == "cc0-1.0"
