"""``lifeguard.yaml``: what it may say, and where exactly it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from dagster_lifeguard import Policy, PoolSpec, Rule
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.config import FILE_SIZE_MAX_BYTES, Config

WHOLE = """\
# one file
engine: stock
naming: path
default_limit: 2
rules:
  - assets: "group:scratch"
    pools: []
  - assets: "kind:snowflake"
    pools: ["warehouse"]
    override: true
    checks: true
  - assets: "*"
    pools: ["{asset}"]
pools:
  warehouse: 8
  paused: {limit: 0}
  plain: {}
  stripe_api: {limit: 4, rate: 100/minute}
  mail: {rate: 5/second, burst: 20}
  teams: {limit: 4, order: fair(tag:team)}
  backfills: {limit: 4, order: fair(backfill)}
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "lifeguard.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(tmp_path: Path, text: str) -> list[str]:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Config.from_yaml(file)
    return [line.removeprefix(f"{file}:") for line in caught.value.message.splitlines()]


def test_a_whole_file(tmp_path: Path) -> None:
    assert Config.from_yaml(write(tmp_path, WHOLE)) == Config(
        engine="stock",
        naming="path",
        default_limit=2,
        rules=(
            Rule(assets="group:scratch", pools=()),
            Rule(assets="kind:snowflake", pools=("warehouse",), override=True, checks=True),
            Rule(assets="*", pools=("{asset}",)),
        ),
        pools={
            "warehouse": PoolSpec(limit=8),
            "paused": PoolSpec(limit=0),
            "plain": PoolSpec(),
            "stripe_api": PoolSpec(limit=4, rate="100/minute"),
            "mail": PoolSpec(rate="5/second", burst=20),
            "teams": PoolSpec(limit=4, order="fair(tag:team)"),
            "backfills": PoolSpec(limit=4, order="fair(backfill)"),
        },
    )


def test_rates_of_pools(tmp_path: Path) -> None:
    pools = Config.from_yaml(write(tmp_path, WHOLE)).pools
    assert pools["stripe_api"].settings.rate == Rate(100, 60)
    assert pools["mail"].settings.rate == Rate(5, 1, burst=20)
    assert pools["warehouse"].settings.rate is None


def test_orders_of_pools(tmp_path: Path) -> None:
    pools = Config.from_yaml(write(tmp_path, WHOLE)).pools
    found = {name: pools[name].settings.fair_by for name in ("teams", "backfills", "mail")}
    assert found == {"teams": "team", "backfills": "dagster/backfill", "mail": None}


def test_limits_of_pools(tmp_path: Path) -> None:
    config = Config.from_yaml(write(tmp_path, WHOLE))
    assert [config.limit_of(p) for p in ("warehouse", "paused", "plain", "other")] == [8, 0, 2, 2]
    assert Config(default_limit=None).limit_of("other") is None


