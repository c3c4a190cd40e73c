"""Which classes a cohort has and which label value each wears."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from fewmask.core.errors import ConfigError
from fewmask.core.files import read_json
from fewmask.core.volume import IGNORE
from fewmask.data.case import FOREGROUND

CLASSES_JSON = "classes.json"
"""The file beside a cohort that declares its classes: {"anterior": 1, "posterior": 2}."""

CHANNELS_JSON = "channels.json"
"""The file beside a folder of coloured pictures that names their channels: {"t1": 0, "flair": 1}."""

HOW_TO_DECLARE = (
    'Declare every class: a classes.json beside the masks, e.g. {"anterior": 1, "posterior": 2}, '
    "or the argument classes=."
)


def valid_classes(classes: Mapping[str, Any], where: str) -> dict[str, int]:
    """`classes` when it is a proper declaration: names to the values 1..n, each once, in any order.

    Raises:
        ConfigError: an empty declaration, a value that is no whole number, twice the same value, or a gap.
    """
    values = list(classes.values())
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    names = all(isinstance(name, str) and name.strip() for name in classes)
    if classes and whole and names and sorted(values) == list(range(1, len(values) + 1)):
        if len(values) >= IGNORE:
            raise ConfigError(f"{len(values)} classes are more than a mask can hold (254)", where=where)
        return dict(classes)
    raise ConfigError(
        "is not a declaration of classes",
        where=where,
        found=str(dict(classes)),
        expected="class names with the label values 1, 2, ... n, each once "
        f"(0 is the background, {IGNORE} means unjudged; neither is declared)",
        mend="Correct the values; masks with other values must be relabelled to 1..n first.",
    )


def classes_from_text(text: str, where: str) -> dict[str, int]:
    """The classes in a word of the command line, "{anterior: 1, posterior: 2}".

    Raises:
        ConfigError: no such mapping.
    """
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ConfigError(
            "is no mapping of names to label values",
            where=where,
            found=text,
            mend="e.g. '{anterior: 1, posterior: 2}'",
        )
    return valid_classes(parsed, where)


def declared_classes(folder: Path) -> dict[str, int] | None:
    """The classes of the `classes.json` in `folder`; None when there is no such file."""
    path = folder / CLASSES_JSON
    if not path.is_file():
        return None
    value = read_json(path)
    if not isinstance(value, dict):
        raise ConfigError("is not a declaration of classes", where=str(path), mend=HOW_TO_DECLARE)
    return valid_classes({key: number for key, number in value.items() if number != 0}, str(path))


def declared_channels(folder: Path) -> dict[str, int] | None:
    """The channels of the `channels.json` in `folder`; None when there is no such file."""
    path = folder / CHANNELS_JSON
    return valid_channels(read_json(path), str(path)) if path.is_file() else None


def valid_channels(channels: Any, where: str) -> dict[str, int]:
    """`channels` when it maps names to whole numbers from 0; else a `ConfigError`."""
    if isinstance(channels, Mapping) and channels:
        numbers = [n for n in channels.values() if isinstance(n, int) and not isinstance(n, bool) and n >= 0]
        if len(numbers) == len(channels):
            return dict(channels)
    raise ConfigError(
        "is not a naming of channels",
        where=where,
        found=str(channels),
        expected='names with channel numbers from 0, e.g. {"t1": 0, "flair": 1}',
        mend="Correct it.",
    )


def classes_from_names(names: Iterable[str]) -> dict[str, int]:
    """Classes 1..n in sorted order of their names; one class "foreground" when there are no names."""
    unique = sorted(set(names))
    return {name: value for value, name in enumerate(unique, start=1)} or {FOREGROUND: 1}
