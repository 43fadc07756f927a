"""Completion for shells, generated from the parser: `vqkit completion bash|zsh|fish`."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from .printing import Commands, say

HOW = """vqkit completion bash > ~/.local/share/bash-completion/completions/vqkit
vqkit completion zsh > ~/.zfunc/_vqkit        (with fpath=(~/.zfunc $fpath) before compinit)
vqkit completion fish > ~/.config/fish/completions/vqkit.fish"""


class Option(NamedTuple):
    """flags: such as ('-h', '--help'). choices: of its value, if these are all. takes: a value."""

    flags: tuple[str, ...]
    help: str
    choices: tuple[str, ...]
    takes: bool


class Verb(NamedTuple):
    """What can follow a verb. path: the words that lead there, "" at the top. inner: verbs below
    it, with their help. choices: of the first argument, if these are all.
    """

    path: str
    inner: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]
    choices: tuple[str, ...]


def verbs(parser: argparse.ArgumentParser, path: str = "") -> Iterator[Verb]:
    """The parser and all below it."""
    inner: dict[str, str] = {}
    options = []
    choices: tuple[str, ...] = ()
    below = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner = {one.dest: one.help or "" for one in action._choices_actions}
            below = [(f"{path} {name}".strip(), each) for name, each in action.choices.items()]
        elif action.option_strings:
            options.append(_option(action))
        elif action.choices is not None and not choices:
            choices = tuple(map(str, action.choices))
    yield Verb(path, tuple(inner.items()), tuple(options), choices)
    for name, each in below:
        yield from verbs(each, name)


def _option(action: argparse.Action) -> Option:
    text = re.sub(r"\s+", " ", (action.help or "").replace("%%", "%"))
    choices = tuple(map(str, action.choices or ()))
    return Option(tuple(action.option_strings), text, choices, action.nargs != 0)


def bash(found: Sequence[Verb]) -> str:
    cases = []
    for verb in found:
        words = [name for name, _ in verb.inner] + list(verb.choices)
        flags = [flag for option in verb.options for flag in option.flags]
        values = []
        for option in verb.options:
            if option.takes:
                choices = shlex.quote(" ".join(option.choices))
                values.append(f"            {'|'.join(option.flags)}) words={choices} ;;")
        cases.append(f"        {shlex.quote(verb.path)})")
        cases.append(f"            words={shlex.quote(' '.join(words))}")
        cases.append(f"            flags={shlex.quote(' '.join(flags))}")
        if values:
            cases += ['            case "$before" in', *values, "            esac"]
        cases.append("            ;;")
    groups = "|".join(verb.path for verb in found if verb.path and verb.inner) or "-"
    return f"""# bash completion for vqkit
_vqkit() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD - 1]}}"
    local at="" words="" flags="" index
    for ((index = 1; index < COMP_CWORD; index++)); do
        [[ "${{COMP_WORDS[index]}}" == -* ]] && continue
        case "$at" in
            ""|{groups}) at="${{at:+$at }}${{COMP_WORDS[index]}}" ;;
        esac
    done
    case "$at" in
{chr(10).join(cases)}
    esac
    [[ "$word" == -* ]] && words="$flags"
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _vqkit vqkit
"""


def zsh(found: Sequence[Verb]) -> str:
    cases = []
    for verb in found:
        words = [_described(name, text) for name, text in verb.inner]
        words += [_described(choice, "") for choice in verb.choices]
        flags = [_described(flag, option.help) for option in verb.options for flag in option.flags]
        cases.append(f"        {shlex.quote(verb.path)})")
        cases.append(f"            words_here=({' '.join(words)})")
        cases.append(f"            flags=({' '.join(flags)})")
        cases.append('            case "$before" in')
        for option in verb.options:
            if option.choices:
                choices = " ".join(map(shlex.quote, option.choices))
                cases.append(f"                {'|'.join(option.flags)}) values=({choices}) ;;")
        cases += ["            esac", "            ;;"]
    groups = "|".join(verb.path for verb in found if verb.path and verb.inner) or "-"
    return f"""#compdef vqkit
_vqkit() {{
    local at="" before="$words[CURRENT-1]" index
    local -a words_here flags values
    for ((index = 2; index < CURRENT; index++)); do
        [[ "$words[index]" == -* ]] && continue
        case "$at" in
            ""|{groups}) at="${{at:+$at }}$words[index]" ;;
        esac
    done
    case "$at" in
{chr(10).join(cases)}
    esac
    if (( $#values )); then
        compadd -a values
    elif [[ "$words[CURRENT]" == -* ]]; then
        _describe option flags
    elif (( $#words_here )); then
        _describe command words_here
    else
        _files
    fi
}}
if [[ "$funcstack[1]" == _vqkit ]]; then
    _vqkit "$@"
else
    compdef _vqkit vqkit
fi
"""


def _described(name: str, text: str) -> str:
    """A word with its description, as zsh's _describe takes it."""
    return shlex.quote(name.replace(":", "\\:") + (f":{text}" if text else ""))


def fish(found: Sequence[Verb]) -> str:
    groups = " ".join(shlex.quote(verb.path) for verb in found if verb.path and verb.inner)
    lines = [
        "# fish completion for vqkit",
        "function __vqkit_at",
        "    set -l at",
        "    for word in (commandline -opc)[2..-1]",
        "        string match -q -- '-*' $word; and continue",
        f'        if test -z "$at"; or contains -- "$at" {groups}',
        '            set at (string trim -- "$at $word")',
        "        end",
        "    end",
        '    test "$at" = "$argv[1]"',
        "end",
    ]
    for verb in found:
        begin = f'complete -c vqkit -n "__vqkit_at {_quoted(verb.path)}"'
        for name, text in verb.inner:
            lines.append(f"{begin} -f -a {_quoted(name)} -d {_quoted(text)}")
        if verb.choices:
            lines.append(f"{begin} -f -a {_quoted(' '.join(verb.choices))}")
        for option in verb.options:
            parts = [
                f"-l {flag[2:]}" if flag[1] == "-" else f"-s {flag[1]}" for flag in option.flags
            ]
            value = f" -x -a {_quoted(' '.join(option.choices))}" if option.choices else " -r"
            value = value if option.takes else ""
            lines.append(f"{begin} {' '.join(parts)}{value} -d {_quoted(option.help)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """In fish's single quotes, in which a backslash stands before a quote or a backslash."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: dict[str, Callable[[Sequence[Verb]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=list(SHELLS), help="whose completion to print")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = HOW


def _completion(options: argparse.Namespace) -> int:
    from . import build_parser

    say(SHELLS[options.shell](list(verbs(build_parser()))), end="")
    return 0


COMMANDS: Commands = {
    "completion": (_completion, "completion of verbs and options for your shell", _arguments),
}
