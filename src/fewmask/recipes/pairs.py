"""More pairs of a finished run, in shards if wanted: what `fewmask pairs` does."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fewmask.core.errors import ConfigError
from fewmask.core.files import held, read_json
from fewmask.core.run import Run
from fewmask.recipes.factory import Factory
from fewmask.recipes.generator import learn_generator
from fewmask.recipes.ground import open_ground
from fewmask.recipes.heads import Heads
from fewmask.recipes.presence import learned_slices, training_set
from fewmask.recipes.record import fingerprint
from fewmask.recipes.stage import Few, Labelled, every_draw, open_stage
from fewmask.recipes.synthetic_settings import SyntheticSettings
from fewmask.recipes.trust import Judge
from fewmask.recipes.verbs import say
from fewmask.synthesis.factory import Shard


@dataclass(frozen=True, eq=False)
class Reopened:
    """A finished run and one of its draws."""

    factory: Factory
    few: Few
    items: Labelled


def pairs_verb(
    folder: Path, *, cohort: Path | None, out: Path, count: int, shard: str, shots: int | None, draw: int
) -> int:
    """Draw the pairs of one shard; when all are there, choose among them and write their card.

    Raises:
        ConfigError: no finished run of `synthetic`, another cohort than it had, a draw that it does not have,
            or a shard that is none.
        RunError: the disk is full; the same command goes on.
    """
    console, share = Console(), read_shard(shard)
    with held(Run(folder).lock, wait=True):  # several shards may open the run at once
        opened = reopen(folder, cohort, shots, draw)
        factory, few, items = opened.factory, opened.few, opened.items
        maker = factory.maker(factory.interpreter(few, items))
    told = factory.told(few, items)
    last: list[int] = []

    def progress(done: int, total: int) -> None:
        if not last or done * 20 // total > last[-1] * 20 // total:
            say(console, f"{done} of {total} pairs of this shard")
            last.append(done)

    by = factory.labelled_by()
    pairs = factory.write(out, lambda: maker, told, count, **by, shard=share, on_progress=progress)
    there = len(pairs.records())
    say(console, f"{there} of {count} pairs: {out}")
    if there < count:
        say(console, "the choice among them and their card are made when the other shards are done")
        return 0
    drawn = factory.chosen(pairs, factory.of(few, items).real_masks)
    Judge(factory).look_at("", drawn, None)
    say(console, f"{len(drawn.sifted.kept)} to learn from (kept.csv); their card: {out / 'card.md'}")
    return 0


def read_shard(text: str) -> Shard:
    """From "1/4" (1, 4): the second of four."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise ConfigError(
            "is no shard", where="--shard", found=text, expected="i/N with i from 0 to N - 1, as 0/4"
        )
    return int(match[1]), int(match[2])


def reopen(folder: Path, cohort: Path | None, shots: int | None, draw: int) -> Reopened:
    """A finished run with its trained networks; nothing is trained that is there."""
    run = Run(folder)
    settings, record = _settings(run)
    ground = open_ground(settings, cohort, run)
    if fingerprint(ground.cohort) != record["cohort"]["fingerprint"]:
        raise ConfigError(
            "is not the cohort that the run learned from, or its files have changed since",
            where="the built-in phantom" if cohort is None else str(cohort),
            expected=str(record["cohort"]["name"]),
            mend="Name the run's cohort with --cohort.",
        )
    stage = open_stage(settings, ground)
    slices = training_set(ground, settings.gan)
    gan = learn_generator(ground, settings.gan, learned_slices(ground, settings.gan, slices))
    factory = Factory(Heads(stage, settings, slices.images, gan), settings)
    wanted = (max(settings.shots.counts) if shots is None else shots, draw)
    for few, items in every_draw(stage):
        if (few.count, few.draw) == wanted:
            return Reopened(factory, few, items)
    raise ConfigError(
        "the run has no such draw of shots",
        where=str(folder),
        found=f"k = {wanted[0]}, draw {wanted[1]}",
        expected=f"k of {', '.join(map(str, settings.shots.counts))}, draw 0 to {settings.shots.draws - 1}",
    )


def _settings(run: Run) -> tuple[SyntheticSettings, dict[str, Any]]:
    record = read_json(run.run_json) if run.run_json.is_file() else {}
    settings = (
        SyntheticSettings.model_validate(record["settings"])
        if (record.get("recipe") == "synthetic")
        else None
    )
    if settings is None or not settings.needs_pairs:
        raise ConfigError(
            "is not the folder of a finished run of `synthetic` that made pairs",
            where=str(run.folder),
            found=str(record.get("recipe", f"no {run.run_json.name}")),
            mend="Run `fewmask run synthetic` first, or go on with it until it is done.",
        )
    return settings, record
