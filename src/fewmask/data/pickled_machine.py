"""A stack machine for pickles that can build nothing but plain values and the records of `pickled_records`.

It imports no module, calls no function that the file chooses and knows no way to do so: names are looked up
in an allow-list, and an instruction that is not among the methods below ends the reading.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fewmask.core.errors import DataError
from fewmask.data.pickled_opcodes import Instruction, decode, printable, refuse
from fewmask.data.pickled_records import (
    Allowed,
    ArrayRecord,
    Budget,
    Name,
    NotPlainError,
    Storage,
    TypeRecord,
)

MARK = object()
MostlyPlain = Any
"""A plain value in which records of `pickled_records` still stand."""


class Machine:
    """Runs one pickle.

    Args:
        data: the bytes that hold the pickle.
        where: names the file and the place of `data` in it, for errors.
        allowed: the names that the pickle may use.
        budget: shared by all pickles of one file.
        storage: gives the storage of a persistent identity (torch files only); None refuses them.
    """

    def __init__(
        self,
        data: bytes,
        where: str,
        allowed: Allowed,
        budget: Budget,
        storage: Callable[[Any], Storage] | None = None,
    ) -> None:
        self._data, self._where = data, where
        self._allowed, self._budget, self._storage = allowed, budget, storage
        self._stack: list[Any] = []
        self._memo: list[Any] = []
        self._now = Instruction("", None, 0, 0)
        self._frame_end = 0

    def run(self, start: int = 0) -> tuple[MostlyPlain, int]:
        """The value that the pickle at byte `start` builds, and the position after its STOP.

        Raises:
            DataError: anything but plain values was asked for, or the pickle is damaged; the error names the
                instruction, the name and the byte.
        """
        self._stack, self._memo, self._frame_end = [], [], start
        at = start
        while True:
            self._now = now = decode(self._data, at, self._where)
            self._budget.instructions -= 1
            if self._budget.instructions < 0:
                raise self._error("the pickle has more instructions than any checkpoint needs")
            if now.start < self._frame_end < now.end:
                raise self._error("an instruction reaches over the end of its FRAME")
            if now.name == "STOP":
                return self._last(start), now.end
            step = _STEPS.get(now.name)
            if step is None:
                raise self._refused_instruction()
            try:
                step(self)
            except NotPlainError as error:
                raise self._error("a value is not what a checkpoint holds", detail=str(error)) from error
            at = now.end

    # --- errors --------------------------------------------------------------------------------------------

    def _error(self, what: str, *, detail: str = "") -> DataError:
        now = self._now
        return refuse(
            what,
            f"{self._where}, byte {now.start}",
            found=f"opcode {now.name}" + (f": {printable(detail)}" if detail else ""),
            expected="tensors, numbers, names and containers of them",
        )

    def _refused_instruction(self) -> DataError:
        argument = self._now.argument
        if isinstance(argument, tuple):
            argument = ".".join(argument)
        detail = (
            "" if argument is None else str(argument if not isinstance(argument, bytes) else len(argument))
        )
        if self._now.name in ("OBJ", "NEWOBJ_EX", "BINPERSID") and self._stack:
            detail = ", ".join(describe(item) for item in self._stack[-3:])
        return self._error("the checkpoint asks for an instruction that is not allowed", detail=detail)

    # --- the stack -----------------------------------------------------------------------------------------

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is MARK:
            raise NotPlainError("the stack is empty")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is MARK:
            raise NotPlainError("the stack is empty")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is MARK:
                items = self._stack[index + 1 :]
                del self._stack[index:]
                return items
        raise NotPlainError("there is no MARK")

    def _last(self, start: int) -> Any:
        if len(self._stack) != 1 or self._stack[0] is MARK:
            raise self._error("the pickle that begins at byte " + str(start) + " does not end in one value")
        return self._stack[0]

    # --- instructions --------------------------------------------------------------------------------------

    def _proto(self) -> None:
        if not 2 <= int(self._number()) <= 5:
            raise NotPlainError(f"protocol {self._number()}; 2 to 5 are read")

    def _frame(self) -> None:
        length = self._number()
        if self._now.start < self._frame_end:
            raise NotPlainError("a FRAME within a FRAME")
        if length > len(self._data) - self._now.end:
            left = len(self._data) - self._now.end
            raise NotPlainError(f"claims {length} bytes, {left} are left")
        self._frame_end = self._now.end + length

    def _number(self) -> int:
        assert isinstance(self._now.argument, int)
        return self._now.argument

    def _push_argument(self) -> None:
        self._push(self._now.argument)

    def _memoize(self) -> None:
        self._memo.append(self._top())

    def _put(self) -> None:
        if self._number() != len(self._memo):
            raise NotPlainError(f"memo slot {self._number()} where slot {len(self._memo)} comes next")
        self._memoize()

    def _get(self) -> None:
        if self._number() >= len(self._memo):
            raise NotPlainError(f"memo slot {self._number()} was never filled")
        self._push(self._memo[self._number()])

    def _tuple(self, count: int) -> None:
        self._push(tuple(reversed([self._pop() for _ in range(count)])))

    def _append_all(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise NotPlainError(f"items for {describe(target)}, which is no list")
        target.extend(items)

    def _append_one(self) -> None:
        item = self._pop()
        self._append_all([item])

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) not in (dict, OrderedDict):
            raise NotPlainError(f"keys for {describe(target)}, which is no dictionary")
        if len(items) % 2:
            raise NotPlainError("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise NotPlainError(f"a key that is {describe(key)}; names and whole numbers are read")
            target[key] = value

    def _set_one(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _add_items(self) -> None:
        items, target = self._pop_to_mark(), self._top()
        if type(target) is not set or any(type(item) not in (str, int) for item in items):
            raise NotPlainError(f"set items for {describe(target)}")
        target.update(items)

    def _global(self) -> None:
        assert isinstance(self._now.argument, tuple)
        self._push_name(*self._now.argument)

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise NotPlainError(f"a name made of {describe(module)} and {describe(name)}")
        self._push_name(module, name)

    def _push_name(self, module: str, name: str) -> None:
        found = self._allowed.get((module, name))
        if found is None:
            raise refuse(
                f"the checkpoint asks for {printable(module)}.{printable(name)}, which is not allowed",
                f"{self._where}, byte {self._now.start}",
                found=f"opcode {self._now.name}, global {printable(module)}.{printable(name)}",
                expected="tensors, numbers, names and containers of them",
            )
        self._push(found)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._push(self._call(function, arguments))

    def _new_object(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Name) or function.title != "dnnlib.util.EasyDict":
            raise NotPlainError(f"an object of {describe(function)}")
        self._push(self._call(function, arguments))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or function.build is None or type(arguments) is not tuple:
            raise NotPlainError(f"a call of {describe(function)} with {describe(arguments)}")
        try:
            return function.build(*arguments)
        except NotPlainError as error:
            raise NotPlainError(f"{function.title} got something else: {error}") from error
        except TypeError as error:  # another number of arguments
            raise NotPlainError(f"{function.title} got {len(arguments)} arguments") from error
        except DataError as error:  # from bytes within the bytes, with a place of its own
            problem = replace(
                error.problems[0],
                where=f"{self._where}, byte {self._now.start}, in " + error.problems[0].where,
            )
            raise DataError(**vars(problem)) from error

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, ArrayRecord | TypeRecord):
            target.build(state)
        elif type(target) is not OrderedDict or type(state) is not dict:
            raise NotPlainError(f"a state for {describe(target)}")
        # The attributes of a state dictionary ("_metadata") are left out.

    def _persistent(self) -> None:
        if self._storage is None:
            raise self._refused_instruction()
        self._push(self._storage(self._pop()))


_STEPS: Mapping[str, Callable[[Machine], None]] = {
    "PROTO": Machine._proto,
    "FRAME": Machine._frame,
    "MARK": lambda m: m._push(MARK),
    "NONE": lambda m: m._push(None),
    "NEWTRUE": lambda m: m._push(True),
    "NEWFALSE": lambda m: m._push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), Machine._push_argument),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), Machine._push_argument),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), Machine._push_argument),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), Machine._push_argument),
    "EMPTY_TUPLE": lambda m: m._tuple(0),
    "TUPLE1": lambda m: m._tuple(1),
    "TUPLE2": lambda m: m._tuple(2),
    "TUPLE3": lambda m: m._tuple(3),
    "TUPLE": lambda m: m._push(tuple(m._pop_to_mark())),
    "EMPTY_LIST": lambda m: m._push([]),
    "APPEND": Machine._append_one,
    "APPENDS": lambda m: m._append_all(m._pop_to_mark()),
    "EMPTY_DICT": lambda m: m._push({}),
    "SETITEM": Machine._set_one,
    "SETITEMS": lambda m: m._set_items(m._pop_to_mark()),
    "EMPTY_SET": lambda m: m._push(set()),
    "ADDITEMS": Machine._add_items,
    "MEMOIZE": Machine._memoize,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._new_object,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}
"""Every instruction that is run. STOP ends; all others are refused by name."""


def describe(value: Any) -> str:
    """A few words for a value on the stack; never its contents at length."""
    if isinstance(value, Name):
        return value.title
    if value is MARK:
        return "a MARK"
    if isinstance(value, str):
        return f"the text {printable(value)!r}"
    return f"a {type(value).__name__}"
