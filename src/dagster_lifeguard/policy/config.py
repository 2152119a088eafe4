"""``lifeguard.yaml``: what it may say, and where exactly it says something else."""

from __future__ import annotations

import datetime as dt
import difflib
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap  # noqa: TC002 - as its neighbours
from typing_extensions import Self

from dagster_lifeguard.engine.rules.duplicates import OnConflict  # noqa: TC001 - pydantic reads it
from dagster_lifeguard.engine.rules.pool_expressions import (
    SLOTS_MAX,
    Term,
    parse_expression,
    refuse_unsettable,
)
from dagster_lifeguard.engine.rules.pool_naming import Naming  # noqa: TC001 - pydantic reads it
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings, parse_order
from dagster_lifeguard.engine.rules.rate import BURST_MAX, Rate
from dagster_lifeguard.errors import ConfigError, NeedsEngineError
from dagster_lifeguard.policy.yaml_text import (
    Problem,
    parse_mapping,
    place_of,
    plain,
    read_text,
    refusal,
    refuse_surprises,
)

T = TypeVar("T")

FILE_SIZE_MAX_BYTES = 1024 * 1024
"""A larger file is taken for a mistake rather than read."""

LIMIT_MAX = SLOTS_MAX
"""Dagster's own maximum for the limit of a pool (its setting for it can only lower that)."""

_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxlevel, _SHORT.maxlist = 120, 1, 3
"""How a wrong value is quoted: an alias may stand for a hundred thousand."""

Engine = Literal["stock", "lifeguard"]

Limit = Annotated[int, Field(strict=True, ge=0, le=LIMIT_MAX)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _value(make: Callable[[], T]) -> T:
    """A value, or what is wrong with it in the words that pydantic passes on."""
    try:
        return make()
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _expression(text: str) -> tuple[Term, ...]:
    return _value(lambda: parse_expression(text))


def _template_in(value: object) -> str | None:
    """The template that YAML read as a mapping for want of quotes; None if it was none."""
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, key),) = value.items()
        if key is None or isinstance(key, str):
            return f"{{{name}}}" if key is None else f"{{{name}:{key}}}"
    return None


def _quoted(value: object) -> object:
    """Explain what YAML makes of a template without quotes."""
    template = _template_in(value)
    if template is not None:
        raise ValueError(f'YAML reads braces as a mapping; write it in quotes: "{template}".')
    return value


