"""``lifeguard check``: which asset gets which pools, and what is wrong with that."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dagster_lifeguard.check import CODES, inspect_location, report
from dagster_lifeguard.compat.instance import PoolSettings, instance_pool_settings
from dagster_lifeguard.compat.locations import (
    LocationOrigin,
    origins_of_file,
    origins_of_module,
    origins_of_project,
    origins_of_workspace,
)
from dagster_lifeguard.config import FILE_NAME, Config
from dagster_lifeguard.errors import LifeguardError, LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dagster_lifeguard.check import Finding, Location, Report
    from dagster_lifeguard.plan import Assignment

ROWS_MAX = 200
"""With more assets than this the table is summed up by rule, unless --all asks for each."""

Row = tuple["Location", "Assignment"]

_SORT_KEYS: dict[str, Callable[[Row], Any]] = {
    "asset": lambda row: row[1].asset,
    "pool": lambda row: (row[1].pools, row[1].asset),
    "rule": lambda row: (row[1].rule is None, row[1].rule or 0, row[1].asset),
    "kind": lambda row: (row[1].kind, row[1].asset),
    "group": lambda row: (row[1].group or "", row[1].asset),
}


@click.command("check")
@click.option("-m", "--module-name", "modules", multiple=True, help="Python module. Repeatable.")
@click.option("-f", "--python-file", "files", multiple=True, help="Python file. Repeatable.")
@click.option("-w", "--workspace", "workspaces", multiple=True, help="workspace.yaml. Repeatable.")
@click.option("-d", "--working-directory", help="Where -m and -f import from.  [default: here]")
@click.option(
    "--config",
    "config_path",
    help=f"The policy to measure by.  [default: ./{FILE_NAME}, or else the policy that the "
    "definitions apply]",
)
@click.option("--select", "pattern", help="Only assets whose key, group or pool holds this text.")
@click.option(
    "--sort",
    type=click.Choice(list(_SORT_KEYS)),
    default="asset",
    show_default=True,
    help="Order of the table.",
)
@click.option(
    "--all", "show_all", is_flag=True, help=f"List more than {ROWS_MAX} assets one by one."
)
@click.option("--summary", is_flag=True, help="Only the sums by rule, and the findings.")
@click.option(
    "--ignore",
    multiple=True,
    type=click.Choice(sorted(CODES)),
    metavar="CODE",
    help="Leave out findings of this code. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def check_command(
    modules: tuple[str, ...],
    files: tuple[str, ...],
    workspaces: tuple[str, ...],
    working_directory: str | None,
    config_path: str | None,
    pattern: str | None,
    sort: str,
    *,
    show_all: bool,
    summary: bool,
    ignore: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show which asset gets which pool by which rule, and what is wrong.

    Without -m, -f or -w it looks at the project here: its pyproject.toml (tool.dagster or
    tool.dg), or else its workspace.yaml. The code is imported; nothing is executed.

    \b
    Examples:
      lifeguard check -m my_project.definitions
      lifeguard check -w workspace.yaml --config lifeguard.yaml
      lifeguard check --select snowflake --sort pool
      lifeguard check --json | jq '.errors'

    Exit code: 0 nothing found, 1 errors or warnings, 2 a mistake in what was asked.
    """
    config = _config(config_path)
    origins = _origins(modules, files, workspaces, working_directory or str(Path.cwd()))
    settings = _pool_settings()
    granularity = settings.granularity if settings else "op"
    locations = _inspect(origins, config, granularity)
    found = report(locations, config, settings)
    shown = [f for f in found.findings if f.code not in ignore]
    rows = [
        (location, assignment)
        for location in found.locations
        for assignment in location.assignments
        if pattern is None or _matches(assignment, pattern)
    ]
    rows.sort(key=_SORT_KEYS[sort])
    if as_json:
        click.echo(json.dumps(_as_json(found, rows, shown), indent=2))
    else:
        _print(found, rows, shown, in_full=not summary and (show_all or len(rows) <= ROWS_MAX))
        if settings is None:
            click.echo(
                "\nDAGSTER_HOME is not set to a directory: the default limit and the granularity "
                "in dagster.yaml were not looked at.",
                err=True,
            )
    if shown:
        raise SystemExit(1)


# --- what to look at ------------------------------------------------------------------------------


def _config(path: str | None) -> Config | None:
    if path is not None:
        return Config.from_yaml(path)
    return Config.from_yaml(FILE_NAME) if Path(FILE_NAME).exists() else None


def _pool_settings() -> PoolSettings | None:
    try:
        return instance_pool_settings()
    except Exception as error:
        raise LoadError(
            f"The instance in DAGSTER_HOME cannot be opened: {_first_line(error)}.",
            remedy="Mend its dagster.yaml, or unset DAGSTER_HOME to look at the definitions alone.",
        ) from error


