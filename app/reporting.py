"""Reporting: the report of a run that is there already, from its directory or its configuration."""

from pathlib import Path

from app import reproduction
from app import run as pipeline
from app.run import Request, load_config
from app.run_directory import opened
from app.stage import Existing, Stage, perform
from cohort.errors import ArtifactError, ConfigError


def write(target: Path, out: Path | None, existing: Existing, pdf: bool | None) -> Path:
    """Make RUN/report and return its page.

    Args:
        target: a run's directory, or a configuration, whose run's directory is `out`.
        existing: what to do with a report that is there.
        pdf: True demands one, False makes none, None makes one where this machine can.

    Raises:
        ConfigError: `out` is missing, or given beside a directory.
        ArtifactError: the run has no evaluation, or something is missing for the PDF; no report is left behind.
    """
    if target.is_dir():
        if out is not None:
            raise ConfigError("--out goes with a CONFIG; a RUN is its own directory")
        return made(target, pipeline.report_stage(reproduction.request_of(target), pdf), existing)
    if out is None:
        raise ConfigError(f"{target}: not a run's directory; a CONFIG needs --out DIR")
    if not out.is_dir():
        raise ArtifactError(f"{out}: no such run")
    return made(out, pipeline.report_stage(Request(load_config(target), out), pdf), existing)


def made(run: Path, stage: Stage, existing: Existing) -> Path:
    """Make one stage that no other reads, so that a finished run stays finished; returns its page."""
    with opened(run) as directory:
        perform(stage, directory, existing)
    return run / stage.name / f"{stage.name}.html"
