"""A preset, a YAML file and `key=value` words become one tree of settings; a slip of the pen gets a hint."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fewmask.core.errors import ConfigError, Problem

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class Preset:
    """A named set of settings: what it is for, its command, how long it takes where, and what to expect."""

    name: str
    purpose: str
    command: str
    hours: str
    expected: str
    settings: Mapping[str, Any]


def preset_names(recipe: str) -> list[str]:
    """Names of the presets of `recipe`, sorted."""
    folder = resources.files("fewmask.recipes").joinpath("presets", recipe)
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def read_preset(recipe: str, name: str) -> Preset:
    """The preset `name` of `recipe`; a `ConfigError` lists those that exist."""
    names = preset_names(recipe)
    if name not in names:
        raise ConfigError(
            f"there is no preset {name!r} for {recipe}{_did_you_mean(name, names)}",
            expected=", ".join(names),
        )
    file = resources.files("fewmask.recipes").joinpath("presets", recipe, f"{name}.yaml")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return Preset(name=name, **content)


def build(kind: type[S], layers: Sequence[Mapping[str, Any]]) -> S:
    """Settings of `kind` from layers, later ones on top; all faults are told at once in a `ConfigError`."""
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise ConfigError.of([_problem(kind, entry) for entry in error.errors()]) from error


def read_config(path: Path) -> dict[str, Any]:
    """Settings from a YAML file."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"is not YAML ({error})", where=str(path)) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("must hold keys and values", where=str(path), found=type(content).__name__)
    return content


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`["unet.images=800", "shots.counts=[1, 8]"]` as a nested dictionary; values are YAML."""
    tree: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"{word!r} is not of the form key=value",
                mend="For example: unet.images=800 shots.counts='[1, 8]'",
            )
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of {key} is not YAML: {value!r}") from error
        branch: dict[str, Any] = {}
        leaf = branch
        *parents, last = key.split(".")
        for parent in parents:
            leaf = leaf.setdefault(parent, {})
        leaf[last] = parsed
        _merge(tree, branch)
    return tree


def keys(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every setting as (dotted key, default, doc), in order."""
    for name, field in kind.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from keys(type(default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", default, field.description or ""


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict) and key != "classes":
            _merge(below[key], value)
        else:
            below[key] = dict(value) if isinstance(value, Mapping) else value


def _problem(kind: type[BaseModel], entry: Any) -> Problem:
    where = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "extra_forbidden":
        known = [key for key, _, _ in keys(kind)]
        groups = sorted({key.split(".")[0] for key in known})
        return Problem(
            f"there is no setting {where!r}{_did_you_mean(where, known + groups)}",
            mend="`fewmask run RECIPE --settings` lists them all.",
        )
    return Problem(entry["msg"].removeprefix("Value error, "), where=where, found=repr(entry["input"]))


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` or nothing. The last part of a dotted key counts by itself too."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:
        last = word.rpartition(".")[2]
        by_last = {key.rpartition(".")[2]: key for key in known}
        near = [by_last[match] for match in difflib.get_close_matches(last, by_last, n=1, cutoff=0.7)]
    return f"; did you mean {near[0]!r}?" if near else ""
