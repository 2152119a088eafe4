"""Files of ``lifeguard.yaml`` with mistakes put in by chance: told in a few lines, or meant so.

``LIFEGUARD_TORTURE=1`` tries 10,000 files instead of 1,000.
"""

from __future__ import annotations

import os
import random
import re
from typing import Any

from ruamel.yaml import YAML

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.config import Config
from test_config import WHOLE

FILES = 10_000 if os.getenv("LIFEGUARD_TORTURE") else 1_000
SEED = 16
LINES_MAX = 10
LINE_MAX = 500

FILE = f"""{WHOLE}\
  shared: &shared {{limit: 2}}
  also: *shared
  merged: {{<<: *shared, rate: 1/hour}}
  "in_quotes": 3
"""

PIECES = (
    *"{}[]()&*!|>'\"%@`#,:?-+=~\\/<^$; \t\n\r\0\x07é😀\u2028\ufeff",
    "\n\n", "  ", "---\n", "...\n", "%YAML 1.1\n", "!include ", "!!int ", "!ENV ", "<<: ", "*a", "&a ", "? ", "- ",
    ": ", "null", "true", "0x", "0b_", "1e9", ".nan", "-1", "2020-99-99", "9" * 30, '"C:\\tables"', "{asset}",
    "[{partition}]", "engine: lifeguard\n", "pools:\n", "rules: []\n", "\\ud800", "group:a", "[" * 60, "- " * 60,
)  # fmt: skip


def mutated(chance: random.Random, text: str) -> str:
    """The text with one to four mistakes in it."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        lines = text.splitlines(keepends=True) or [""]
        at, line = chance.randrange(len(text) + 1), chance.randrange(len(lines))
        match chance.randrange(9):
            case 0:
                text = text[:at] + text[at + chance.randrange(1, 4) :]
            case 1 | 2:
                text = text[:at] + chance.choice(PIECES) + text[at:]
            case 3:
                text = text[:at] + chance.choice(PIECES) + text[at + 1 :]
            case 4:
                lines[line] = chance.choice(("", " ", "    ", "\t")) + lines[line].lstrip()
                text = "".join(lines)
            case 5:
                lines.insert(chance.randrange(len(lines)), lines[line])
                text = "".join(lines)
            case 6:
                del lines[line]
                text = "".join(lines)
            case 7:
                words = re.findall(r"\w+", text) or [""]
                text = text.replace(chance.choice(words), chance.choice(words), 1)
            case 8:
                text = text[:at]
    return text


def said(text: str) -> dict[str, Any]:
    """What the text says to another reader of YAML, each pool written as a mapping."""
    document = YAML(typ="safe", pure=True).load(text.removeprefix("\ufeff")) or {}
    pools = document.get("pools", {}).items()
    spelled = {name: spec if isinstance(spec, dict) else {"limit": spec} for name, spec in pools}
    return document | ({"pools": spelled} if "pools" in document else {})


def understood(config: Config) -> dict[str, Any]:
    """What the reader took from the text, and nothing that is only by default."""
    found = config.model_dump(exclude_unset=True, mode="json")
    assert all(rule.terms is not None for rule in config.rules)
    list(config.pools_beyond_stock())
    return found


def test_a_mistake_is_told_in_a_few_lines_and_nothing_is_ignored() -> None:
    chance = random.Random(SEED)
    refused = 0
    for number in range(FILES):
        text = mutated(chance, FILE)
        try:
            config = Config.from_text(text, "f.yaml")
        except ConfigError as error:
            refused += 1
            lines = str(error).splitlines()
            assert 1 <= len(lines) <= LINES_MAX, (number, text, lines)
            placed = [re.fullmatch(r"f\.yaml(:\d+:\d+)?: .+", line) for line in lines]
            assert all(placed), (number, text, lines)
            assert max(map(len, lines)) <= LINE_MAX, (number, text)
            assert all(line.isprintable() for line in lines), (number, text, lines)
        else:
            assert understood(config) == said(text), (number, text)
    assert FILES / 2 < refused < FILES, "the mistakes are too harmless, or too hard, to tell much"


def test_the_file_itself_has_no_mistake() -> None:
    assert understood(Config.from_text(FILE, "f.yaml")) == said(FILE)
