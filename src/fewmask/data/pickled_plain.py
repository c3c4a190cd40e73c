"""From what a pickle built to plain values: arrays, numbers, texts and containers of them."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fewmask.data.pickled_machine import MostlyPlain, describe
from fewmask.data.pickled_opcodes import printable, refuse
from fewmask.data.pickled_records import (
    ArrayRecord,
    Budget,
    NotPlainError,
    PickledObject,
    TensorRecord,
    TypeRecord,
)

DEEPEST = 100
"""Levels of containers within containers; published checkpoints have about 20."""


class Seen(NamedTuple):
    """A converted value, how many values it holds with everything shared written out, and its levels."""

    plain: Any
    values: int
    height: int


class Plainer:
    """Turns what a machine built into plain values: records into arrays, every container into a new one.

    What is shared stays shared. Loops, depths and the size with everything shared written out are limited.
    """

    def __init__(self, where: str, budget: Budget) -> None:
        self._where, self._budget = where, budget
        self._done: dict[int, Seen] = {}

    def plain(self, value: MostlyPlain) -> Any:
        """The plain value: None, bool, int, float, str, bytes, list, tuple, dict, set, array, PickledObject.

        Raises:
            DataError: the value contains itself, is too deep or too large, or a tensor is damaged.
        """
        try:
            seen = self._visit(value, 0)
        except NotPlainError as error:
            raise refuse(
                "a value is not what a checkpoint holds", self._where, found=printable(str(error))
            ) from error
        if seen.values > self._budget.values:
            raise refuse("the file unfolds to more values than any checkpoint holds", self._where)
        return seen.plain

    def _visit(self, value: Any, depth: int) -> Seen:
        if value is None or type(value) in (bool, int, float, str, bytes):
            return Seen(value, 1, 0)
        seen = self._done.get(id(value))
        if depth + (seen.height if seen else 0) > DEEPEST:
            raise NotPlainError(f"containers more than {DEEPEST} deep, or one that contains itself")
        if seen is None:
            seen = self._done[id(value)] = self._convert(value, depth + 1)
        return seen

    def _convert(self, value: Any, depth: int) -> Seen:
        if isinstance(value, TensorRecord | ArrayRecord):
            return Seen(value.array(self._budget), 1, 0)
        if isinstance(value, TypeRecord):
            return Seen(value.dtype.str, 1, 0)
        if isinstance(value, PickledObject):
            seen = self._visit(value.state, depth)
            return Seen(PickledObject(value.class_name, seen.plain), seen.values + 1, seen.height + 1)
        if type(value) is set:
            return Seen(set(value), 1 + len(value), 1)
        if type(value) in (dict, OrderedDict):
            return self._container(
                list(value.values()), lambda items: dict(zip(value, items, strict=True)), depth
            )
        if type(value) in (list, tuple):
            return self._container(value, type(value), depth)
        raise NotPlainError(f"{describe(value)} where a value should be")

    def _container(self, values: Sequence[Any], make: Callable[[list[Any]], Any], depth: int) -> Seen:
        seen = [self._visit(item, depth) for item in values]
        height = 1 + max((item.height for item in seen), default=0)
        return Seen(make([item.plain for item in seen]), 1 + sum(item.values for item in seen), height)
