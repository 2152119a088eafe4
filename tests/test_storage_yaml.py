"""The engine's stanza put into dagster.yaml and taken out again: every byte is as it was."""

from __future__ import annotations

import json

import pytest
import yaml

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.limits.dagster_yaml import load_as_dagster_does
from dagster_lifeguard.limits.engine_yaml import disabled, enabled, storage_of

FILES = {
    "empty": "",
    "only a comment": "# nothing yet\n",
    "blank lines": "\n\n",
    "other keys": "telemetry:\n  enabled: false\n",
    "no newline at the end": "telemetry:\n  enabled: false",
    "carriage returns": "telemetry:\r\n  enabled: false\r\n",
    "carriage returns, none at the end": "telemetry:\r\n  enabled: false",
    "default sqlite": "storage:\n  sqlite:\n    base_dir: /tmp/here\n",
    "comments": """\
# before
telemetry: {enabled: false}  # beside

storage:  # the storage
  # above it
  sqlite:  # in files
    # the directory
    base_dir:  # where
      env: DAGSTER_HOME  # here

    # at the end
# after it

# before the queue
concurrency:
  pools:
    default_limit: 1  # strict
# at the very end
""",
    "postgres with secrets": """\
run_monitoring:
  enabled: true
storage:
  postgres:
    postgres_db:
      username:
        env: PG_USER
      password: {env: PG_PASSWORD}
      hostname: "db.internal"
      db_name: 'dagster'
      port: 5432
      params:
        connect_timeout: 5
telemetry:
  enabled: false
""",
    "url": "storage:\n  postgres:\n    postgres_url:\n      env: DAGSTER_PG_URL\n",
    "deep indents": "storage:\n    sqlite:\n        base_dir: /tmp/here\n",
    "stanza at the end, no newline": "storage:\n  sqlite:\n    base_dir: /tmp/here",
    "stanza with carriage returns": (
        "storage:\r\n  postgres:\r\n    postgres_url: 'x://y'\r\ntelemetry:\r\n  enabled: false\r\n"
    ),
    "flow config": "storage:\n  sqlite: {base_dir: /tmp/here}\n",
    "flow": "storage: {sqlite: {base_dir: /tmp/here}}  # short\ntelemetry: {enabled: false}\n",
    "spread over lines": "storage: {sqlite: {\n    base_dir: /tmp/here  # here\n  }}\n",
    "document markers": "---\ntelemetry:\n  enabled: false\n",
    "long text": "storage:\n  sqlite:\n    base_dir: >-\n      /tmp\n      here\n",
}


UNUSUAL = {
    "null": "storage:\ntelemetry:\n  enabled: false\n",
    "null by name": "telemetry: {enabled: false}\nstorage: ~  # none\n",
    "quoted key": "storage:\n  'sqlite':\n    base_dir: {env: DAGSTER_HOME}\n",
}


