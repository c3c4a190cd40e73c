"""Pairs that go out of the house: to nnU-Net, to a folder, to DICOM - with their card, or not at all.

A generator can repeat its training images, and then its pairs are images of patients. So an export is refused
unless the card tells that somebody looked at these very pairs, with a detector that finds planted copies, and
found none; or unless whoever exports them says in words that this is accepted.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.files import held, write_error, write_json
from fewmask.synthesis.card import Card, card_of, digest_of
from fewmask.synthesis.card_file import CARD_JSON, read_card, write_card
from fewmask.synthesis.export_layouts import Chosen, Layout, refuse_layout, writer_of
from fewmask.synthesis.factory import PairFolder, Record, name_of, open_pairs
from fewmask.synthesis.sift import KEPT_CSV, read_sifted
from fewmask.synthesis.stored import ImageFormat

ACCEPTED = "I accept that these pairs may repeat images of patients"
"""The words that override a refusal."""
EXPORT_JSON = "export.json"
_NAMED = 5
_LAYOUTS: Mapping[Layout, str] = {"nnunet": "nnU-Net raw data", "folder": "a folder", "dicom": "DICOM files"}


@dataclass(frozen=True)
class Exported:
    """What was handed on: the folder, the numbers of the pairs, and what was accepted against the refusal."""

    folder: Path
    numbers: tuple[int, ...]
    accepted: tuple[str, ...]


def export_pairs(
    folder: Path,
    out: Path,
    layout: Layout,
    *,
    everything: bool = False,
    override: str | None = None,
    image_format: ImageFormat | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write pairs for others, with their card, into a new folder that appears only when it is complete.

    Args:
        folder: pairs of `make_pairs`, with the card of `write_card` and the choice of `write_sifted`.
        out: new, or empty.
        layout: "nnunet", "folder" (`images/`, `masks/`, `cases.csv`), or "dicom".
        everything: all pairs, not only the kept ones.
        override: `ACCEPTED`, word by word, to export what would be refused.
        image_format: of the layout folder, "png" or "nifti"; None: as the pairs are.
        on_progress: called with (pairs done, all of them).

    Raises:
        ConfigError: refused for what the card tells, or does not; an `out` that holds something; a layout
            that cannot hold the pairs; an override in other words.
        DataError: no pairs, no choice among them, or files that were changed since they were drawn.
        RunError: the disk is full, or another export is at work on `out`.
    """
    pairs = open_pairs(folder)
    refuse_layout(layout, pairs, image_format)
    records = pairs.records()
    numbers = _selected(pairs, records, everything)
    card = read_card(folder)
    accepted = _judge(folder, card, records, numbers, override)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("holds other files", where=str(out), mend="Choose a new --out.")
    chosen = Chosen(pairs, numbers, records, card or card_of(pairs), out.absolute().name)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, len(numbers))

    with _appearing(out) as part:
        writer_of(layout, image_format)(chosen, part, tick)
        told = {
            "layout": layout,
            "pairs": len(numbers),
            "selection": "all" if everything else "kept",
            "digest": digest_of(records, numbers),
            "accepted": list(accepted),
            "override": ACCEPTED if accepted else None,
            "fewmask": version("fewmask"),
        }
        write_json(part / EXPORT_JSON, told)
        write_card(part, chosen.card, note=_note(layout, numbers, everything, accepted))
    return Exported(out, numbers, accepted)


def doubts(card: Card | None, records: Mapping[int, Record], numbers: tuple[int, ...]) -> tuple[str, ...]:
    """Why pairs must not be handed on, in words, by what their card tells; empty: they may."""
    report = None if card is None else card.copies
    if report is None:
        return ("nobody looked for copies of training images",)
    found = []
    if report.copies:
        named = ", ".join(name_of(number) for number in report.copies[:_NAMED])
        more = f" and {len(report.copies) - _NAMED} more" if len(report.copies) > _NAMED else ""
        found.append(f"{len(report.copies)} of {len(report.examined)} pairs are copies: {named}{more}")
    if not report.proven:
        found.append(
            "the detector of copies is unproven: it does not find all planted copies, or none was planted"
        )
    unseen = len(set(numbers) - set(report.examined))
    if unseen:
        found.append(f"{unseen} of the {len(numbers)} pairs were not looked at")
    if not set(report.examined) <= set(records) or digest_of(records, report.examined) != report.digest:
        found.append("the pairs that were looked at have changed since")
    return tuple(found)


def _judge(
    folder: Path,
    card: Card | None,
    records: Mapping[int, Record],
    numbers: tuple[int, ...],
    override: str | None,
) -> tuple[str, ...]:
    """The doubts that the override accepts; a `ConfigError` where it does not."""
    if override is not None and override.strip() != ACCEPTED:
        raise ConfigError("--override is not worded as it must be", found=override, expected=ACCEPTED)
    found = doubts(card, records, numbers)
    if found and override is None:
        raise ConfigError(
            "these pairs are not handed on: they may repeat images of patients",
            where=str(folder),
            found="; ".join(found),
            expected=f"a {CARD_JSON} that tells of no copy among these pairs, by a detector that is proven",
            mend="Make the card, or train the generator on more patients or for less long. To take it upon "
            f'yourself: --override "{ACCEPTED}"',
        )
    return found


def _selected(pairs: PairFolder, records: Mapping[int, Record], everything: bool) -> tuple[int, ...]:
    if everything:
        numbers = tuple(records)
    else:
        chosen = read_sifted(pairs)
        if chosen is None:
            raise DataError(
                "no choice was made among these pairs",
                where=str(pairs.folder),
                expected=f"a table {KEPT_CSV} of those to learn from",
                mend="Make it, or export all of them with --all.",
            )
        numbers = tuple(number for number in sorted(chosen.kept) if number in records)
    if not numbers:
        raise DataError("no pair to export", where=str(pairs.folder), found=f"{len(records)} pairs drawn")
    return numbers


def _note(layout: Layout, numbers: tuple[int, ...], everything: bool, accepted: tuple[str, ...]) -> str:
    which = "all pairs" if everything else "those that were kept"
    line = f"Exported as {_LAYOUTS[layout]}: {len(numbers)} pairs, {which}."
    if not accepted:
        return line
    return f'{line} **Exported although {"; ".join(accepted)}. Who exported them said: "{ACCEPTED}".**'


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A hidden folder to fill beside `out`, which becomes `out` at the end and is deleted on a failure.

    What a kill leaves of it is cleared by the next export to the same place.
    """
    part = out.absolute().parent / f".{out.name}.part"
    lock = part / ".lock"
    with held(lock):
        _clear(part, but=lock)
        try:
            yield part
            lock.unlink()
            part.replace(out)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise write_error(out, error) from error
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _clear(folder: Path, *, but: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry != but:
            entry.unlink()
