"""This module knows how fish completes words."""

from collections.abc import Sequence

from tf_lottery.cli.completion.specification import Command, Typed


def script(commands: Sequence[Command]) -> str:
    """Returns the script."""
    lines = ["# fish completion of tf-lottery", "complete -c tf-lottery -f"]
    alone = "-n __fish_use_subcommand"
    lines.append(f"complete -c tf-lottery {alone} -l help -d 'show help'")
    lines.append(f"complete -c tf-lottery {alone} -l version")
    for command in commands:
        lines.append(
            f"complete -c tf-lottery {alone} -a {command.name}"
            f" -d {_quoted(command.help)}"
        )
        seen = f"-n '__fish_seen_subcommand_from {command.name}'"
        lines += [
            f"complete -c tf-lottery {seen} {_word(word)}"
            for word in command.words
        ]
    return "\n".join(lines)


def _word(word: Typed) -> str:
    parts = [_value(word)]
    if word.flag:
        parts.insert(0, f"-l {word.flag.removeprefix('--')}")
        parts.append(f"-d {_quoted(word.help)}")
    return " ".join(part for part in parts if part)


def _value(word: Typed) -> str:
    if not word.metavar:
        return ""
    # -x: a value follows, and it is no file; -F: it is one.
    taken = "-x " if word.flag else ""
    if word.place == "file":
        return "-r -F" if word.flag else "-F"
    if word.place == "directory":
        return f"{taken}-a '(__fish_complete_directories)'"
    end = "=" if word.end == "=" else ""
    known = " ".join(f"{value}{end}" for value in word.values)
    if word.end == ",":
        known = f'(__fish_complete_list , "string split \\" \\" \\"{known}\\"")'
    return f"{taken}-a {_quoted(known)}" if known else taken.strip()


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
