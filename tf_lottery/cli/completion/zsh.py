"""This module knows how zsh completes words."""

from collections.abc import Sequence

from tf_lottery.cli.completion.specification import Command, Typed

_SCRIPT = r"""#compdef tf-lottery
_tf_lottery() {
    local state line
    local -a commands=(
%(commands)s
    )
    _arguments -C '--help[show help]' '--version[show the version]' \
        '1:command:->command' '*::argument:->argument'
    case $state in
        command) _describe command commands ;;
        argument)
            case $line[1] in
%(cases)s
            esac ;;
    esac
}
if [[ $funcstack[1] == _tf_lottery ]]; then
    _tf_lottery "$@"
else
    compdef _tf_lottery tf-lottery
fi"""


def script(commands: Sequence[Command]) -> str:
    """Returns the script."""
    return _SCRIPT % {
        "commands": "\n".join(
            f"        {_quoted(f'{c.name}:{c.help}')}" for c in commands
        ),
        "cases": "\n".join(
            f"                {c.name}) _arguments {_specs(c)} ;;"
            for c in commands
        ),
    }


def _specs(command: Command) -> str:
    specs = [
        # A flag may be given again where it takes one setting each time.
        f"{'*' if w.end == '=' else ''}{w.flag}{'=' if w.metavar else ''}"
        f"[{_plain(w.help)}]{_value(w)}"
        for w in command.flags
    ]
    specs += [
        f"{place}{_value(w)}" for place, w in enumerate(command.arguments, 1)
    ]
    return " ".join(map(_quoted, specs))


def _value(word: Typed) -> str:
    if not word.metavar:
        return ""
    known = " ".join(word.values)
    action = {
        "directory": "_files -/",
        "file": "_files",
    }.get(word.place, f"({known})" if known else " ")
    if word.end == ",":
        action = f"_values -s , {word.metavar} {known}"
    elif word.end == "=":
        action = f'compadd -S "" {" ".join(f"{v}=" for v in word.values)}'
    return f":{word.metavar}:{action}"


def _plain(text: str) -> str:
    return text.replace(":", "\\:").replace("[", "(").replace("]", ")")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
