def scrub_tox_uv_project_environment() -> None:
    """There is no tox here."""
