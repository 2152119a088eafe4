"""What a person may mistype: one line that says what is wrong, one that helps, exit code 2."""

from __future__ import annotations

from click.testing import CliRunner

from dagster_lifeguard.cli import main

DURATION = "is no duration. Write 90s, 30m, 24h or 7d."
POOLS = "List all pools with: lifeguard status --all"
WEBSERVER = "Give one such as http://localhost:3000 or https://my-org.dagster.cloud/prod."
FILES = {
    "syntax.yaml": "pools: [",
    "key.yaml": "rool: 3",
    "below.yaml": "pools: {a: -1}",
    "above.yaml": "pools: {a: 100000}",
    "huge.yaml": "#" * 1024 * 1024 + "#",
}

SAID = {
    "status order": "Error: {home} knows no pool 'order'. Did you mean orders?",
    "status xyz": f"Error: {{home}} knows no pool 'xyz'. {POOLS}",
    "free ordres": "Error: {home} knows no pool and no run 'ordres'. Did you mean orders?",
    "audit --pool xyz": f"Error: {{home}} knows no pool 'xyz'. {POOLS}",
    "explain xyz": "Error: {home} knows no asset and no run 'xyz'. Give an asset as a/b, a run's id",
    "explain ab:step": "Error: {home} knows no asset and no run 'ab:step'. Give an asset as a/b,",
    "timeline xyz": f"Error: {{home}} knows no pool and no asset 'xyz'. {POOLS}",
    "audit --since lately": f"'lately' {DURATION}",
    "timeline --since 9999999999d": "'9999999999d' is longer than 3650d.",
    "timeline --svg {home}": "File '{home}' is a directory.",
    "status --url foo": f"Error: 'foo' is no address of a webserver. {WEBSERVER}",
    "status --url http://127.0.0.1:1": "Error: http://127.0.0.1:1 cannot be reached: [Errno 111] "
    "Connection refused. Check the address, and that the webserver runs.",
    "plan --config none.yaml": "Error: none.yaml: No such file or directory. Name an existing "
    "file, or write one with: lifeguard init.",
    "plan --config syntax.yaml": "Error: syntax.yaml:1:9: not valid YAML: expected the node "
    "content, but found '<stream end>'.",
    "plan --config key.yaml": "Error: key.yaml:1:1: unknown key 'rool'; allowed: engine, naming, "
    "default_limit, rules, pools. Did you mean 'pools'?",
    "apply --yes --config below.yaml": "Error: below.yaml:1:12: pools.a.limit: -1: input should "
    "be greater than or equal to 0.",
    "apply --yes --config above.yaml": "Error: above.yaml:1:12: pools.a.limit: 100000: input "
    "should be less than or equal to 1000.",
    "plan --config huge.yaml": "Error: huge.yaml: 1048577 bytes is too large for a configuration. "
    "Keep it under 1048576 bytes; select assets by group, tag or kind instead of one by one.",
}


def test_each_mistake_is_told_in_a_line_with_what_to_do(make_home, monkeypatch, tmp_path):
    home = make_home("sqlite", stock=True)
    with home.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("orders", 1)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"DAGSTER_HOME": str(home.path)})
    wrong = {}
    for command, expected in SAID.items():
        done = runner.invoke(main, command.format(home=home.path).split())
        told = " ".join(done.output.split())
        if done.exit_code != 2 or expected.format(home=home.path) not in told:
            wrong[command] = (done.exit_code, told, done.exception)
    assert not wrong
