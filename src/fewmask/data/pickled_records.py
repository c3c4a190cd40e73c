"""What a pickled checkpoint may build: records of ours that only hold values, and the names for them.

A name that the pickle asks for ("torch._utils._rebuild_tensor_v2") is looked up in an allow-list of pure
functions written here. The module of that name is never imported, and a name outside of the list ends the
reading.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_DIMENSIONS = 8


class NotPlainError(Exception):
    """The arguments of an allowed name are not what it takes. The machine turns it into a `DataError`."""


@dataclass
class Budget:
    """What may still be spent on one file, however its parts are nested."""

    array_bytes: int
    """In all arrays. A checkpoint holds every number once, so its own size is the measure."""
    instructions: int = 20_000_000
    values: int = 20_000_000
    """Values in the result when everything that is shared is written out."""

    @classmethod
    def of(cls, file_bytes: int) -> "Budget":
        """For a file of that size."""
        return cls(array_bytes=4 * file_bytes + 2**20)

    def spend_bytes(self, count: int) -> None:
        """Set `count` bytes of arrays aside; a `NotPlainError` when the limit is passed."""
        self.array_bytes -= count
        if self.array_bytes < 0:
            raise NotPlainError("the arrays are many times larger than the file")


@dataclass(frozen=True)
class Name:
    """An allowed name on the stack: what it `build`s from the arguments of a call; None for a mere label."""

    title: str
    build: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Element:
    """A label for the type of a torch storage's numbers. "bfloat16" has no NumPy type and is widened."""

    code: str


@dataclass(eq=False)
class Storage:
    """The numbers of a torch tensor, one after the other. In older files they follow after the pickle."""

    element: str
    count: int
    raw: bytes | memoryview | None = None

    @property
    def item_bytes(self) -> int:
        """Bytes per number."""
        return 2 if self.element == "bfloat16" else np.dtype(self.element).itemsize

    @cached_property
    def numbers(self) -> NDArray[Any]:
        """(count,)."""
        if self.raw is None:
            raise NotPlainError("a tensor without its numbers")
        if self.element == "bfloat16":
            widened = np.frombuffer(self.raw, "<u2").astype(np.uint32) << np.uint32(16)
            return widened.view(np.float32)
        if self.element == "?":
            return np.frombuffer(self.raw, "u1").astype(np.bool_)
        return np.frombuffer(self.raw, self.element)


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """A view of a storage: offset and strides in numbers."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self, budget: Budget) -> NDArray[Any]:
        """The tensor as an array of its own."""
        numbers = self.storage.numbers
        count = math.prod(self.size)
        budget.spend_bytes(count * numbers.itemsize)
        last = self.offset + sum(
            (n - 1) * step for n, step in zip(self.size, self.stride, strict=True) if n > 0
        )
        if count and last >= len(numbers):
            raise NotPlainError(f"a tensor reaches to number {last} of a storage of {len(numbers)}")
        if not count:
            return np.empty(self.size, numbers.dtype)
        steps = [step * numbers.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, steps, writeable=False)
        return view.copy()


@dataclass(eq=False)
class TypeRecord:
    """A NumPy type: its letter and size, e.g. "f8", and the order of bytes, which BUILD sets."""

    code: str
    order: str = "<"

    def build(self, state: Any) -> None:
        """Take over (version, order, None, None, None, ...)."""
        _expect(isinstance(state, tuple) and 2 <= len(state) <= 9, "the state of a numpy.dtype")
        _expect(state[1] in ("<", ">", "|", "="), "the byte order of a numpy.dtype")
        _expect(all(part is None for part in state[2:5]), "a numpy.dtype without fields")
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As NumPy names it."""
        return np.dtype(f"{self.order}{self.code}")


