"""Commands on what a run left: its report, its rounds, its model."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a comparison.")],
    out: Annotated[Path | None, typer.Option(help="File to write; report.html there.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="A compare.json of the same study, or its folder.")
    ] = None,
) -> None:
    """Write the report of a run as one HTML file: figures, what is protected, a model card."""
    from consilium.simulations.commands.console import console
    from consilium.simulations.report.files import write_report

    written = write_report(folder, out, compare)
    console.print(f" report  {written}", markup=False, soft_wrap=True)


def rounds(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a coordinator's rounds.jsonl.")],
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write TensorBoard events into this folder instead.")
    ] = None,
) -> None:
    """Print a run's rounds as CSV, a line a round, or write them for TensorBoard."""
    from consilium.simulations.commands.console import console
    from consilium.simulations.report.rounds_export import read_rounds, to_csv, write_tensorboard

    found = read_rounds(run)
    if tensorboard is None:
        print(to_csv(found), end="")  # noqa: T201 - nothing else on standard output, to be piped
        return
    count = write_tensorboard(found, tensorboard)
    sentence = f"{count} figures of {len(found)} rounds; see them with: tensorboard --logdir"
    console.print(f"{sentence} {tensorboard}", markup=False, soft_wrap=True)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Add the model in ONNX form.")] = False,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Put risks right by the validation patients.")
    ] = False,
) -> None:
    """Write a run's model with its manifest, signed by a key made in the run's folder."""
    from consilium.simulations.commands.console import console
    from consilium.simulations.runs.export import export_run

    manifest = export_run(run, out, onnx=onnx, recalibrate=recalibrate)
    console.print(f"{out}: the model of study {manifest.study}, simulated.", markup=False)
    console.print(f"signer  {manifest.signed_by}", markup=False, soft_wrap=True)
    if recalibrate:
        console.print(manifest.recalibrated, markup=False, soft_wrap=True)
    console.print("To check it: consilium-site model FOLDER --signer SIGNER", markup=False)
