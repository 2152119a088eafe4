"""Sessions: the test suite on other versions than `make test` uses, and the build of a release."""

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True


@nox.session
def oldest(session: nox.Session) -> None:
    """Run the tests on the oldest supported Dagster."""
    session.install("--constraint", "constraints/oldest.txt", "--editable", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)


VERSIONS = {"1.10.0": "0.26.0", "1.11.16": "0.27.16", "1.12.22": "0.28.22", "1.13.29": "0.29.27"}
"""The last of each minor version, the first of the oldest; with the last ``dagster-postgres`` that
was released for it or before it."""

CORE = ("dagster", "dagster-shared", "dagster-pipes", "dagster-graphql")
"""What is installed at a version for which there is no ``dagster-postgres``. It and the webserver
stay at their last release: Dagster warns of that, and the tests let this one warning pass."""

OLDER_LIBRARIES = ("-W", "ignore:Found version mismatch:UserWarning")

DEFINITIONS = [
    *("tests/docs", "tests/test_assign.py", "tests/test_assign_kinds.py", "tests/test_check.py"),
    *("tests/test_compat.py", "tests/test_config.py", "tests/test_dg_project.py"),
    *("tests/test_init.py", "tests/test_members.py", "tests/test_partition_keys.py"),
    *("tests/test_partitioned_rules.py", "tests/test_resource_rules.py"),
    *("tests/test_shared_ops.py", "tests/storages/test_members_of_an_op.py"),
    *("tests/storages/test_partitioned_runs.py", "tests/storages/test_shared_ops_live.py"),
]
"""What a user's definitions meet: rules, the commands that read them, and the README's blocks."""


@nox.session
@nox.parametrize("version", list(VERSIONS))
def versions(session: nox.Session, version: str) -> None:
    """Run the tests of definitions on each minor version of Dagster."""
    postgres = VERSIONS[version]
    session.install(f"dagster-postgres=={postgres}", "--editable", ".[dev]")
    if postgres.split(".")[2] != version.split(".")[2]:
        session.install("--no-deps", *(f"{name}=={version}" for name in CORE))
    session.run("python", "-m", "pytest", *OLDER_LIBRARIES, *DEFINITIONS, *session.posargs)


@nox.session
def dg(session: nox.Session) -> None:
    """Play the example of a dg project, with real dbt and dlt."""
    session.install(
        *("--constraint", "constraints/dg.txt"),
        *("--requirement", "tests/examples/requirements.txt"),
        *("--editable", ".[dev]"),
    )
    session.run("python", "-m", "pytest", "tests/examples", "tests/test_dg_project.py")


@nox.session
def celery(session: nox.Session) -> None:
    """Run the tests of Celery workers on hosts of their own, with Redis."""
    session.install(
        *("--constraint", "constraints/celery.txt"),
        *("--requirement", "tests/hosts/celery_requirements.txt"),
        *("--editable", ".[dev]"),
    )
    session.run("python", "-m", "pytest", "-rP", "tests/hosts/test_celery.py", *session.posargs)


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """Run the tests on each supported Python that this machine has."""
    session.install("--constraint", "constraints/newest.txt", "--editable", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def dist(session: nox.Session) -> None:
    """Build wheel and sdist into ``dist/``, and try the wheel in a bare environment."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("python", "-m", "twine", "check", "--strict", *map(str, Path("dist").iterdir()))
    (wheel,) = Path("dist").resolve().glob("*.whl")
    session.run("python", "tests/release/wheel_is_whole.py", str(wheel))
    bare = Path(session.create_tmp()) / "bare"
    session.run("python", "-m", "venv", "--clear", str(bare))
    python = str(bare / "bin" / "python")
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    session.run(python, *install, str(wheel), external=True)
    session.run(python, "tests/release/try_wheel.py", external=True)
    session.run(python, *install, f"{wheel}[postgres,web]", external=True)
    session.run(
        *(
            python,
            "-c",
            "from dagster_lifeguard.storage import *; import dagster_lifeguard.web.app",
        ),
        external=True,
    )