@dataclass(eq=False)
class ArrayRecord:
    """A NumPy array, filled by BUILD."""

    shape: tuple[int, ...] = (0,)
    type: TypeRecord | None = None
    fortran: bool = False
    raw: bytes = b""

    def build(self, state: Any) -> None:
        """Take over (version, shape, dtype, fortran, bytes)."""
        _expect(isinstance(state, tuple) and len(state) == 5, "the state of a numpy.ndarray")
        _, shape, kind, fortran, raw = state
        _expect(isinstance(kind, TypeRecord) and isinstance(raw, bytes), "numbers in a numpy.ndarray")
        self.shape, self.type, self.fortran, self.raw = _sizes(shape), kind, bool(fortran), raw

    def array(self, budget: Budget) -> NDArray[Any]:
        """The array, owning its numbers."""
        if self.type is None:
            raise NotPlainError("a numpy.ndarray that was never filled")
        dtype = self.type.dtype
        _expect(math.prod(self.shape) * dtype.itemsize == len(self.raw), "as many numbers as the shape says")
        budget.spend_bytes(len(self.raw))
        flat = np.frombuffer(self.raw, dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C").astype(dtype.newbyteorder("="))


@dataclass(frozen=True, eq=False)
class PickledObject:
    """An object of a class that is not ours: the class's name and the fields. Its code was never run."""

    class_name: str
    state: Mapping[str, Any]


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise NotPlainError(f"expected {what}")


def _sizes(value: Any) -> tuple[int, ...]:
    _expect(
        isinstance(value, tuple | list)
        and len(value) <= MOST_DIMENSIONS
        and all(type(n) is int and 0 <= n < 2**40 for n in value),
        f"up to {MOST_DIMENSIONS} whole numbers from 0 as a shape",
    )
    return tuple(value)


# --- one function per allowed name; each takes the pickled arguments ----------------------------------------


def _ordered_dict(*args: Any) -> OrderedDict[Any, Any]:
    if not args:
        return OrderedDict()
    _expect(len(args) == 1 and isinstance(args[0], list), "a list of pairs")
    _expect(all(isinstance(p, list | tuple) and len(p) == 2 for p in args[0]), "a list of pairs")
    _expect(all(type(key) in (str, int) for key, _ in args[0]), "names or numbers as keys")
    return OrderedDict(args[0])


def _set(*args: Any) -> set[Any]:
    if not args:
        return set()
    _expect(len(args) == 1 and isinstance(args[0], list | tuple), "a list")
    _expect(all(type(item) in (str, int) for item in args[0]), "names or numbers in a set")
    return set(args[0])


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    _expect(isinstance(storage, Storage), "a storage")
    _expect(type(offset) is int and 0 <= offset < 2**40, "a whole number from 0 as offset")
    size, stride = _sizes(size), _sizes(stride)
    _expect(len(size) == len(stride), "a stride per dimension")
    return TensorRecord(storage, offset, size, stride)


def _parameter(data: Any, *_: Any) -> TensorRecord:
    _expect(isinstance(data, TensorRecord), "a tensor")
    record: TensorRecord = data
    return record


def _size(*args: Any) -> tuple[int, ...]:
    _expect(len(args) == 1, "one shape")
    return _sizes(args[0])


def _device(*args: Any) -> str:
    _expect(bool(args) and all(type(a) in (str, int) for a in args), "the name of a device")
    return ":".join(str(a) for a in args)


_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def _dtype(*args: Any) -> TypeRecord:
    _expect(bool(args) and args[0] in _TYPES, f"a numpy.dtype of numbers ({', '.join(_TYPES)})")
    return TypeRecord(args[0])


def _scalar(*args: Any) -> bool | int | float:
    _expect(len(args) == 2 and isinstance(args[0], TypeRecord) and isinstance(args[1], bytes), "a number")
    dtype = args[0].dtype
    _expect(len(args[1]) == dtype.itemsize, "one number")
    value: bool | int | float = np.frombuffer(args[1], dtype)[0].item()
    return value


def _empty_array(*args: Any) -> ArrayRecord:
    _expect(bool(args) and args[0] is NDARRAY, "the class numpy.ndarray")
    return ArrayRecord()


def _persistent_object(*args: Any) -> PickledObject:
    """The source text beside the name and the fields is dropped unread."""
    _expect(len(args) == 1 and isinstance(args[0], dict), "one record of an object")
    meta = args[0]
    _expect(meta.get("type") == "class" and isinstance(meta.get("class_name"), str), "an object of a class")
    state = meta.get("state")
    _expect(isinstance(state, dict) and all(isinstance(key, str) for key in state), "fields with names")
    return PickledObject(meta["class_name"], state)


NDARRAY = Name("numpy.ndarray")

_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_TORCH_TYPES = (
    "float16",
    "float32",
    "float64",
    "bfloat16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "bool",
)

Allowed = Mapping[tuple[str, str], Any]
"""By module and name, what is put on the stack: a `Name`, or a plain value that the name stands for."""


def _named(functions: Mapping[str, Callable[..., Any]]) -> dict[tuple[str, str], Any]:
    return {
        (title.rpartition(".")[0], title.rpartition(".")[2]): Name(title, function)
        for title, function in functions.items()
    }


NUMPY_NAMES: Allowed = {
    ("numpy", "ndarray"): NDARRAY,
    **_named(
        {
            "numpy.dtype": _dtype,
            "numpy.core.multiarray.scalar": _scalar,
            "numpy._core.multiarray.scalar": _scalar,
            "numpy.core.multiarray._reconstruct": _empty_array,
            "numpy._core.multiarray._reconstruct": _empty_array,
        }
    ),
}

TENSOR_NAMES: Allowed = {
    **_named(
        {
            "collections.OrderedDict": _ordered_dict,
            "torch._utils._rebuild_tensor": _tensor,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
            "torch.Size": _size,
            "torch.device": _device,
            "builtins.set": _set,
            "__builtin__.set": _set,
        }
    ),
    **{("torch", name): Element(code) for name, code in _STORAGES.items()},
    **{("torch", name): f"torch.{name}" for name in _TORCH_TYPES},
}
"""What a torch file may name."""

SNAPSHOT_NAMES: Allowed = {
    **NUMPY_NAMES,
    **TENSOR_NAMES,
    **_named(
        {
            "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
            "dnnlib.util.EasyDict": _ordered_dict,
        }
    ),
}
"""What a published snapshot of StyleGAN2-ADA or StyleGAN3 may name, besides the bytes of its storages."""
