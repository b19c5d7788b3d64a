"""`rlm-mcp completion`: scripts with which bash, zsh and fish complete commands, flags and projects.

The scripts ask the program itself what may stand at the cursor, and that follows from its parsers: a script
that was installed once knows the flags of every later version.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from .output import OK, visible
from .parsing import Parser

_DESCRIPTION = "Print a script with which your shell completes commands, flags and the names of projects."
_EXAMPLES = """\
examples:
  eval "$(rlm-mcp completion bash)"                               in ~/.bashrc
  eval "$(rlm-mcp completion zsh)"                                in ~/.zshrc, after compinit
  rlm-mcp completion fish | source                                in ~/.config/fish/config.fish
"""
_FILES = ("", "files")  # what the scripts understand as: complete the names of files
_PATHS = frozenset(("PATH", "FILE", "FOLDER"))

_BASH = """\
_rlm_mcp() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case "$line" in
            $'\\tfiles') compopt -o default ;;
            *) COMPREPLY+=("${line%%$'\\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _rlm_mcp rlm-mcp rlm
"""
_ZSH = """\
#compdef rlm-mcp rlm
_rlm_mcp() {
    local line word
    local -a found
    for line in "${(@f)$("$words[1]" completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        word="${line%%$'\\t'*}"
        if [[ "$line" == $'\\tfiles' ]]; then _files
        elif [[ -n "$word" ]]; then found+=("${word//:/\\\\:}:${line#*$'\\t'}")
        fi
    done
    (( $#found )) && _describe 'rlm-mcp' found
}
if [[ "$funcstack[1]" == _rlm_mcp ]]; then _rlm_mcp "$@"; else compdef _rlm_mcp rlm-mcp rlm; fi
"""
_FISH = """\
function __rlm_mcp_words
    set -l words (commandline -opc)
    for line in ($words[1] completion words $words[2..-1] (commandline -ct) 2>/dev/null)
        if test "$line" = \\tfiles
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c rlm-mcp -f -a '(__rlm_mcp_words)'
complete -c rlm -f -a '(__rlm_mcp_words)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "completion",
        help="print a completion script for your shell",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument("shell", choices=_Shells(_SCRIPTS), metavar="{bash,zsh,fish}", help="your shell")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS).required = False


class _Shells(tuple[str, ...]):
    """The shells there are, and unseen among them the word by which a script asks."""

    __slots__ = ()

    def __contains__(self, word: object) -> bool:
        return word == "words" or super().__contains__(word)


def run(args: argparse.Namespace) -> int:
    """Print the script, or what may stand at the end of a line for the script that asks."""
    if args.shell in _SCRIPTS:
        sys.stdout.write(_SCRIPTS[args.shell])
        return OK
    for word, said in candidates(args.words or [""]):
        sys.stdout.write(f"{word}\t{visible(said)}\n")
    return OK


def candidates(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return what the last of `words` may become, each with what it is; an empty word stands for files."""
    from .main import parser_for

    *before, current = words
    cursor = _Cursor(parser_for(before))
    for word in before:
        cursor.pass_over(word)
    return [found for found in cursor.offers(current) if found[0].startswith(current) or found == _FILES]


class _Cursor:
    """A place on a command line: within which command, and whether the value of a flag comes next."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._flag: argparse.Action | None = None

    def pass_over(self, word: str) -> None:
        """Go behind a word."""
        if self._flag is not None:
            self._flag = None
        elif word.startswith("-"):
            flag = next((each for each in self._parser.arguments() if word in each.option_strings), None)
            self._flag = flag if flag is not None and flag.nargs != 0 else None
        else:
            self._parser = self._parser.commands().get(word, self._parser)

    def offers(self, current: str) -> Iterable[tuple[str, str]]:
        """Yield what may stand here, for a word that begins as `current` does."""
        arguments = self._parser.arguments()
        if self._flag is not None:
            yield from _values_of(self._flag)
        elif current.startswith("-"):
            for each in arguments:
                if each.help != argparse.SUPPRESS:
                    yield from ((name, each.help or "") for name in each.option_strings if len(name) > 2)
        else:
            yield from ((name, _said_of(below)) for name, below in self._parser.commands().items())
            for each in arguments:
                if not each.option_strings and each.help != argparse.SUPPRESS:
                    yield from _values_of(each)


def _said_of(parser: Parser) -> str:
    return (parser.description or "").partition("\n")[0]


def _values_of(action: argparse.Action) -> Iterable[tuple[str, str]]:
    if action.choices is not None:
        yield from ((str(choice), "") for choice in action.choices)
    elif action.metavar == "PROJECT" or "--project" in action.option_strings:
        yield from _projects()
        yield _FILES
    elif action.metavar == "TRAJECTORY":
        yield from _trajectories()
    elif action.metavar in _PATHS:
        yield _FILES


def _projects() -> Iterable[tuple[str, str]]:
    """Yield the keys of projects, which are plain and never mean two."""
    from rlm_sessions import Places

    from ..errors import DoorError
    from .opening import Ground

    try:
        root = Ground.of(argparse.Namespace(set=(), project="")).root
    except DoorError:
        return
    yield from ((each.key, each.folder or each.name) for each in Places(root).kept())


def _trajectories() -> Iterable[tuple[str, str]]:
    """Yield the ids of the newest trajectories."""
    from ..errors import DoorError
    from .logs import ids

    try:
        yield from ids()
    except DoorError:
        return
