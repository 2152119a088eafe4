"""Where a lifeguard.yaml names its pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from dagster_lifeguard.policy.config import Config
from dagster_lifeguard.policy.yaml_text import parse_mapping, place_of, read_text


def pool_places(source: str) -> dict[str, str]:
    """Return, for each pool that the file declares or its rules name, ``file:line:column``.

    Of a pool that is declared it is the place of that, else the first place in a rule.

    Raises:
        ConfigError: The file cannot be read, or is no valid ``lifeguard.yaml``.
    """
    text = read_text(Path(source))
    config, document = Config.from_text(text, source), parse_mapping(text, source, YAML(typ="rt"))
    found: dict[str, str] = {}

    def note(name: str, *loc: Any, of_key: bool = False) -> None:
        line, column = place_of(document, loc, of_key=of_key)
        found.setdefault(name, f"{source}:{line}:{column}")

    for name in config.pools:
        note(name, "pools", name, of_key=True)
    for index, rule in enumerate(config.rules):
        names = [term.name for term in rule.terms]
        for place, written in enumerate(rule.pools):
            for name in names:
                if name in written:
                    note(name, "rules", index, "pools", place)
    return found