@pytest.mark.parametrize("text", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_written_unusually_means_the_same_afterwards(text):
    on = enabled(text, "dagster.yaml")
    assert storage_of(on, "dagster.yaml") == "lifeguard"
    expected = yaml.safe_load(text)
    expected["storage"] = {"sqlite": {"base_dir": {"env": "DAGSTER_HOME"}}}
    assert yaml.safe_load(disabled(on, "dagster.yaml")) == expected


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_put_in_and_taken_out_again_it_is_the_same_file(text):
    on = enabled(text, "dagster.yaml")

    assert storage_of(on, "dagster.yaml") == "lifeguard"
    before, after = yaml.safe_load(text) or {}, yaml.safe_load(on)
    stock = before.pop("storage", None) or {"sqlite": {"base_dir": {"env": "DAGSTER_HOME"}}}
    ((kind, config),) = stock.items()
    assert after.pop("storage") == {
        "custom": {
            "module": "dagster_lifeguard.storage",
            "class": f"Lifeguard{kind.capitalize()}Storage",
            "config": config,
        }
    }
    assert after == before
    assert enabled(on, "dagster.yaml") == on

    off = disabled(on, "dagster.yaml")
    assert off == text
    assert disabled(off, "dagster.yaml") == off


REFUSED = {
    "custom": "storage:\n  custom:\n    module: mine\n    class: Mine\n    config: {}\n",
    "mysql": "storage:\n  mysql:\n    mysql_url: x\n",
    "parts": "run_storage:\n  module: m\n  class: C\n  config: {}\n",
    "one part": "event_log_storage:\n  module: dagster_postgres\n  class: PostgresEventLogStorage\n"
    "  config: {postgres_url: x}\n",
    "text": "storage: sqlite\n",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_replaced_is_refused(text):
    with pytest.raises(ConfigError, match="cannot be replaced") as told:
        enabled(text, "dagster.yaml")
    assert "It replaces the default storage" in told.value.remedy
    assert disabled(text, "dagster.yaml") == text


@pytest.mark.parametrize("text", ["storage: [", "- a list\n", "\tstorage:\n"])
def test_what_is_not_settings_is_refused_with_its_place(text):
    for edit in (enabled, disabled):
        with pytest.raises(ConfigError, match=r"^dagster.yaml"):
            edit(text, "dagster.yaml")


def test_our_settings_go_with_the_stanza():
    on = enabled(FILES["postgres with secrets"], "dagster.yaml")
    marked = on.replace("    config:\n", "    config:\n      lifeguard: {lease_seconds: 10}\n")
    assert marked != on
    off = yaml.safe_load(disabled(marked, "dagster.yaml"))
    assert off == yaml.safe_load(FILES["postgres with secrets"])


CHART = """\
scheduler:
  module: dagster.core.scheduler
  class: DagsterDaemonScheduler

schedule_storage:
  module: dagster_postgres.schedule_storage
  class: PostgresScheduleStorage
  config: &database  # one for all
    postgres_db:
      username: test
      password:
        env: DAGSTER_PG_PASSWORD
      hostname: dagster-postgresql
      db_name: test
      port: 5432

run_storage:
  module: dagster_postgres.run_storage
  class: PostgresRunStorage  # of runs
  config: *database

event_log_storage:
  module: dagster_postgres.event_log
  class: PostgresEventLogStorage
  config: *database
"""
BLOCKS = {
    "three, as the chart writes them": CHART,
    "carriage returns": CHART.replace("\n", "\r\n"),
    "quoted": CHART.replace("dagster_postgres.event_log", '"dagster_postgres.event_log"'),
    "in braces": "run_storage: {module: dagster._core.storage.runs, class: SqliteRunStorage, "
    "config: {base_dir: /tmp/here/history}}\nevent_log_storage: {class: SqliteEventLogStorage, "
    "module: dagster._core.storage.event_log, config: {base_dir: /tmp/here/history/runs}}\n",
}


def classes(text: str) -> list[tuple[str, str]]:
    found = yaml.safe_load(text)
    blocks = [found["run_storage"], found["event_log_storage"]]
    return [(block["module"], block["class"]) for block in blocks]


@pytest.mark.parametrize("text", BLOCKS.values(), ids=BLOCKS)
def test_blocks_get_our_classes_and_nothing_else_of_them_changes(text):
    on = enabled(text, "dagster.yaml")

    assert (storage_of(text, "dagster.yaml"), storage_of(on, "dagster.yaml")) == (
        "stock",
        "lifeguard",
    )
    assert classes(on) == [
        ("dagster_lifeguard.storage", f"Lifeguard{name}") for _, name in classes(text)
    ]
    assert [
        len(line) for line in on.splitlines() if "module" not in line and "class" not in line
    ] == [len(line) for line in text.splitlines() if "module" not in line and "class" not in line]
    assert enabled(on, "dagster.yaml") == on
    off = disabled(on, "dagster.yaml")
    assert off.replace('"', "") == text.replace('"', "")
    assert disabled(off, "dagster.yaml") == off


@pytest.mark.parametrize("name", ["PostgresRunStorage", "PostgresEventLogStorage"])
def test_a_half_is_told_from_a_whole_and_mended_either_way(name):
    on = enabled(CHART, "dagster.yaml")
    module = "run_storage" if "Run" in name else "event_log"
    half = on.replace(f"Lifeguard{name}", name).replace(
        "dagster_lifeguard.storage", f"dagster_postgres.{module}", 1 if "Run" in name else 2
    )
    if "Event" in name:
        half = half.replace("dagster_postgres.event_log", "dagster_lifeguard.storage", 1)

    assert storage_of(half, "dagster.yaml") == "half"
    assert enabled(half, "dagster.yaml") == on
    assert disabled(half, "dagster.yaml") == CHART


def test_our_settings_go_with_the_blocks():
    on = enabled(CHART, "dagster.yaml")
    config = "\n  config:\n    postgres_url: x\n    lifeguard: {lease_seconds: 10}\n"
    head, tail = on.rsplit("\n  config: *database\n", 1)
    off = yaml.safe_load(disabled(head + config + tail, "dagster.yaml"))
    assert off["event_log_storage"] == {
        "module": "dagster_postgres.event_log",
        "class": "PostgresEventLogStorage",
        "config": {"postgres_url": "x"},
    }


@pytest.mark.parametrize(
    ("text", "doubled"),
    [
        ("a: 1\n", ()),
        ("a: 1\nb: 2\na: 3\n", (("a", (1, 3)),)),
        ("a: {b: 1, c: 2, b: 3}\nd: yes\n", (("a.b", (1, 1)),)),
        ("a: {b: 1}\nb: 2\na: {c: 1, c: 2}\n", (("a", (1, 3)), ("a.c", (3, 3)))),
        ("a:\n- {b: 1}\n- b: 1\n  b: 2\n", (("a.b", (3, 4)),)),
        ("a: &x {b: 1, b: 2}\nc: *x\nd: {<<: *x, b: 3}\n", (("a.b", (1, 1)),)),
        ("", ()),
    ],
)
def test_a_key_that_stands_twice_is_read_as_dagster_reads_it(text, doubled):
    found, told = load_as_dagster_does(text, "dagster.yaml")
    assert told == doubled
    assert json.loads(json.dumps(found)) == (yaml.safe_load(text) or {})


@pytest.mark.parametrize("text", ["a: 1\na: [\n", "- a\n", "a: 1\na: *b\n"])
def test_a_file_with_a_mistake_is_refused_whether_or_not_a_key_stands_twice(text):
    with pytest.raises(ConfigError, match=r"dagster\.yaml:"):
        load_as_dagster_does(text, "dagster.yaml")


def test_an_edit_of_a_file_with_a_key_that_stands_twice_is_refused():
    with pytest.raises(ConfigError, match=r'3:1: the key "a" stands here a second time'):
        enabled("a: 1\nb: 2\na: 3\n", "dagster.yaml")
