"""Generated pairs for other programs: what `fewmask export` does."""

from pathlib import Path

from rich.console import Console

from fewmask.recipes.verbs import say
from fewmask.synthesis.card_file import CARD_MD
from fewmask.synthesis.export import export_pairs
from fewmask.synthesis.export_layouts import Layout
from fewmask.synthesis.stored import ImageFormat


def export_verb(
    pairs: Path,
    *,
    to: Layout,
    out: Path,
    everything: bool,
    image_format: ImageFormat | None,
    override: str | None,
) -> int:
    """Export pairs; says how many went out, and what was accepted on the way. Raises as `export_pairs`."""
    done = export_pairs(pairs, out, to, everything=everything, override=override, image_format=image_format)
    console = Console()
    say(console, f"{len(done.numbers)} pairs exported: {out}")
    for doubt in done.accepted:
        say(console, f"accepted by --override: {doubt}")
    say(console, f"their card, for whoever gets them: {out / CARD_MD}")
    return 0
