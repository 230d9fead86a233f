"""``dgm train``: PyTorch is imported inside, so that ``dgm --help`` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

STOPPED = 143  # as a shell reports a process that SIGTERM ended


def _pairs(
    _context: click.Context, _option: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    for text in given:
        if "=" not in text:
            raise click.BadParameter(f"must be NAME=VALUE, got {text}")
    return dict(text.split("=", 1) for text in given)


@click.command()
@click.argument("recipe", required=False)
@click.option(
    "--set", "given", multiple=True, metavar="NAME=VALUE", callback=_pairs, help="A setting."
)
@click.option("--out", type=click.Path(path_type=Path), help="Default: runs/RECIPE.")
@click.option("--resume", is_flag=True, help="Go on from the newest whole checkpoint.")
@click.option("--tiny", is_flag=True, help="A minute on two cores, on the bundled digits.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--list", "listing", is_flag=True, help="List the recipes and their values.")
def train(
    recipe: str | None,
    given: dict[str, str],
    out: Path | None,
    resume: bool,
    tiny: bool,
    device: str,
    listing: bool,
) -> None:
    """Train a lecture's model at the size of its paper: dgm train iwae --set k=5.

    Many processes run the same: torchrun --nproc-per-node 2 -m dgm_course.runs iwae. SIGTERM and
    Ctrl-C save and leave, with the exit code 143; --resume goes on.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dgm_course.runs.recipe import read_recipe, recipe_names

    if listing:
        for name in recipe_names():
            r = read_recipe(name)
            click.echo(f"{name}: {r.paper}; published {r.published}; ours {r.reached} ({r.hours})")
        return
    if recipe is None:
        raise click.UsageError(f"give a recipe: {', '.join(recipe_names())}")
    from dgm_course.runs.train import train as run

    out = out or Path("runs", f"{recipe}-tiny" if tiny else recipe)
    try:
        ended = run(recipe, out, click.echo, given=given, tiny=tiny, resume=resume, device=device)
    except (ValueError, OSError, FloatingPointError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0 if ended else STOPPED)