class Rule(_Strict):
    """Gives the assets that it selects their pools.

    Attributes:
        assets: Dagster's asset selection syntax; ``*`` selects every asset.
        partitioned: Select only assets with partitions (true), or only assets without (false).
            null: both.
        io_manager: Select only assets whose io manager key matches this shell pattern, such as
            ``snowflake*``. null: any.
        resource: Select only assets whose ops require a resource with a key that matches this shell
            pattern. null: any. ``{resource}`` in pools then stands only for these resources.
        pools: Pool expressions, each ``name`` or ``name*slots``, with templates such as
            ``{asset}``. An empty list: unlimited.
        override: Also replace a pool that the asset declares itself.
        checks: Also give these pools to the asset checks of these assets that run in ops of
            their own.
        on_conflict: What happens to a new run of these assets whose work another run does or will
            do. All values except ``queue`` need the ``LifeguardRunCoordinator``.
        hold: For graph assets. ``step``: each step claims by itself. ``asset``: the steps hold the
            pools together from the first to the last, so that two runs never interleave; needs
            engine: lifeguard.
    """

    assets: str = Field(min_length=1)
    partitioned: bool | None = Field(default=None, strict=True)
    io_manager: str | None = Field(default=None, min_length=1)
    resource: str | None = Field(default=None, min_length=1)
    pools: tuple[Annotated[str, BeforeValidator(_quoted)], ...]
    override: bool = Field(default=False, strict=True)
    checks: bool = Field(default=False, strict=True)
    on_conflict: OnConflict = "queue"
    hold: Literal["step", "asset"] = "step"

    @field_validator("pools")
    @classmethod
    def _pools_form_an_expression(cls, pools: tuple[str, ...]) -> tuple[str, ...]:
        if pools:
            _expression("+".join(pools))
        return pools

    @property
    def selects_all(self) -> bool:
        """Whether it selects every asset."""
        return self.assets.strip() == "*" and not self.conditions

    @property
    def selection(self) -> str:
        """Which assets it selects, as people are shown it: ``group:raw, partitioned: true``."""
        return ", ".join([self.assets, *self.conditions])

    @property
    def conditions(self) -> list[str]:
        """What else an asset must meet that ``assets`` selects."""
        found = []
        if self.partitioned is not None:
            found.append(f"partitioned: {str(self.partitioned).lower()}")
        if self.io_manager is not None:
            found.append(f'io_manager: "{self.io_manager}"')
        if self.resource is not None:
            found.append(f'resource: "{self.resource}"')
        return found

    def takes_io_manager(self, key: str | None) -> bool:
        """Whether an io manager with this key is one that the rule is about."""
        return self.io_manager is None or fnmatchcase(key or "", self.io_manager)

    def takes_resource(self, key: str) -> bool:
        """Whether a resource with this key is one that the rule is about."""
        return self.resource is None or fnmatchcase(key, self.resource)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The demand of an asset under this rule, its templates not yet filled in."""
        return parse_expression("+".join(self.pools)) if self.pools else ()


def describe_rule(index: int, rule: Rule) -> str:
    """Name a rule the way messages do: by its place, from 1, and its selection."""
    selection = ", ".join([f'assets: "{rule.assets}"', *rule.conditions])
    return f"rule {index + 1} ({selection})"


class PoolSpec(_Strict):
    """A pool that is declared.

    Attributes:
        limit: Slots of the pool; 0 pauses it. null: the default limit.
        rate: Steps that may start per time, such as ``100/minute``. Needs engine: lifeguard.
        burst: How many steps may start at once after a quiet time, as part of the rate; the default
            is 1.
        order: ``fifo``: first come, first served. ``fair(tag:NAME)`` or ``fair(backfill)``: which
            groups of runs share the pool evenly; needs engine: lifeguard.
    """

    limit: Limit | None = None
    rate: str | None = None
    burst: int | None = Field(default=None, strict=True, ge=1, le=BURST_MAX)
    order: str = "fifo"

    @field_validator("rate")
    @classmethod
    def _rate_is_one(cls, rate: str | None) -> str | None:
        if rate is not None:
            _value(lambda: Rate.parse(rate))
        return rate

    @field_validator("burst")
    @classmethod
    def _burst_has_a_rate(cls, burst: int | None, info: ValidationInfo) -> int | None:
        if burst is not None and info.data.get("rate", "") is None:
            raise ValueError("a burst is part of a rate; give a rate too, such as 100/minute.")
        return burst

    @field_validator("order")
    @classmethod
    def _order_is_one(cls, order: str) -> str:
        _value(lambda: parse_order(order))
        return order

    @property
    def settings(self) -> PoolSettings:
        """The settings as the engine takes them."""
        rate = None if self.rate is None else Rate.parse(self.rate, self.burst or 1)
        return PoolSettings(self.limit, rate, parse_order(self.order))


def _limit_alone(value: object) -> object:
    return value if isinstance(value, Mapping | PoolSpec) else {"limit": value}


EVERY_ASSET_ITS_OWN = Rule(assets="*", pools=("{asset}",))


class Config(_Strict):
    """The contents of a ``lifeguard.yaml``; each setting has a default.

    Attributes:
        engine: Which storage decides about slots. ``stock``: Dagster's own, with one static pool
            per op. ``lifeguard``: the engine, with several pools, slots, partitions and rates.
        naming: How ``{asset}`` is written. ``underscore``: my_group_my_asset; two assets with the
            same name are an error. ``path``: my_group/my_asset.
        default_limit: Limit of every pool without a limit of its own. null: unlimited.
        rules: The first rule that selects an asset decides. An asset that no rule selects is
            unlimited.
        pools: Pools with settings of their own, by name: a limit, or a mapping.
    """

    engine: Engine = "stock"
    naming: Naming = "underscore"
    default_limit: Limit | None = 1
    rules: tuple[Rule, ...] = (EVERY_ASSET_ITS_OWN,)
    pools: dict[str, Annotated[PoolSpec, BeforeValidator(_limit_alone)]] = Field(
        default_factory=dict
    )

    @field_validator("pools")
    @classmethod
    def _pools_are_names(cls, pools: dict[str, PoolSpec]) -> dict[str, PoolSpec]:
        for name in pools:
            if not name or name != "".join(name.split()):
                raise ValueError(f"{name!r} is no pool's name, which has no white space.")
        _value(lambda: refuse_unsettable(pools))
        return pools

    def limit_of(self, pool: str) -> int | None:
        """Return the limit that this configuration declares for a pool; None if unlimited."""
        spec = self.pools.get(pool)
        return self.default_limit if spec is None or spec.limit is None else spec.limit

    def pools_beyond_stock(self) -> Iterator[NeedsEngineError]:
        """An error for each pool with a setting that needs the other engine."""
        for name, pool in self.pools.items() if self.engine == "stock" else ():
            asked = pool.settings.texts_set
            if asked:
                found = " and ".join(f"{setting} ({text})" for setting, text in asked.items())
                yield NeedsEngineError(
                    f"Pool {name!r} has {found}: needs engine: lifeguard.",
                    remedy="Under engine: stock give it a limit alone.",
                    names=[name],
                )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a ``lifeguard.yaml``.

        Raises:
            ConfigError: The file cannot be read or says something that is not allowed. Its
                message has a line ``file:line:column: ...`` for each problem.
        """
        text = read_text(
            Path(path),
            remedy="Name an existing file, or write one with: lifeguard init.",
            size_max_bytes=FILE_SIZE_MAX_BYTES,
        )
        return cls.from_text(text, str(path))

    @classmethod
    def from_text(cls, text: str, source: str) -> Self:
        """The same of the text of a file, called ``source`` in messages."""
        text = text.removeprefix("\ufeff")  # editors on Windows put it before UTF-8
        refuse_surprises(text, source)
        document = parse_mapping(text, source, YAML(typ="rt"))
        try:
            return cls.model_validate(plain(document, source))
        except ValidationError as error:
            problems = [_problem(document, item) for item in error.errors()]
            raise refusal(source, sorted(problems)) from error


