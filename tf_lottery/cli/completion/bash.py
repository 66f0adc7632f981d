"""This module knows how bash completes words (3.2 and newer)."""

import shlex
from collections.abc import Sequence

from tf_lottery.cli.completion.specification import Command, Typed

_SCRIPT = r"""# bash completion of tf-lottery
_tf_lottery() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local command= known= paths= end= i found
    # bash takes --flag=value for three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for ((i = 1; i < COMP_CWORD && !${#command}; i++)); do
        case ${COMP_WORDS[i]} in %(commands)s) command=${COMP_WORDS[i]} ;; esac
    done
    case $command:$before:$word in
%(values)s
        :*:-*) known='--help --version' ;;
        :*) known='%(names)s' ;;
%(flags)s
%(arguments)s
    esac
    COMPREPLY=()
    if [[ $end == , && $word == *,* ]]; then
        found=$(compgen -P "${word%%,*}," -W "$known" -- "${word##*,}")
    else
        found=$(compgen $paths -W "$known" -S "${end/,/}" -- "$word")
    fi
    while IFS= read -r word; do
        [[ -z $word ]] || COMPREPLY+=("$word")
    done <<< "$found"
    [[ -z $end ]] || compopt -o nospace 2>/dev/null
    [[ -z $paths ]] || compopt -o filenames 2>/dev/null
}
complete -F _tf_lottery tf-lottery"""


def script(commands: Sequence[Command]) -> str:
    """Returns the script."""
    return _SCRIPT % {
        "commands": "|".join(c.name for c in commands),
        "names": " ".join(c.name for c in commands),
        "values": "\n".join(
            f"        {c.name}:{w.flag}:*){_of(w)} ;;"
            for c in commands
            for w in c.flags
            if w.metavar
        ),
        "flags": "\n".join(
            f"        {c.name}:*:-*)"
            f" known='{' '.join(w.flag for w in c.flags)}' ;;"
            for c in commands
        ),
        "arguments": "\n".join(
            f"        {c.name}:*){_of(w)} ;;"
            for c in commands
            for w in c.arguments
        ),
    }


def _of(word: Typed) -> str:
    parts = {
        "known": " ".join(word.values),
        "paths": {"directory": "-d", "file": "-f"}.get(word.place, ""),
        "end": word.end,
    }
    return "".join(f" {k}={shlex.quote(v)}" for k, v in parts.items() if v)
