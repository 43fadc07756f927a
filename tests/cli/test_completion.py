"""Completion in the shells themselves, against what argparse knows."""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from vqkit import cli

BASH = """source {file}
COMP_WORDS=(vqkit {words}) COMP_CWORD={place}
_vqkit
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
# What the completion system of an interactive zsh would be asked to show.
ZSH = """compdef() {{ }}
_describe() {{ print -l -- "${{(@P)2%%:*}}" }}
compadd() {{ print -l -- "${{(@P)2}}" }}
_files() {{ print files }}
source {file}
words=(vqkit {words}) CURRENT={place}+1
_vqkit
"""
FISH = "source {file}; complete -C 'vqkit {line}'"
SHELLS = [name for name in ("bash", "zsh", "fish") if shutil.which(name)]


@pytest.fixture(scope="module", params=SHELLS)
def complete(request, tmp_path_factory):
    """What a shell offers behind `vqkit` and a line, whose last word has just begun."""
    shell = request.param
    file = tmp_path_factory.mktemp("completion") / shell
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["completion", shell]) == 0
    file.write_text(out.getvalue(), encoding="utf-8")
    return lambda line: offered(shell, file, line)


def offered(shell: str, file: Path, line: str) -> set[str]:
    *before, last = line.split(" ")
    words = " ".join([*before, f"'{last}'"])
    script = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell]
    text = script.format(file=file, words=words, place=len(before) + 1, line=line)
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run([shell, *flags, "-c", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    found = {row.split("\t")[0] for row in done.stdout.splitlines() if row}
    return {word for word in found if word.startswith(last)}


def test_verbs_are_those_of_the_command_line(complete):
    assert complete("") >= set(cli.COMMANDS)
    assert complete("tr") == {"train", "train-coder", "train-prior"}
    assert complete("tokens ") >= {"materialize", "decode", "info", "verify"}


def test_options_are_those_of_the_verb(complete):
    (subparsers,) = (
        one for one in cli.build_parser()._actions if isinstance(one, argparse._SubParsersAction)
    )
    for verb in ("train", "compress", "info"):
        flags = [flag for one in subparsers.choices[verb]._actions for flag in one.option_strings]
        wanted = {flag for flag in flags if flag.startswith("--")}
        assert complete(f"{verb} photos --") == wanted
    # Another verb of the same name below tokens has options of its own.
    assert "--device" not in complete("tokens info ds --")


def test_values_are_the_choices(complete):
    assert complete("evaluate runs photos --split ") >= {"train", "validation", "test", "all"}
    assert complete("evaluate runs photos --split te") == {"test"}
    assert complete("tokens materialize ds --order c") == {"coarse-first"}
    assert complete("completion z") == {"zsh"}


def test_an_unknown_shell_is_refused(capsys):
    assert cli.main(["completion", "csh"]) == 2
    assert "invalid choice: 'csh'" in capsys.readouterr().err