def _problem(document: CommentedMap, error: Any) -> Problem:
    """Say where a pydantic error lies in the document, what is allowed, and what was meant."""
    of_key = error["type"] == "extra_forbidden"
    return Problem(*place_of(document, error["loc"], of_key=of_key), _explanation(error))


def _explanation(error: Any) -> str:
    loc: tuple[int | str, ...] = error["loc"]
    kind, given = error["type"], _given(error["input"])
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    if kind == "extra_forbidden":
        return f"unknown key {_SHORT.repr(loc[-1])}; {_allowed(str(loc[-1]), _allowed_keys(loc))}"
    if kind == "literal_error":
        words = error["ctx"]["expected"].replace(" or ", ",").split(",")
        allowed = _allowed(str(error["input"]), [word.strip("' ") for word in words])
        return f"{path}: {given} is not allowed; {allowed}"
    if kind == "missing":
        return f"{path.rpartition('.')[0]}: the key {loc[-1]!r} is missing."
    if kind == "value_error":
        return f"{path}: {error['ctx']['error']}"
    if kind == "tuple_type":
        inner = _template_in(error["input"]) or error["input"]
        written = f'["{inner}"]' if isinstance(inner, str) else "[...]"
        return f"{path}: {given} is not a list; write {written}."
    if kind == "string_type" and not isinstance(error["input"], Mapping | list):
        return f'{path}: {given} is no text to YAML; write it in quotes: "{given}".'
    if kind in ("dict_type", "model_type"):
        keys = f" with {', '.join(_allowed_keys((*loc, '')))}" if len(loc) > 1 else ""
        return f"{path}: {given} is not a mapping{keys}."
    return f"{path}: {given}: {error['msg'].lower()}."


def _given(value: object) -> str:
    """A wrong value as a message quotes it."""
    if value is None or isinstance(value, bool | dt.date):
        return "an empty value" if value is None else str(value).lower()
    return _SHORT.repr(value)


def _allowed_keys(loc: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Config
    if len(loc) > 1:
        model = Rule if loc[0] == "rules" else PoolSpec
    return list(model.model_fields)


def _allowed(given: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return f"allowed: {', '.join(allowed)}.{meant}"
