"""Evidence: the commands by which a run is reported, checked, made again, signed and promoted."""

from pathlib import Path
from typing import Annotated

import typer

from cohort.errors import ConfigError

commands = typer.Typer()
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory, as runs/demo.")]
Source = Annotated[
    Path | None, typer.Option("--source", metavar="DIR", help="The hospital's tables, where they are not in RUN.")
]


@commands.command()
def report(
    target: Annotated[Path, typer.Argument(metavar="RUN|CONFIG", help="A run's directory, or its YAML file.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run's directory, for a CONFIG.")] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="OTHER", help="Compare with another run instead: RUN/comparison."),
    ] = None,
    pdf: Annotated[
        bool | None,
        typer.Option("--pdf/--no-pdf", help="With or without a PDF; else with one where this machine can make it."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep it where nothing that it tells has changed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace it once the new one is complete.")] = False,
) -> None:
    """Write RUN/report: data, page, PDF, model card, facts label; or, with --against, what differs from another run."""
    from app import difference, reporting
    from app.stage import Existing

    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    existing = Existing.KEEP if resume else Existing.REPLACE if overwrite else Existing.REFUSE
    if against is not None:
        print(difference.write(target, against, existing))
    else:
        print(reporting.write(target, out, existing, pdf))


@commands.command()
def verify(
    run: RunArgument,
    source: Source = None,
    public_key: Annotated[
        Path | None, typer.Option("--public-key", metavar="FILE", help="Also check the run's signature by this key.")
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", metavar="FILE", help="The app's settings (YAML), which say where its audit log is."),
    ] = None,
) -> None:
    """Hash all of a run again, from the tables to each number that its report prints, and check the audit log."""
    from app import audit, reproduction, signing, verification

    if source is not None:
        reproduction.require_same_tables(run, source)
        print(f"{'source':<18} the tables that the run was made from, byte for byte")
    for one in verification.check(run):
        print(f"{one.name:<18} {one.files:>6} files {one.megabytes:>10.1f} MB  sha256 {one.digest[:16]}")
    print(f"{'beside the stages':<18} {verification.check_loose(run):>6} files")
    print(f"{'report':<18} {verification.check_report(run):>6} printed values, each as in the file that it names")
    if public_key is not None:
        signed = signing.check(run, public_key)
        print(f"{'signature':<18} {len(signed['files']):>6} files, signed {signed['signed']} by {signed['key'][:16]}")
    print("every file is as it was written, and every stage was made from the ones beside it")
    print(audit.verified(run, settings))


@commands.command()
def reproduce(
    run: RunArgument,
    source: Source = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Keep what is made here; else it is removed.")
    ] = None,
) -> None:
    """Make a run again from its manifests and compare all of it; exit code 1 where something differs too much."""
    from app import reproduction

    if not reproduction.show(reproduction.reproduce(run, source, out)):
        raise typer.Exit(1)


@commands.command()
def keygen(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The private key; FILE.pub is the public one.")],
) -> None:
    """Make a pair of Ed25519 keys to sign runs with; keep the private one secret, hand out FILE.pub."""
    from app import signing

    print(f"public key {signing.make_key(out)}; keep {out} secret")


@commands.command()
def sign(
    run: RunArgument,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="An Ed25519 private key in PEM.")],
) -> None:
    """Verify a run, then sign the hash of every file of it: RUN/signature.json."""
    from app import signing

    print(f"signed by key {signing.sign(run, key)}")


@commands.command()
def promote(
    run: RunArgument,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who decides.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why.")],
) -> None:
    """Give the run's policy the alias `champion` in its registry, where the verdict allows it; records who and why."""
    from app import promotion

    entry = promotion.promote(run, by, reason)
    print(f"{entry['policy']} version {entry['version']} is {entry['alias']}, by {entry['by']}")
