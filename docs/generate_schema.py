"""Write the JSON schema of lifeguard.yaml from the models that read it; --check only compares."""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docstring_parser import parse

from dagster_lifeguard.engine.rules.rate import UNITS
from dagster_lifeguard.policy.config import Config, PoolSpec, Rule

if TYPE_CHECKING:
    from pydantic import BaseModel

FILE = Path(str(files("dagster_lifeguard.policy"))) / "lifeguard.schema.json"
TERM = r"([^\s+*{}]|\{[^{}]*\})+(\*\d+)?"
EXPRESSION = rf"^{TERM}(\+{TERM})*$"


def schema() -> dict[str, Any]:
    """Return the schema: what pydantic knows, with help for each key and what validators add."""
    whole = Config.model_json_schema()
    definitions = whole["$defs"]
    for model, part in (
        (Config, whole),
        *((model, definitions[model.__name__]) for model in (Rule, PoolSpec)),
    ):
        _describe(model, part)
    rule, pool = definitions["Rule"]["properties"], definitions["PoolSpec"]["properties"]
    rule["pools"]["items"].update(minLength=1, pattern=EXPRESSION)
    rule["assets"]["examples"] = ["*", "group:raw", "kind:snowflake", "tag:daily", 'key:"raw/*"']
    rule["pools"]["examples"] = [["{asset}"], [], ["{asset}", "warehouse*2"]]
    pool["rate"]["anyOf"][0]["pattern"] = rf"^[1-9]\d*/({'|'.join(UNITS)})$"
    pool["order"]["pattern"] = r"^(fifo|fair\((tag:[^\s()]+|backfill)\))$"
    definitions["PoolSpec"] |= {
        "if": {"required": ["burst"], "properties": {"burst": {"type": "integer"}}},
        "then": {"required": ["rate"], "properties": {"rate": {"type": "string"}}},
    }
    pools = whole["properties"]["pools"]
    pools["propertyNames"] = {"pattern": r"^\S+$"}
    # A pool may be a number, its limit.
    pools["additionalProperties"] = {"anyOf": [pool["limit"], pools["additionalProperties"]]}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",  # what every editor knows
        **whole,
        "title": "lifeguard.yaml",
    }


def _describe(model: type[BaseModel], part: dict[str, Any]) -> None:
    """Put the docstring of a model where an editor shows it: at the mapping and at each key."""
    docstring = parse(model.__doc__ or "")
    part["description"] = _plain(docstring.short_description)
    help_texts = {item.arg_name: item.description for item in docstring.params}
    for name, field in part["properties"].items():
        field["description"] = _plain(help_texts[name])
        field["title"] = name


def _plain(text: str | None) -> str:
    return " ".join((text or "").split()).replace("``", "`")


def text() -> str:
    """Return what the file is to say."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text(), encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != text():
        sys.exit(f"{FILE.name} is not as generated; run: python docs/generate_schema.py")
