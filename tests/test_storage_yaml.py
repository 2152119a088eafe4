"""The engine's stanza put into dagster.yaml and taken out again: every byte is as it was."""

from __future__ import annotations

import pytest
import yaml

from dagster_lifeguard.errors import ConfigError
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
    "text": "storage: sqlite\n",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_replaced_is_refused(text):
    with pytest.raises(ConfigError, match="cannot be replaced") as told:
        enabled(text, "dagster.yaml")
    assert "written as one of these" in told.value.remedy
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
