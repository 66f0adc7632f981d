"""This module knows how a report says where its numbers come from."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lottery.analysis.looks import Looks
from tf_lottery.analysis.report import page

_KNOWN = ("preset", "digest", "settings", "deterministic", "hardware")


def extent(networks: Sequence[Any], config: Mapping[str, Any]) -> str:
    """Returns in one sentence how much was trained, and what is missing."""
    count = len({n.replicate for n in networks})
    text = (
        f"{len(networks):,} trained networks, n = {count} "
        f"replicate{'s'[: count > 1]}, up to level "
        f"{max(n.level for n in networks)}."
    )
    settings = config.get("metadata", {}).get("settings", {})
    if {"replicates", "levels", "controls"} <= settings.keys():
        drawn = [int(c.partition("*")[2] or 1) for c in settings["controls"]]
        replicates = Looks.parse(settings["replicates"]).at(count)
        planned = replicates * (1 + settings["levels"] * (1 + sum(drawn)))
        if len(networks) < planned:
            text += f" The run is under way: {planned:,} are planned."
    return text


def section(
    networks: Sequence[Any], config: Mapping[str, Any], command: str
) -> str:
    """Returns settings, versions, hardware, time and command."""
    metadata = config.get("metadata", {})
    versions = {k: v for k, v in metadata.items() if k not in _KNOWN}
    seconds = sum(n.row.get("seconds", 0.0) for n in networks)
    facts = [
        ["training time", f"{_time(seconds)}, summed over networks"],
        *([[k, str(v)] for k, v in metadata.get("hardware", {}).items()]),
        *([[k, str(v)] for k, v in versions.items()]),
    ]
    if "deterministic" in metadata:
        same = "yes" if metadata["deterministic"] else "not promised"
        facts.append(["the same bytes again", same])
    settings = metadata.get("settings") or config.get("fingerprint", {})
    rows = [[name, _text(settings[name])] for name in sorted(settings)]
    whole = html.escape(json.dumps(config, indent=2, sort_keys=True))
    made = f"<pre>{html.escape(command)}</pre>" if command else ""
    return "\n".join(
        [
            "<h2>How it was made</h2>",
            made and "<p>This command makes the same run again:</p>",
            made,
            page.table(("", ""), facts, "text"),
            "<h2>Settings</h2>",
            page.table(("setting", "value"), rows, "text"),
            f"<details><summary>config.json</summary><pre>{whole}</pre>"
            "</details>",
        ]
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        parts = [f"{name}: {value[name]}" for name in sorted(value)]
        return ", ".join(parts) or "none"
    return f"{value}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