def _origins(
    modules: Sequence[str], files: Sequence[str], workspaces: Sequence[str], directory: str
) -> list[LocationOrigin]:
    for path in (*files, *workspaces):
        if not Path(path).is_file():
            raise LoadError(f"{path} is not a file.", remedy="Name an existing file.", names=[path])
    if not all(modules):
        raise click.UsageError("-m names no module.")
    origins = [o for module in modules for o in origins_of_module(module, directory)]
    origins += [o for file in files for o in origins_of_file(file, directory)]
    origins += [o for path in workspaces for o in _of_file(origins_of_workspace, path)]
    if not (modules or files or workspaces):
        origins = _origins_here()
    for origin in origins:
        if not origin.target:
            raise LoadError(
                f"The code location {origin.name} is served by another process.",
                remedy="Run lifeguard check -m or -f where its code is installed.",
                names=[origin.name],
            )
    return origins


def _origins_here() -> list[LocationOrigin]:
    if Path("pyproject.toml").is_file():
        origins = _of_file(origins_of_project, "pyproject.toml")
        if origins:
            return origins
    if Path("workspace.yaml").is_file():
        return _of_file(origins_of_workspace, "workspace.yaml")
    raise LoadError(
        "There is no Dagster project here: no tool.dagster or tool.dg in a pyproject.toml, and no "
        "workspace.yaml.",
        remedy="Go to the project's directory, or name its code: lifeguard check -m MODULE.",
    )


def _of_file(origins: Callable[[str], Sequence[LocationOrigin]], path: str) -> list[LocationOrigin]:
    try:
        return list(origins(path))
    except Exception as error:
        raise LoadError(
            f"{path}: {_first_line(error)}",
            remedy="Dagster must be able to read it: try dagster definitions validate.",
            names=[path],
        ) from error


def _inspect(
    origins: Sequence[LocationOrigin], config: Config | None, granularity: str
) -> list[Location]:
    if len(origins) == 1:
        return [_or_raise(origins[0], _inspect_one(origins[0], config, granularity))]
    # Modules of different locations may have one name, so each gets a process of its own.
    locations = []
    for origin in origins:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            try:
                found = process.submit(_inspect_one, origin, config, granularity).result()
            except BrokenProcessPool:
                found = "its process ended without an answer"
            locations.append(_or_raise(origin, found))
    return locations


def _or_raise(origin: LocationOrigin, found: Location | str) -> Location:
    if isinstance(found, str):
        raise LoadError(
            f"{origin.name} cannot be loaded: {found}.",
            remedy="Mend the code, or try dagster definitions validate for the whole traceback.",
            names=[origin.name],
        )
    return found


