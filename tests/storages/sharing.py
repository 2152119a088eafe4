"""Two graph assets that share an op, under a rule for each."""

import os

import dagster as dg

from dagster_lifeguard import Policy, Rule


@dg.op
def fetch() -> int:
    return 1


@dg.graph_asset
def left() -> int:
    return fetch()


@dg.graph_asset
def right() -> int:
    return fetch()


EXECUTORS = {"in_process": dg.in_process_executor, "multiprocess": dg.multiprocess_executor}
RULES = {
    "stock": [Rule(assets="*", pools=["{asset}"])],
    "lifeguard": [
        Rule(assets="key:left", pools=["{asset}", "warehouse*2"], hold="asset"),
        Rule(assets="*", pools=["{asset}"]),
    ],
}
ENGINE = os.environ.get("ENGINE", "stock")
defs = Policy(engine=ENGINE, rules=RULES[ENGINE]).apply(
    dg.Definitions(
        assets=[left, right], executor=EXECUTORS[os.environ.get("EXECUTOR", "in_process")]
    )
)
