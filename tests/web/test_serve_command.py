"""What `lifeguard serve` refuses to begin with."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from dagster_lifeguard.cli import main


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://ann:secret@dagster.example:3000/", "http://dagster.example:3000/"),
        ("https://secret@dagster.example/ui", "https://dagster.example/ui"),
        ("http://:secret@[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_address_with_a_password_is_not_shown_to_every_visitor(home, url, plain):
    done = CliRunner().invoke(main, ["serve", "--port", "0", "--dagster-url", url])
    assert done.exit_code == 2, done.output
    assert "secret" not in done.output
    assert f"--dagster-url {plain}" in done.output