def _inspect_one(origin: LocationOrigin, config: Config | None, granularity: str) -> Location | str:
    """Return what was found, or in one line why the code could not be loaded."""
    try:
        with _standard_output_to_error():
            return inspect_location(origin, config, granularity)
    except (LifeguardError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - also code that calls sys.exit
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"({Path(frame.filename).name}:{frame.lineno})"
        return f"{type(error).__name__}: {_first_line(error)} {place}"


@contextmanager
def _standard_output_to_error() -> Iterator[None]:
    """Keep what the user's code prints, in whatever way, out of our own output."""
    sys.stdout.flush()
    with redirect_stdout(sys.stderr):
        try:
            kept = os.dup(1)
            os.dup2(2, 1)
        except OSError:  # this process has no such descriptors
            yield
            return
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def _matches(assignment: Assignment, pattern: str) -> bool:
    return any(
        pattern.lower() in text.lower()
        for text in (assignment.asset, assignment.group or "", *assignment.pools)
    )


# --- JSON -----------------------------------------------------------------------------------------


def _as_json(found: Report, rows: Sequence[Row], shown: Sequence[Finding]) -> dict[str, Any]:
    def finding(item: Finding) -> dict[str, Any]:
        return {
            "code": item.code,
            "message": item.message,
            "remedy": item.remedy,
            "names": list(item.names),
        }

    return {
        "version": 1,
        "granularity": found.granularity,
        "errors": [finding(f) for f in shown if f.severity == "error"],
        "warnings": [finding(f) for f in shown if f.severity == "warning"],
        "assets": [
            {
                "asset": a.asset,
                "location": location.name,
                "group": a.group,
                "kind": a.kind,
                "rule": None if a.rule is None else a.rule + 1,
                "pools": [{"name": pool, "limit": location.limits.get(pool)} for pool in a.pools],
                "current_pools": list(a.current),
                "explicit": a.explicit,
                "steps": a.steps,
                "executed_with": list(a.executed_with),
                "shared_ops": list(a.shared_ops),
            }
            for location, a in rows
        ],
    }


# --- text -----------------------------------------------------------------------------------------


def _print(found: Report, rows: Sequence[Row], shown: Sequence[Finding], *, in_full: bool) -> None:
    console = Console(highlight=False, emoji=False)
    if rows and in_full:
        with_location = len(found.locations) > 1
        console.print(_asset_table(rows, found.granularity, with_location=with_location))
        for line in _legend(rows):
            console.print(Text(line, style="dim"))
    elif rows:
        console.print(_rule_table(rows))
    if not in_full and len(rows) > ROWS_MAX:
        console.print("[dim]List them with --all, or some of them with --select TEXT.[/dim]")
    console.print()
    for finding in shown:
        colour = "red" if finding.severity == "error" else "yellow"
        head = Text.assemble((finding.severity, colour), " ", (finding.code, "bold"), ": ")
        console.print(head + Text(_printable(finding.message)))
        console.print(Padding(Text(_printable(finding.remedy), style="dim"), (0, 0, 0, 2)))
    console.print(_totals(rows, shown))


def _printable(text: str) -> str:
    """Escape what would move the cursor, break the line or not encode: names are the user's."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _cell(text: str) -> Text:
    return Text(_printable(text))


def _plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")


def _asset_table(rows: Sequence[Row], granularity: str, *, with_location: bool) -> Table:
    table = _plain_table()
    table.add_column("asset", overflow="fold", ratio=None)
    if with_location:
        table.add_column("location", overflow="fold")
    table.add_column("kind", no_wrap=True)
    table.add_column("rule", no_wrap=True)
    table.add_column("pool", overflow="fold")
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("per", no_wrap=True)
    for location, a in rows:
        cells = [a.asset, _kind(a), _rule(a), _pools(a)]
        cells += [_limits(location, a), _granularity(a, granularity)]
        if with_location:
            cells.insert(1, location.name)
        table.add_row(*map(_cell, cells))
    return table


def _kind(a: Assignment) -> str:
    words = {"multi_asset": "multi", "graph_asset": "graph", "observation": "observe"}
    return words.get(a.kind, a.kind)


def _rule(a: Assignment) -> str:
    if a.explicit:
        return "own"
    return "-" if a.rule is None else str(a.rule + 1)


def _pools(a: Assignment) -> str:
    if a.pools != a.current:
        return f"{', '.join(a.current) or 'none'} -> {', '.join(a.pools) or 'none'}"
    return ", ".join(a.pools) or ("-" if a.kind in ("external", "check") else "none")


def _limits(location: Location, a: Assignment) -> str:
    if not a.pools:
        return "-"
    limits = [location.limits[pool] for pool in a.pools]
    return ", ".join("none" if limit is None else str(limit) for limit in limits)


def _granularity(a: Assignment, granularity: str) -> str:
    if not a.pools:
        return "-"
    return granularity if granularity == "run" or a.steps == 1 else f"op x{a.steps}"


def _legend(rows: Sequence[Row]) -> list[str]:
    found = [a for _, a in rows]
    lines = []
    if any(a.kind == "multi_asset" and a.pools for a in found):
        lines.append("multi: one op makes several assets and claims the pool of the first of them.")
    if any(a.kind == "graph_asset" and a.pools and a.steps > 1 for a in found):
        lines.append("op xN: a graph asset; its N steps claim the pool one by one, each by itself.")
    if any(a.explicit for a in found):
        lines.append("rule own: the pool that the asset declares itself.")
    if any(_pools(a) == "none" for a in found):
        lines.append("pool none: unlimited.")
    if any(a.pools != a.current for a in found):
        lines.append("pool x -> y: the definitions have x, the policy gives y.")
    return lines


def _rule_table(rows: Sequence[Row]) -> Table:
    table = _plain_table()
    table.add_column("rule", no_wrap=True)
    table.add_column("assets selected", overflow="fold")
    for heading in ("assets", "pools"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("for example", overflow="fold")
    groups: dict[tuple[str, str], list[Assignment]] = {}
    for location, a in sorted(rows, key=_SORT_KEYS["rule"]):
        what = {"own": "declare their pool", "-": "no rule"}.get(_rule(a))
        if a.kind == "external":
            what = "not executed here"
        if what is None and a.rule is not None:
            what = location.rules[a.rule]
        groups.setdefault((_rule(a), what or ""), []).append(a)
    for (rule, what), members in groups.items():
        pools = {pool for a in members for pool in a.pools}
        cells = (rule, what, str(len(members)), str(len(pools)), members[0].asset)
        table.add_row(*map(_cell, cells))
    return table


def _totals(rows: Sequence[Row], shown: Sequence[Finding]) -> str:
    users: Counter[str] = Counter(pool for _, a in rows for pool in set(a.current))
    executed = [a for _, a in rows if a.kind not in ("external", "check")]
    own = sum(1 for a in executed if a.current and all(users[pool] == 1 for pool in a.current))
    shared = sum(1 for a in executed if a.current) - own
    parts = [f"{own} alone in a pool", f"{shared} in a shared pool"]
    parts.append(f"{len(executed) - own - shared} unlimited")
    external = sum(1 for _, a in rows if a.kind == "external")
    parts += [f"{external} external"] if external else []
    errors = sum(1 for f in shown if f.severity == "error")
    verdict = "nothing found"
    if shown:
        verdict = f"{_number(errors, 'error')}, {_number(len(shown) - errors, 'warning')}"
    return f"{_number(len(executed), 'asset')}: {', '.join(parts)}.\n[bold]{verdict}[/bold]"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
