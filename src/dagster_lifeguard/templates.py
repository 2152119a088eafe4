"""Templates of pool names, filled in from what an asset declares."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.definitions import io_manager_key, metadata_text
from dagster_lifeguard.config import describe_rule
from dagster_lifeguard.errors import NameClashError, TemplateError
from dagster_lifeguard.names import enumerate_some, format_expression, pool_name, safe_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagster_lifeguard.config import Config
    from dagster_lifeguard.errors import LifeguardError
    from dagster_lifeguard.names import Field, Naming
    from dagster_lifeguard.units import Unit


class PoolNames:
    """The pools that rules give to units; collects what goes wrong on the way."""

    def __init__(self, policy: Config) -> None:
        self._policy = policy
        # Read once: a rule is used for many assets.
        self._rules = [
            [(term, any(f.name == "asset" for f in term.fields)) for term in rule.terms]
            for rule in policy.rules
        ]
        self._unfilled: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
        self._owners: dict[str, str | list[str]] = {}

    def of(self, unit: Unit, rule_index: int) -> str | None:
        """Return the pool expression of a unit; None if unlimited or if it cannot be filled in."""
        filled = []
        for term, is_own in self._rules[rule_index]:
            try:
                new = term.fill(lambda f: _value(f, unit, self._policy.naming))
            except LookupError as error:
                self._unfilled[rule_index, str(error.args[0])].append(unit.name)
                return None
            filled.append(new)
            if is_own:
                self._note_owner(new.name, unit.keys[0].to_user_string())
        return format_expression(filled) if filled else None

    def _note_owner(self, pool: str, asset: str) -> None:
        known = self._owners.setdefault(pool, asset)
        if isinstance(known, list):
            if asset not in known:
                known.append(asset)
        elif known != asset:
            self._owners[pool] = [known, asset]

    @property
    def own_pools(self) -> Mapping[str, str]:
        """For each pool that is named after an asset, that asset."""
        return {p: a if isinstance(a, str) else a[0] for p, a in self._owners.items()}

    def problems(self) -> Iterator[LifeguardError]:
        """Report templates that could not be filled in and pools named after several assets."""
        for (index, reason), assets in self._unfilled.items():
            rule = describe_rule(index, self._policy.rules[index])
            yield TemplateError(
                f"{rule}: {enumerate_some(assets)}: {reason}.",
                remedy="Narrow the rule's assets, or put a rule for these assets before it.",
                names=assets,
            )
        for pool, owners in self._owners.items():
            if isinstance(owners, list):
                yield NameClashError(
                    f"The assets {enumerate_some(owners)} would share the pool {pool!r}.",
                    remedy="Set naming: path, which never gives two assets one name, or give one "
                    "of them a rule of its own.",
                    names=owners,
                )


def _value(template: Field, unit: Unit, naming: Naming) -> str:
    """Return what a template stands for in a unit, safe in a pool name.

    Raises:
        LookupError: The asset has no such value, or several; the argument says so.
    """
    key = unit.keys[0]
    if template.name == "asset":
        return pool_name(key.path, naming)
    spec = unit.assets.specs_by_key.get(key)
    if spec is None:
        raise LookupError(f"{template} is not known of a check's asset")
    if template.name == "group":
        return safe_value(spec.group_name or "default")
    if template.name == "kind":
        return _only(template, sorted(spec.kinds))
    if template.name == "owner":
        return _only(template, list(spec.owners))
    if template.name == "io_manager":
        return _only(template, [io_manager_key(unit.assets, key)])
    if template.name == "tag":
        return _only(template, [spec.tags.get(template.key or "")])
    assert template.name == "metadata", template
    return _only(template, [metadata_text(spec.metadata.get(template.key or ""))])


def _only(template: Field, values: Sequence[object]) -> str:
    found = [str(value) for value in values if value is not None and str(value)]
    if len(found) > 1:
        raise LookupError(f"{template} could be any of {', '.join(found)}")
    if not found:
        raise LookupError(f"{template} has no value")
    return safe_value(found[0])
