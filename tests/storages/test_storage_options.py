"""What may stand under ``lifeguard`` in the storage's configuration."""

from __future__ import annotations

import pytest

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.storage.config import StorageOptions


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lease_seconds": 0.0}, "lease_seconds is 0.0"),
        ({"on_lease_lost": "panic"}, "on_lease_lost is 'panic'"),
        ({"abandon_seconds": 5.0}, "lose its place before it looks"),
        ({"look_again_seconds": 60.0}, "lose its place before it looks"),
    ],
)
def test_what_cannot_work_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        StorageOptions(**options)
