"""Generated images for a person to label: what `fewmask sample` does."""

from pathlib import Path

from rich.console import Console

from fewmask.data.cohort_classes import classes_from_text
from fewmask.inversion.resume import network_key
from fewmask.recipes.generator import read_kept
from fewmask.recipes.verbs import say
from fewmask.synthesis.support import Choose, ImageFormat, export_support


def sample_verb(
    folder: Path,
    *,
    out: Path,
    count: int,
    seed: int,
    truncation: float,
    image_format: ImageFormat,
    choose: Choose,
    classes: str | None,
) -> int:
    """Write samples of the generator in `folder` to `out`; says what to do with them.

    Raises:
        DataError: no generator there, or a damaged one.
        ConfigError: numbers or classes that cannot be, or an `out` that holds something else.
    """
    declared = None if classes is None else classes_from_text(classes, "--classes")
    kept = read_kept(folder)
    names = export_support(
        out,
        kept.generator,
        count,
        key=network_key(kept.generator),
        seed=seed,
        truncation=truncation,
        image_format=image_format,
        choose=choose,
        classes=declared,
    )
    console = Console()
    say(console, f"{len(names)} images to draw on: {out / 'images'}")
    say(console, f"masks go to {out / 'masks'}; {out / 'README.txt'} tells how")
    return 0
