"""What the verbs of the command line do. Each returns the exit code."""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.files import held, read_json
from fewmask.core.run import Run
from fewmask.data.check import check_cohort
from fewmask.data.cohort import read_cohort
from fewmask.metrics.score import read_rows, write_rows
from fewmask.metrics.surface import Penalty
from fewmask.objectives.ada import AdaptiveAugmentation
from fewmask.objectives.alarms import Rules, alarms
from fewmask.recipes.ground import split_of, start
from fewmask.recipes.outcome import redraw_report
from fewmask.recipes.page import Job
from fewmask.recipes.pairing import pairing_table, write_pairing
from fewmask.recipes.plan import Estimate, estimates
from fewmask.recipes.presets import build, keys, parse_overrides, preset_names, read_config, read_preset
from fewmask.recipes.record import write_record
from fewmask.recipes.settings import GroundSettings
from fewmask.recipes.table import Recipe, recipe_named
from fewmask.report.content import Report
from fewmask.report.curves import read_numbers
from fewmask.report.datacard import data_card
from fewmask.report.tables import lesion_lines, plain_table
from fewmask.segmenter.compare import score_folder
from fewmask.segmenter.folder import MaskFormat, segment_folder
from fewmask.synthesis.published import import_published
from fewmask.training.helper import helper


def check_verb(path: Path, *, out: Path | None, classes: str | None) -> int:
    """Print the pairing table and all problems; 2 when a run would be wrong."""
    console = Console()
    cohort = read_cohort(path, classes=_classes(classes), on_fault="report")
    report = check_cohort(cohort, pictures=out)
    console.print(pairing_table(report.rows))
    say(console, report.to_text())
    if out is not None:
        write_pairing(Run(out).pairing_csv, report.rows)
        say(console, f"pictures and the whole pairing table: {out}")
    return 2 if report.faults else 0


def run_verb(
    name: str,
    words: Sequence[str],
    *,
    preset: str | None,
    cohort: Path | None,
    out: Path | None,
    config: Path | None,
    dry_run: bool,
) -> int:
    """Run a recipe; prints the table of arms and where the report is."""
    recipe = recipe_named(name)
    layers: list[Mapping[str, Any]] = []
    if preset is not None:
        layers.append(read_preset(name, preset).settings)
    if config is not None:
        layers.append(read_config(config))
    settings = build(recipe.settings, [*layers, parse_overrides(words)])
    console = Console()
    if dry_run:
        start(settings)
        _print_data(console, settings, cohort)
        _print_plan(console, recipe, estimates(recipe.plan(settings)))
        return 0
    run = Run.open(out if out is not None else Path("runs") / name)
    with nullcontext() if helper() else held(run.lock):
        _run(recipe, run, settings, cohort, preset=preset, console=console)
    return 0


def _run(
    recipe: Recipe,
    run: Run,
    settings: GroundSettings,
    cohort: Path | None,
    *,
    preset: str | None,
    console: Console,
) -> None:
    """Carry out the recipe, then write the record."""
    started = time.monotonic()
    command = shlex.join(["fewmask", *sys.argv[1:]])
    console.quiet = helper()
    job = Job(run, cohort, recipe.title, recipe.question, command, lambda line: say(console, line))
    done = recipe.carry_out(job, settings)
    write_record(
        run,
        recipe=recipe.name,
        preset=preset,
        command=command,
        settings=settings,
        cohort=done.ground.cohort,
        trained=done.report.trained,
        seconds=time.monotonic() - started,
    )
    for line in done.lines:
        say(console, line)


def settings_verb(name: str) -> int:
    """List every setting of a recipe with its default and its doc."""
    table = Table("setting", "default", "what it is", box=None)
    for key, default, doc in keys(recipe_named(name).settings):
        table.add_row(key, yaml.safe_dump(_plain(default), default_flow_style=True).split("\n")[0], doc)
    Console().print(table)
    return 0


def presets_verb(name: str) -> int:
    """List the presets of a recipe with what they are for."""
    recipe_named(name)
    table = Table("preset", "for", "hours", "expected", box=None)
    for preset in (read_preset(name, each) for each in preset_names(name)):
        table.add_row(preset.name, preset.purpose, preset.hours, preset.expected)
    Console().print(table)
    return 0


def import_verb(checkpoint: Path, *, out: Path, channels: int | None) -> int:
    """Take over a published checkpoint; says what it holds."""
    kept = import_published(checkpoint, out, channels=channels)
    generator = kept.generator
    console = Console()
    say(
        console,
        f"{kept.settings['kind']}, {generator.resolution} px, channels: {generator.channels}, "
        f"discriminator: {'no' if kept.discriminator is None else 'yes'}",
    )
    say(console, f"generator: {out}")
    return 0


