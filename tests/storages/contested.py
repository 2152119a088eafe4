"""Assets whose runs may be duplicates, under rules for each answer; a test lets them end."""

import os
import time
from pathlib import Path

import dagster as dg

from dagster_lifeguard import Policy, Rule

CONTROL = Path(os.environ.get("CONTROL", "."))


def _wait_where_a_test_wants_it() -> None:
    """Let whoever loads this take its time."""
    waiting = CONTROL / "loading.wait"
    if waiting.exists():
        (CONTROL / "loading").touch()
    while waiting.exists():
        time.sleep(0.02)


_wait_where_a_test_wants_it()


def _be_steered(context, name: str) -> None:
    beginning = CONTROL / f"{name}.{context.run.run_id}.started"
    beginning.with_suffix(".tmp").write_text(str(os.getpid()))
    beginning.with_suffix(".tmp").rename(beginning)
    deadline = time.monotonic() + 900
    while not (CONTROL / f"{name}.go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody let {name} go")
        time.sleep(0.02)
    if (CONTROL / f"{name}.fail").exists():
        raise ValueError("as the test wants it")


def _steered(name: str, **arguments) -> dg.AssetsDefinition:
    @dg.asset(name=name, **arguments)
    def asset(context) -> None:
        _be_steered(context, name)

    return asset


LETTERS = dg.StaticPartitionsDefinition(["a", "b", "c"])

once = _steered("once", tags={"on": "skip"})
then = _steered("then", deps=[once], tags={"on": "skip"})
configured = _steered("configured", tags={"on": "skip"}, config_schema={"n": dg.Field(int, 1)})
lettered = _steered("lettered", partitions_def=LETTERS, tags={"on": "skip"})
latest = _steered("latest", tags={"on": "replace"})
fresh = _steered("fresh", tags={"on": "cancel"})
free = _steered("free")


@dg.multi_asset(
    specs=[dg.AssetSpec(n, skippable=True, tags={"on": "skip"}) for n in ("left", "right")],
    can_subset=True,
)
def pair(context):
    for key in context.selected_asset_keys:
        yield dg.MaterializeResult(asset_key=key)


@dg.asset_check(asset=once)
def looks_good() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.op
def prepare() -> int:
    return 1


@dg.op(out=dg.Out(int))
def finish(number: int) -> int:
    return number


@dg.graph_asset(tags={"on": "skip"})
def drawn():
    return finish(prepare())


once_job = dg.define_asset_job("once_job", [once, then])
lettered_job = dg.define_asset_job("lettered_job", [lettered])


@dg.sensor(job=once_job, minimum_interval_seconds=1)
def keyed():
    """One run for each file that a test leaves."""
    names = sorted(path.name for path in CONTROL.glob("*.key"))
    return [dg.RunRequest(run_key=name) for name in names] or dg.SkipReason("no file")


@dg.schedule(job=once_job, cron_schedule="* * * * *")
def minutely():
    return dg.RunRequest()


ANSWERS = {"skip": "skip_new", "replace": "replace_queued", "cancel": "cancel_running"}

defs = Policy(
    rules=(
        *(
            Rule(assets=f"tag:on={tag}", pools=("{asset}",), on_conflict=answer)
            for tag, answer in ANSWERS.items()
        ),
        Rule(assets="*", pools=("{asset}",)),
    )
).apply(
    dg.Definitions(
        assets=[once, then, configured, lettered, latest, fresh, free, pair, drawn],
        asset_checks=[looks_good],
        jobs=[once_job, lettered_job],
        sensors=[keyed],
        schedules=[minutely],
        executor=dg.in_process_executor,
    )
)
