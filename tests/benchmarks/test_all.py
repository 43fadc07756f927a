"""`make bench` goes on past a script that fails, and says so."""

import json
import sys

from . import bench


def test_a_script_that_fails_is_named_and_does_not_stop_the_others(tmp_path, monkeypatch, capfd):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    # Each script writes its own command line where it runs.
    record = "import sys; open(f'{__file__}.ran', 'w').write(' '.join(sys.argv[1:]))\n"
    (scripts / "first.py").write_text(record + "sys.exit(3)\n")
    (scripts / "second.py").write_text(record)
    figures = tmp_path / "figures" / "all.json"
    monkeypatch.setattr(sys, "argv", ["all", "--json", str(figures)])
    assert bench("all").main(scripts) == 1
    assert (scripts / "second.py.ran").read_text() == f"--quick --json {figures.parent}/second.json"
    said = capfd.readouterr().out
    assert "failed: first\n" in said
    (claim,) = json.loads(figures.read_text())
    assert claim["quick"] is True
    assert (claim["claim"], claim["value"], claim["unit"]) == ("bench_scripts_ok", 1, "of 2")
    rows = claim["settings"]["rows"]
    assert [(row["script"], row["status"]) for row in rows] == [("first", 3), ("second", 0)]
    monkeypatch.setattr(sys, "argv", ["all", "second"])
    assert bench("all").main(scripts) == 0