def segment_verb(
    model: Path, scans: Path, out: Path, *, output_format: MaskFormat, tta: bool, device: str
) -> int:
    """Segment a folder of scans; 2 when some were quarantined."""
    console = Console()
    result = segment_folder(
        model,
        scans,
        out,
        tta=tta,
        output_format=output_format,
        device=device,
        say=lambda line: say(console, line),
    )
    say(
        console,
        f"{len(result.done)} segmented, {len(result.skipped)} done before, "
        f"{len(result.quarantined)} quarantined; masks in {out}",
    )
    return result.exit_code


def score_verb(
    predictions: Path,
    path: Path,
    *,
    out: Path | None,
    classes: str | None,
    lesions: Sequence[str] = (),
    penalty: Penalty,
) -> int:
    """Score masks from any program against a cohort's masks."""
    cohort = read_cohort(path, classes=_classes(classes))
    rows, missing = score_folder(predictions, cohort, penalty=penalty, lesion_classes=lesions)
    if not rows:
        raise DataError(
            "no mask is named after a case",
            where=str(predictions),
            expected=", ".join(f"{case.name}.nii.gz" for case in cohort.labelled[:3]) + ", ...",
            mend="Name each mask after its case; `fewmask check` lists the cases.",
        )
    console = Console()
    card = data_card(cohort, {}, parts={})
    say(console, plain_table(rows, Report(title="scores", question="", arms=(), data=card)))
    for line in lesion_lines(rows):
        say(console, line)
    if missing:
        names = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
        console.print(
            f"note: {len(missing)} labelled cases have no prediction and are not scored: {names}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if out is not None:
        write_rows(Run.open(out).results_csv, rows)
    return 0


def report_verb(folder: Path) -> int:
    """Draw a run's page again."""
    run = Run(folder)
    if not run.report_json.is_file():
        _refuse_unfinished_generator(run)
        raise DataError(
            "is not the folder of a finished run",
            where=str(folder),
            expected=f"a folder that holds {run.report_json.name}",
            mend="Run the recipe's command again; it goes on where it stopped.",
        )
    redraw_report(run, read_rows(run.results_csv))
    Console().print(f"report: {run.report_html}")
    return 0


def _refuse_unfinished_generator(run: Run) -> None:
    """Tell what the log of a generator's training says, where the run ended before its page."""
    step = run.step("gan")
    lines = read_numbers(step.stats_jsonl)
    if not lines or not step.inputs_json.is_file():
        return
    with held(run.lock):
        told = read_json(step.inputs_json)
    cap = AdaptiveAugmentation().p_max if told["design"]["ada_operations"] else 0.0
    rung = alarms(lines, Rules(images=told["images"], p_max=cap))
    last = ", ".join(f"{name} {value:.4g}" for name, value in lines[-1].items() if name != "images")
    raise DataError(
        "the run stopped before its page was made",
        where=str(run.folder),
        found=f"the generator's last report, after {lines[-1]['images']} of {told['images']} images: {last}; "
        + ("; ".join(str(alarm) for alarm in rung) or "no alarm rang"),
        expected=f"a folder that holds {run.report_json.name}",
        mend="Run the recipe's command again; it goes on where it stopped. After a loss that is no number: "
        "a lower gan.learning_rate or another gan.r1_gamma, in another --out.",
    )


def say(console: Console, text: str) -> None:
    """Print `text` as it is: no markup, no wrapping."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_data(console: Console, settings: GroundSettings, path: Path | None) -> None:
    """Who would train and who would be tested; reads no voxel."""
    if path is None:
        say(console, f"cohort: the built-in phantom, {settings.phantom.patients} patients")
        return
    wanted = settings.cohort
    cohort = read_cohort(path, classes=wanted.classes, reader=wanted.reader)
    split = split_of(settings, cohort)
    classes = ", ".join(cohort.classes)
    say(console, f"cohort: {len(cohort.cases)} cases, {len(cohort.labelled)} with masks of {classes}")
    parts = ", ".join(f"{len(patients)} {name}" for name, patients in split.parts().items())
    say(console, f"patients: {parts}")


def _print_plan(console: Console, recipe: Recipe, planned: Sequence[Estimate]) -> None:
    console.print(recipe.question)
    if not planned:
        say(console, "time and memory: not estimated: it depends on the generator")
        return
    table = Table("step", "times", "images each", "minutes", "memory MB", box=None)
    for one in planned:
        minutes, memory = f"{one.seconds / 60:.1f}", f"{one.memory_mb:.0f}"
        table.add_row(one.work.what, str(one.work.times), str(one.work.images), minutes, memory)
    console.print(table)
    total = sum(one.seconds for one in planned) / 60
    console.print(f"about {total:.0f} minutes of training on this machine, as it is loaded now")


def _classes(text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    parsed = yaml.safe_load(text)
    if not isinstance(parsed, dict) or not all(isinstance(value, int) for value in parsed.values()):
        raise ConfigError(
            "--classes must map names to label values", found=text, mend="e.g. '{anterior: 1, posterior: 2}'"
        )
    return {str(name): value for name, value in parsed.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
