"""The instructions of a pickle as data: what each is called and which argument follows it.

A pickle is a program for a small stack machine. Here a program is only taken apart; `pickled_machine` runs
the few instructions that build plain values.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fewmask.core.errors import DataError

LONGEST_TEXT = 4 * 2**20
"""Bytes of the longest string; the source text in a published checkpoint has some 50 000."""
LONGEST_INTEGER = 16
"""Bytes of the longest integer; the mark of a torch file has 10."""

LONGEST_LOOK = 1000
"""Instructions after which a file without the mark of a pickle is taken for one."""
NAMING = ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "REDUCE", "OBJ")
"""Instructions that ask for more than plain values, or call it."""

Argument = int | float | str | bytes | tuple[str, str] | None


def refuse(what: str, where: str, *, found: str = "", expected: str = "") -> DataError:
    """The error for a checkpoint that is not read on, with what a user should do."""
    return DataError(
        what,
        where=where,
        found=found,
        expected=expected,
        mend="Nothing of the file was run. Get the checkpoint again from a source that you trust; if it is "
        "another kind of checkpoint, let the program that wrote it export safetensors.",
    )


def refuse_other_files(data: bytes, where: str) -> None:
    """Raise a `DataError` for bytes that are no pickle at all, so that nobody reads of instructions then.

    A pickle is known by its mark (PROTO, from protocol 2 on), or else by instructions that can be read up to
    its STOP or to the first one that names something.
    """
    if data[:1] == b"\x80":
        return
    at, left = 0, LONGEST_LOOK
    try:
        while left and data:
            instruction = decode(data, at, where)
            if instruction.name in ("STOP", *NAMING):
                return
            at, left = instruction.end, left - 1
    except DataError:
        left = 1
    if left:
        raise DataError(
            "this is no pickle, and so no checkpoint of StyleGAN or torch" if data else "the file is empty",
            where=where,
            found="bytes that begin with " + printable(data[:12].decode("latin-1")) if data else "0 bytes",
            expected="a checkpoint, as the program that trained the network wrote it (.pkl, .pth)",
            mend="Check the path. After a download: a page of an error or of Git LFS has come instead?",
        )


def printable(text: str) -> str:
    """`text` in ASCII, look-alike letters escaped, cut after 80 characters."""
    escaped = ascii(text)[1:-1]
    return escaped if len(escaped) <= 80 else escaped[:80] + "..."


@dataclass(frozen=True)
class Instruction:
    """One instruction: where it stands (`start`, `end` in bytes), its name and its argument."""

    name: str
    argument: Argument
    start: int
    end: int


Reader = Callable[[bytes, int], tuple[Argument, int]]
"""From the bytes and a position, the argument and the position after it."""


def decode(data: bytes, start: int, where: str) -> Instruction:
    """The instruction at byte `start`.

    Raises:
        DataError: the bytes end within it, no such instruction exists, or its argument is too long.
    """
    here = f"{where}, byte {start}"
    if start >= len(data):
        raise refuse("the pickle ends before its STOP", here, found="the end of the data")
    name, reader = _TABLE.get(data[start], ("", None))
    if not name:
        raise refuse("this is no instruction of a pickle", here, found=f"opcode 0x{data[start]:02x}")
    if reader is None:
        return Instruction(name, None, start, start + 1)
    try:
        argument, end = reader(data, start + 1)
    except (struct.error, ValueError) as error:
        raise refuse(
            f"the argument of {name} is damaged or longer than allowed", here, found=f"opcode {name}: {error}"
        ) from error
    return Instruction(name, argument, start, end)


def _number(layout: str) -> Reader:
    unpack, size = struct.Struct(layout).unpack_from, struct.calcsize(layout)

    def read(data: bytes, at: int) -> tuple[Argument, int]:
        return unpack(data, at)[0], at + size

    return read


def _slice(data: bytes, at: int, length: int, most: int | None = None) -> bytes:
    if most is not None and length > most:
        raise ValueError(f"claims {length} bytes, at most {most} are read")
    if length > len(data) - at:
        raise ValueError(f"claims {length} bytes, {max(len(data) - at, 0)} are left")
    return data[at : at + length]


def _counted(layout: str, convert: Callable[[bytes], Argument], most: int | None) -> Reader:
    """A length, then that many bytes."""
    unpack, size = struct.Struct(layout).unpack_from, struct.calcsize(layout)

    def read(data: bytes, at: int) -> tuple[Argument, int]:
        length = unpack(data, at)[0]
        if length < 0:
            raise ValueError(f"claims {length} bytes")
        return convert(_slice(data, at + size, length, most)), at + size + length

    return read


def _line(data: bytes, at: int) -> tuple[str, int]:
    end = data.find(b"\n", at, at + 1024)
    if end < 0:
        raise ValueError("a line of text without an end")
    return data[at:end].decode("utf-8"), end + 1


def _text_line(data: bytes, at: int) -> tuple[Argument, int]:
    return _line(data, at)


def _two_lines(data: bytes, at: int) -> tuple[Argument, int]:
    first, at = _line(data, at)
    second, at = _line(data, at)
    return (first, second), at


def _integer(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


def _latin(raw: bytes) -> str:
    return raw.decode("latin-1")


def _utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


_U1, _U2, _I4, _U4, _U8 = (_number(layout) for layout in ("<B", "<H", "<i", "<I", "<Q"))

_TABLE: Mapping[int, tuple[str, Reader | None]] = {
    ord("("): ("MARK", None),
    ord("."): ("STOP", None),
    ord("0"): ("POP", None),
    ord("1"): ("POP_MARK", None),
    ord("2"): ("DUP", None),
    ord("F"): ("FLOAT", _text_line),
    ord("I"): ("INT", _text_line),
    ord("J"): ("BININT", _I4),
    ord("K"): ("BININT1", _U1),
    ord("L"): ("LONG", _text_line),
    ord("M"): ("BININT2", _U2),
    ord("N"): ("NONE", None),
    ord("P"): ("PERSID", _text_line),
    ord("Q"): ("BINPERSID", None),
    ord("R"): ("REDUCE", None),
    ord("S"): ("STRING", _text_line),
    ord("T"): ("BINSTRING", _counted("<i", _latin, LONGEST_TEXT)),
    ord("U"): ("SHORT_BINSTRING", _counted("<B", _latin, LONGEST_TEXT)),
    ord("V"): ("UNICODE", _text_line),
    ord("X"): ("BINUNICODE", _counted("<I", _utf8, LONGEST_TEXT)),
    ord("a"): ("APPEND", None),
    ord("b"): ("BUILD", None),
    ord("c"): ("GLOBAL", _two_lines),
    ord("d"): ("DICT", None),
    ord("}"): ("EMPTY_DICT", None),
    ord("e"): ("APPENDS", None),
    ord("g"): ("GET", _text_line),
    ord("h"): ("BINGET", _U1),
    ord("i"): ("INST", _two_lines),
    ord("j"): ("LONG_BINGET", _U4),
    ord("l"): ("LIST", None),
    ord("]"): ("EMPTY_LIST", None),
    ord("o"): ("OBJ", None),
    ord("p"): ("PUT", _text_line),
    ord("q"): ("BINPUT", _U1),
    ord("r"): ("LONG_BINPUT", _U4),
    ord("s"): ("SETITEM", None),
    ord("t"): ("TUPLE", None),
    ord(")"): ("EMPTY_TUPLE", None),
    ord("u"): ("SETITEMS", None),
    ord("G"): ("BINFLOAT", _number(">d")),
    ord("B"): ("BINBYTES", _counted("<I", bytes, None)),
    ord("C"): ("SHORT_BINBYTES", _counted("<B", bytes, None)),
    0x80: ("PROTO", _U1),
    0x81: ("NEWOBJ", None),
    0x82: ("EXT1", _U1),
    0x83: ("EXT2", _U2),
    0x84: ("EXT4", _I4),
    0x85: ("TUPLE1", None),
    0x86: ("TUPLE2", None),
    0x87: ("TUPLE3", None),
    0x88: ("NEWTRUE", None),
    0x89: ("NEWFALSE", None),
    0x8A: ("LONG1", _counted("<B", _integer, LONGEST_INTEGER)),
    0x8B: ("LONG4", _counted("<i", _integer, LONGEST_INTEGER)),
    0x8C: ("SHORT_BINUNICODE", _counted("<B", _utf8, LONGEST_TEXT)),
    0x8D: ("BINUNICODE8", _counted("<Q", _utf8, LONGEST_TEXT)),
    0x8E: ("BINBYTES8", _counted("<Q", bytes, None)),
    0x8F: ("EMPTY_SET", None),
    0x90: ("ADDITEMS", None),
    0x91: ("FROZENSET", None),
    0x92: ("NEWOBJ_EX", None),
    0x93: ("STACK_GLOBAL", None),
    0x94: ("MEMOIZE", None),
    0x95: ("FRAME", _U8),
    0x96: ("BYTEARRAY8", _U8),
    0x97: ("NEXT_BUFFER", None),
    0x98: ("READONLY_BUFFER", None),
}