def test_an_empty_file_is_the_default_policy(tmp_path: Path) -> None:
    for text in ("", "# nothing yet\n", "---\n"):
        assert Policy.from_yaml(write(tmp_path, text)) == Policy()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "rule: []\n",
            ["1:1: unknown key 'rule'; allowed: engine, naming, default_limit, rules, pools. Did you mean 'rules'?"],
        ),
        (
            "engine: stock\nnaming: underscor\n",
            ["2:9: naming: 'underscor' is not allowed; allowed: underscore, path. Did you mean 'underscore'?"],
        ),
        (
            "engine: dagster\n",
            ["1:9: engine: 'dagster' is not allowed; allowed: stock, lifeguard."],
        ),
        (
            'rules:\n  - assets: "*"\n    pool: [x]\n',
            [
                "2:5: rules[0]: the key 'pools' is missing.",
                "3:5: unknown key 'pool'; allowed: assets, partitioned, io_manager, resource, pools, override, checks, on_conflict, hold. Did you mean 'pools'?",
            ],
        ),
        (
            'rules:\n  - assets: "*"\n    pools: [{asset}]\n',
            ['3:13: rules[0].pools[0]: YAML reads braces as a mapping; write it in quotes: "{asset}".'],
        ),
        (
            "rules:\n  - assets: *\n    pools: []\n",
            ["2:14: not valid YAML: expected alphabetic or numeric character, but found '\\n'. An asset selection of all assets is written in quotes: \"*\"."],
        ),
        (
            'rules:\n  - assets: "*"\n    pools: ["a b", "x"]\n',
            ["3:12: rules[0].pools: 'a b+x' is not a pool expression. Write a name, or name*slots, joined by '+'; a name has no spaces, '+', '*' or single braces."],
        ),
        (
            'rules:\n  - assets: "*"\n    pools: ["{assets}"]\n',
            ["3:12: rules[0].pools: '{assets}' is not a template. Templates are {asset}, {group}, {kind}, {owner}, {io_manager}, {resource}, {tag:KEY}, {metadata:KEY}, {partition}."],
        ),
        (
            "pools:\n  a: -1\n  b: 1001\n  c: many\n  d: {limt: 3}\n",
            [
                "2:6: pools.a.limit: -1: input should be greater than or equal to 0.",
                "3:6: pools.b.limit: 1001: input should be less than or equal to 1000.",
                "4:6: pools.c.limit: 'many': input should be a valid integer.",
                "5:7: unknown key 'limt'; allowed: limit, rate, burst, order. Did you mean 'limit'?",
            ],
        ),
        (
            "pools:\n  api: {rate: 5 per minute}\n",
            ["2:15: pools.api.rate: '5 per minute' is not a rate. Write N/second, N/minute, N/hour, N/day, such as 100/minute."],
        ),
        (
            "pools:\n  a: {order: fair}\n  b: {order: fair(tag:)}\n  c: {order: 3}\n",
            [
                "2:14: pools.a.order: 'fair' is not an order. Write fifo, fair(tag:NAME) or fair(backfill).",
                "3:14: pools.b.order: 'fair(tag:)' is not an order. Write fifo, fair(tag:NAME) or fair(backfill).",
                '4:14: pools.c.order: 3 is no text to YAML; write it in quotes: "3".',
            ],
        ),
        (
            "pools:\n  api: {rate: 9999999/second}\n",
            ["2:15: pools.api.rate: A rate with starts 9999999 is out of bounds. Give starts from 1 to 1,000,000."],
        ),
        (
            "pools:\n  a: {burst: 3}\n  b: {rate: 5/second, burst: 0}\n  c: {rate: soon, burst: 2}\n",
            [
                "2:14: pools.a.burst: a burst is part of a rate; give a rate too, such as 100/minute.",
                "3:30: pools.b.burst: 0: input should be greater than or equal to 1.",
                "4:13: pools.c.rate: 'soon' is not a rate. Write N/second, N/minute, N/hour, N/day, such as 100/minute.",
            ],
        ),
        (
            "pools:\n  a b: 1\n",
            ["2:3: pools: 'a b' is no pool's name, which has no white space."],
        ),
        (
            "pools:\n  '{hold:step}a+b': 1\n",
            ["2:3: pools: '{hold:step}a+b' is a pool expression and has neither a limit nor a rate of its own. Set those of its pools: a, b."],
        ),
        (
            "pools:\n  '{all}d[*]': 3\n",
            ["2:3: pools: '{all}d[*]' stands for all partitions: it always has 1000 slots. To limit or pause partitions together, let their rule name one more pool, such as orders[{partition}]+orders, and set that."],
        ),
        (
            'rules:\n  - assets: "*"\n    pools: []\n    on_conflict: skip\n',
            ["4:18: rules[0].on_conflict: 'skip' is not allowed; allowed: queue, skip_new, cancel_running, replace_queued. Did you mean 'skip_new'?"],
        ),
        ("default_limit: true\n", ["1:16: default_limit: true: input should be a valid integer."]),
        ("default_limit: '1'\n", ["1:16: default_limit: '1': input should be a valid integer."]),
        ("rules: 3\n", ["1:8: rules: 3 is not a list; write [...]."]),
        ("rules: [a]\n", ["1:9: rules[0]: 'a' is not a mapping with assets, partitioned, io_manager, resource, pools, override, checks, on_conflict, hold."]),
        ("pools: 3\n", ["1:8: pools: 3 is not a mapping."]),
        ("default_limit: 2020-99-99\n", ["1:16: not a value in YAML: month must be in 1..12. Write it in quotes."]),
        ("default_limit: !!bool x\n", ["1:16: the tag !!bool is not read here; write the value itself, without a tag."]),
        ("default_limit: !!int ''\n", ["1:16: the tag !!int is not read here; write the value itself, without a tag."]),
        ("- a\n", ["1:1: expected settings as key: value; found a list or a single value."]),
        ("a: [1\n", ["2:1: not valid YAML: expected ',' or ']', but got '<stream end>'."]),
        ("engine: stock\nengine: stock\n", ['2:1: the key "engine" stands here a second time; take one of the two out.']),
    ],
)  # fmt: skip
def test_each_problem_has_its_place_and_what_is_allowed(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    assert problems(tmp_path, text) == expected


RULE = 'rules:\n  - assets: "*"\n    pools: '


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rules: !include rules.yaml\n", "1:8: the tag !include is not read here; write the value itself, without a tag."),
        ("pools: !!omap [a: 1]\n", "1:8: the tag !!omap is not read here; write the value itself, without a tag."),
        ("!mine\nengine: stock\n", "1:1: the tag !mine is not read here; write the value itself, without a tag."),
        ("rules:\n  - assets: 'group:a\n    pools: []\n", "2:13: the quote that opens here is not closed."),
        ('rules:\n  - assets: "group:a\n    pools: ["{asset}"]\n', "2:13: the quote that opens here is closed only in line 3; close it in its own line."),
        (RULE + r'["C:\tables"]', r"3:13: in double quotes YAML reads a backslash and a letter as a control character; write it in single quotes: 'C:\tables'"),
        (RULE + r'["C:\data"]', r"3:17: not valid YAML: found unknown escape character 'd'. In double quotes a backslash begins an escape; write it in single quotes: 'C:\data'"),
        (RULE + "[{asset}[{partition}]]", """3:20: not valid YAML: expected ',' or ']', but got '['. Write a template in quotes: "{asset}[{partition}]"."""),
        (RULE + "\n      - {asset}*2", """4:16: not valid YAML: expected <block end>, but found '<alias>'. Write a template in quotes: "{asset}*2"."""),
        (RULE + "{asset}", """3:12: rules[0].pools: {'asset': None} is not a list; write ["{asset}"]."""),
        (RULE + "warehouse", """3:12: rules[0].pools: 'warehouse' is not a list; write ["warehouse"]."""),
        (RULE + "[{tag: team}]", """3:13: rules[0].pools[0]: YAML reads braces as a mapping; write it in quotes: "{tag:team}"."""),
        ("rules:\n\t- assets: a\n", "2:1: not valid YAML: found character '\\t' that cannot start any token. Indent with spaces, not with tabs."),
        ("pools:\n  @a: 1\n", "2:3: not valid YAML: found character '@' that cannot start any token. Write a value that begins with it in quotes."),
        ("engine: stock\n---\nnaming: path\n", "2:1: not valid YAML: but found another document. Keep all settings in one document, without a second ---."),
        ("engine: st\x07ock\n", "1:11: the character #x0007 is not allowed in YAML; delete it."),
        ("pools:\n  1: 3\n", '2:3: a key that is no text; write it in quotes: "1".'),
        ("? [a, b]\n: 3\n", "1:3: a key that is no text; write a name."),
        ("pools: &a\n  x: *a\n", "2:6: *a stands inside what it stands for."),
        ("rules: " + "[" * 2000, "1:57: nested deeper than 50."),
        ("default_limit: " + "9" * 5000, "1:16: not a value in YAML: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; use sys.set_int_max_str_digits() to increase the limit. Write it in quotes."),
    ],
)  # fmt: skip
def test_what_yaml_makes_of_a_slip_is_told_with_what_to_write(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert problems(tmp_path, text) == [expected]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lifeguard init"):
        Config.from_yaml(tmp_path / "none.yaml")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "lifeguard.yaml"
    file.write_bytes(b"engine: \xff\n")
    with pytest.raises(ConfigError, match=r"lifeguard.yaml:1:9: the byte 0xFF is not UTF-8; save"):
        Config.from_yaml(file)
    file.write_bytes("pools:\n  Größe: 3\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"lifeguard.yaml:2:5: the byte 0xF6 is not UTF-8; save"):
        Config.from_yaml(file)
    file.write_bytes("engine: stock\n".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"lifeguard.yaml:1:1: not UTF-8 but UTF-16; save"):
        Config.from_yaml(file)


def test_a_mark_before_utf_8_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "lifeguard.yaml"
    file.write_text('default_limit: 3\npools: {"C:\\t": 1}\n', encoding="utf-8-sig")
    with pytest.raises(ConfigError, match=r"2:9: in double quotes .*: 'C:\\t'$"):
        Config.from_yaml(file)
    file.write_text("default_limit: 3\n", encoding="utf-8-sig")
    assert Config.from_yaml(file).default_limit == 3


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too large"):
        Config.from_yaml(write(tmp_path, "#" * (FILE_SIZE_MAX_BYTES + 1)))


def test_aliases_cannot_make_a_small_file_huge(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    (problem,) = problems(tmp_path, "\n".join(lines))
    assert problem == "1:1: more than 100,000 values."


def test_what_is_wrong_is_told_briefly(tmp_path: Path) -> None:
    many = "[" + "x, " * 1000 + "]"
    first, *_, last = problems(tmp_path, f"rules:\n  - assets: {many}\n    pools: [{'[], ' * 50}]")
    assert first == "2:13: rules[0].assets: ['x', 'x', 'x', ...]: input should be a valid string."
    assert last == " 42 problems more."


def test_in_python_a_mistake_is_pydantics_error() -> None:
    with pytest.raises(ValidationError, match="is not a pool expression"):
        Rule(assets="*", pools=("a b",))
