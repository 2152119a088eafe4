"""The test suite in environments other than the newest one (`make test`)."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True


@nox.session
def oldest(session: nox.Session) -> None:
    """Run the tests on the oldest supported Dagster."""
    session.install("--constraint", "constraints/oldest.txt", "--editable", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def dg(session: nox.Session) -> None:
    """Play the example of a dg project, with real dbt and dlt."""
    session.install(
        *("--constraint", "constraints/dg.txt"),
        *("--requirement", "tests/examples/requirements.txt"),
        *("--editable", ".[dev]"),
    )
    session.run("python", "-m", "pytest", "tests/examples", "tests/test_dg_project.py")


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """Run the tests on each supported Python that this machine has."""
    session.install("--constraint", "constraints/newest.txt", "--editable", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)
