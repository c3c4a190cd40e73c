"""Published checkpoints are read, and hostile ones are refused by name, with nothing run."""

import io
import pickle
import struct
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from fewmask.core.errors import DataError
from fewmask.data.pickled import PickledObject, read_pickled
from fewmask.data.torchfile import read_torch


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def call(module, name, *arguments):
    """GLOBAL module name, called with texts."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(text(a) for a in arguments) + b"tR"


def stack_call(module, name, *arguments):
    return text(module) + text(name) + b"\x93(" + b"".join(text(a) for a in arguments) + b"tR"


def proto(body, version=4):
    return bytes([0x80, version]) + body + b"."


def reduced(function, *arguments):
    """What `pickle.dumps` makes of an object whose __reduce__ asks for a call."""

    class Bait:
        def __reduce__(self):
            return function, arguments

    return Bait()


def published(state):
    """A network object as published, with a state made of raw pickle bytes, and source that must not run."""
    meta = text("type") + text("class") + text("version") + b"K\x06"
    meta += (
        text("module_src")
        + text("raise SystemExit('source was run')")
        + text("class_name")
        + text("Generator")
    )
    meta += text("state") + state
    return b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(" + meta + b"u\x85R"


def storage_bytes(inner):
    return b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(inner)) + inner + b"\x85R"


def zipped(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def laughs(levels=40):
    """A list of ten references to a list of ten references to ..."""
    body = b"]"
    for slot in range(levels):
        body += b"\x94](" + (b"h" + bytes([slot])) * 10 + b"e"
    return proto(b"(" + body + b"t")


def open_for_writing(path):
    return reduced(open, path, "w")


def touch(canary):
    return f"touch {canary}"


MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
SYSTEM = pickle.dumps({"little_endian": True}, 2)

HOSTILE = {
    # who asks for what, by every way that leads to a name
    "GLOBAL os.system": (lambda c: proto(call("os", "system", touch(c))), "os.system"),
    "GLOBAL posix.system": (lambda c: proto(call("posix", "system", touch(c))), "posix.system"),
    "GLOBAL nt.system": (lambda c: proto(call("nt", "system", touch(c))), "nt.system"),
    "STACK_GLOBAL os.system": (lambda c: proto(stack_call("os", "system", touch(c))), "os.system"),
    "STACK_GLOBAL from the memo": (
        lambda c: proto(text("system") + b"\x94" + text("os") + b"\x94](h\x01h\x00\x93e"),
        "os.system",
    ),
    "protocol 0": (lambda c: f"cos\nsystem\n(S'{touch(c)}'\ntR.".encode(), "os.system"),
    "subprocess": (lambda c: proto(stack_call("subprocess", "getoutput", touch(c))), "subprocess.getoutput"),
    "eval": (lambda c: proto(call("builtins", "eval", f"open({str(c)!r}, 'w')")), "builtins.eval"),
    "eval of protocol 2": (lambda c: proto(call("__builtin__", "eval", "1"), 2), "__builtin__.eval"),
    "exec": (lambda c: proto(call("builtins", "exec", f"open({str(c)!r}, 'w')")), "builtins.exec"),
    "open by __reduce__": (lambda c: pickle.dumps(open_for_writing(str(c))), "io.open"),
    "exec by __reduce__": (lambda c: pickle.dumps(reduced(exec, f"open({str(c)!r}, 'w')")), "builtins.exec"),
    "__import__ by __reduce__": (lambda c: pickle.dumps(reduced(__import__, "os")), "builtins.__import__"),
    "getattr chain": (
        lambda c: proto(
            b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n" + text("os") + b"\x85R" + text("system") + b"tR"
        ),
        "builtins.getattr",
    ),
    "operator.attrgetter": (lambda c: proto(call("operator", "attrgetter", "system")), "operator.attrgetter"),
    "functools.partial": (
        lambda c: pickle.dumps(__import__("functools").partial(print)),
        "functools.partial",
    ),
    "copyreg._reconstructor": (lambda c: proto(call("copyreg", "_reconstructor")), "copyreg._reconstructor"),
    "torch.load": (lambda c: proto(call("torch", "load", str(c))), "torch.load"),
    "torch.hub": (lambda c: proto(call("torch.hub", "load", str(c))), "torch.hub.load"),
    "numpy.load": (lambda c: proto(call("numpy", "load", str(c))), "numpy.load"),
    "numpy's exec": (lambda c: proto(call("numpy.testing._private.utils", "runstring", "1")), "runstring"),
    "an allowed module, another name": (lambda c: proto(call("torch._utils", "os")), "torch._utils.os"),
    "a dotted name": (lambda c: proto(stack_call("os", "path.os.system", touch(c))), "os.path.os.system"),
    "a dotted name in an allowed module": (
        lambda c: proto(stack_call("torch", "_utils._rebuild_tensor_v2.__globals__")),
        "__globals__",
    ),
    "os.path split elsewhere": (lambda c: proto(stack_call("os.path", "x.y")), "os.path.x.y"),
    "a look-alike letter": (
        lambda c: proto(stack_call("c\u043ellections", "OrderedDict")),
        r"c\u043ellections.OrderedDict",
    ),
    "a surrogate in a name": (lambda c: proto(stack_call("os\ud800", "system")), r"os\ud800.system"),
    "a name that is no text": (lambda c: proto(b"K\x01" + text("system") + b"\x93"), "STACK_GLOBAL"),
    # instructions that no checkpoint needs
    "INST": (lambda c: proto(b"(" + text(touch(c)) + b"ios\nsystem\n"), "opcode INST: os.system"),
    "OBJ": (lambda c: proto(b"(ccollections\nOrderedDict\no"), "opcode OBJ: a MARK, collections.OrderedDict"),
    "NEWOBJ": (lambda c: proto(b"ccollections\nOrderedDict\n)\x81"), "an object of collections.OrderedDict"),
    "NEWOBJ_EX": (lambda c: proto(b"ccollections\nOrderedDict\n)}\x92"), "opcode NEWOBJ_EX"),
    "EXT1": (lambda c: proto(b"\x82\x07)R"), "opcode EXT1: 7"),
    "EXT2": (lambda c: proto(b"\x83\x07\x01)R"), "opcode EXT2: 263"),
    "EXT4": (lambda c: proto(b"\x84\x07\x00\x00\x00)R"), "opcode EXT4: 7"),
    "PERSID": (lambda c: proto(b"Pstorage\n"), "opcode PERSID: storage"),
    "BINPERSID": (lambda c: proto(text("storage") + b"Q"), "opcode BINPERSID"),
    "NEXT_BUFFER": (lambda c: proto(b"\x97", 5), "opcode NEXT_BUFFER"),
    "READONLY_BUFFER": (lambda c: proto(b"C\x01a\x98", 5), "opcode READONLY_BUFFER"),
    "DUP": (lambda c: proto(b"]2e"), "opcode DUP"),
    "POP": (lambda c: proto(b"]]0"), "opcode POP"),
    "no such instruction": (lambda c: proto(b"\xff"), "opcode 0xff"),
    "protocol 9": (lambda c: proto(b"N", 9), "protocol 9"),
    # building onto what may not be built onto
    "BUILD on a dictionary": (lambda c: proto(b"}}b"), "opcode BUILD: a state for a dict"),
    "BUILD on a name": (
        lambda c: proto(b"ccollections\nOrderedDict\n}b"),
        "a state for collections.OrderedDict",
    ),
    "REDUCE of a text": (
        lambda c: proto(text("os.system") + text(touch(c)) + b"\x85R"),
        "opcode REDUCE: a call of",
    ),
    "REDUCE of a class": (lambda c: proto(b"cnumpy\nndarray\n)R"), "a call of numpy.ndarray"),
    "REDUCE of a stored call": (
        lambda c: proto(b"ccollections\nOrderedDict\n)R)R"),
        "a call of a OrderedDict",
    ),
    "an object type for numpy": (
        lambda c: proto(call("numpy", "dtype", "O8")),
        "numpy.dtype got something else",
    ),
    "a structured numpy type": (
        lambda c: proto(call("numpy", "dtype", "f8") + b"(K\x03" + text("<") + text("x") + b"NNtb"),
        "numpy.dtype without fields",
    ),
    "a key that is computed": (lambda c: proto(b"})K\x01s"), "opcode SETITEM: a key that is a tuple"),
    # hidden deeper
    "in the state of a network": (
        lambda c: proto(
            b"}" + text("G_ema") + published(b"}" + text("x") + call("os", "system", touch(c)) + b"s") + b"s"
        ),
        "os.system",
    ),
    "in the bytes of a tensor": (
        lambda c: proto(storage_bytes(MAGIC + SYSTEM + proto(call("os", "system", touch(c)), 2))),
        "os.system",
    ),
    "in the first pickle of a tensor": (
        lambda c: proto(storage_bytes(proto(call("posix", "system", touch(c)), 2))),
        "posix.system",
    ),
    "in a zip in the bytes of a tensor": (
        lambda c: proto(storage_bytes(zipped({"a/data.pkl": proto(call("os", "system", touch(c)), 2)}))),
        "os.system",
    ),
    "bytes within bytes within bytes": (
        lambda c: proto(storage_bytes(MAGIC + SYSTEM + proto(storage_bytes(b"N."), 2))),
        "torch.storage._load_from_bytes",
    ),
    # the memo
    "GET of nothing": (lambda c: proto(b"h\x05"), "opcode BINGET: memo slot 5 was never filled"),
    "LONG_BINGET of nothing": (lambda c: proto(b"j\xff\xff\xff\x7f"), "opcode LONG_BINGET"),
    "a huge PUT": (lambda c: proto(b"]r\xff\xff\xff\xff"), "opcode LONG_BINPUT: memo slot 4294967295"),
    "PUT of nothing": (lambda c: proto(b"\x94"), "opcode MEMOIZE: the stack is empty"),
    "PUT over a slot": (lambda c: proto(b"]q\x00}q\x00"), "opcode BINPUT"),
    "GET in text": (lambda c: b"]g0\n.", "opcode GET: 0"),
    "a list in itself": (lambda c: proto(b"]\x94h\x00a"), "contains itself"),
    "a dictionary in itself by a tuple": (
        lambda c: proto(b"}\x94" + text("a") + b"h\x00\x85s"),
        "contains itself",
    ),
    "billion laughs": (lambda c: laughs(), "unfolds to more values"),
    "a tower of lists": (lambda c: proto(b"]" * 200_000 + b"a" * 199_999), "100 deep"),
    "a tower of tuples": (lambda c: proto(b")" + b"\x85" * 300_000), "100 deep"),
    # sizes that lie
    "BINBYTES8 of 2**60": (
        lambda c: proto(b"\x8e" + struct.pack("<Q", 2**60)),
        "opcode BINBYTES8: claims 115292",
    ),
    "BINUNICODE8 of 2**62": (lambda c: proto(b"\x8d" + struct.pack("<Q", 2**62)), "opcode BINUNICODE8"),
    "BYTEARRAY8": (lambda c: proto(b"\x96" + struct.pack("<Q", 2**60), 5), "opcode BYTEARRAY8: 115292"),
    "LONG4 of 2**31": (lambda c: proto(b"\x8b\xff\xff\xff\x7f"), "opcode LONG4: claims 2147483647"),
    "LONG4 below zero": (lambda c: proto(b"\x8b\xff\xff\xff\xff"), "opcode LONG4: claims -1"),
    "a long integer": (lambda c: proto(b"\x8a\xff" + b"\x7f" * 255), "opcode LONG1: claims 255"),
    "an integer in text": (lambda c: b"L" + b"9" * 900 + b"L\n.", "opcode LONG"),
    "a text of 5 MiB": (lambda c: proto(text("a" * 5 * 2**20)), "opcode BINUNICODE: claims 5242880"),
    "FRAME beyond the end": (lambda c: proto(b"\x95" + struct.pack("<Q", 2**40) + b"N"), "opcode FRAME"),
    "FRAME within a FRAME": (
        lambda c: proto((b"\x95" + struct.pack("<Q", 10)) + b"\x95" + struct.pack("<Q", 1) + b"N"),
        "a FRAME within a FRAME",
    ),
    "an instruction over a FRAME's end": (
        lambda c: proto(b"\x95" + struct.pack("<Q", 2) + text("abc")),
        "over the end of its FRAME",
    ),
    "a tensor of 2**40 numbers from one": (
        lambda c: proto(
            b"ctorch._utils\n_rebuild_tensor_v2\n("
            + storage_bytes(old_storage())
            + b"K\x00\x8a\x06"
            + struct.pack("<Q", 2**39)[:6]
            + b"\x85K\x00\x85\x89}tR"
        ),
        "many times larger than the file",
    ),
    "a tensor beyond its storage": (
        lambda c: proto(
            b"ctorch._utils\n_rebuild_tensor_v2\n("
            + storage_bytes(old_storage())
            + b"K\x00K\x09\x85K\x01\x85\x89}tR"
        ),
        "reaches to number 8 of a storage of 1",
    ),
    "a storage that is cut off": (lambda c: proto(storage_bytes(old_storage()[:-1])), "cut off"),
    "a numpy array that lies": (
        lambda c: pickle.dumps(np.arange(6.0)).replace(b"K\x06\x85", b"K\x63\x85"),
        "as many numbers as the shape says",
    ),
    "a zip bomb": (
        lambda c: proto(storage_bytes(zipped({"a/data.pkl": b"\0" * 2**22}, zipfile.ZIP_DEFLATED))),
        "would grow",
    ),
    "a gzip bomb": (lambda c: __import__("gzip").compress(b"\0" * 2**24), "gzip data"),
    # damage
    "nothing": (lambda c: b"", "the file is empty"),
    "no STOP": (lambda c: b"\x80\x04}", "ends before its STOP"),
    "more after the STOP": (lambda c: proto(b"}") + b"cos\nsystem\n", "bytes follow after the STOP"),
    "two values": (lambda c: proto(b"}}"), "does not end in one value"),
    "a text": (lambda c: b"<html>not found</html>", "begin with <html>not fo"),
}


def old_storage():
    """The bytes of a torch storage of one float."""
    return old_file(torch.zeros(1).untyped_storage())


def old_file(value):
    stream = io.BytesIO()
    if isinstance(value, torch.UntypedStorage):
        value = torch.storage.TypedStorage(wrap_storage=value, dtype=torch.float32, _internal=True)
    torch.save(value, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_nothing_runs(name, tmp_path):
    make, words = HOSTILE[name]
    canary = tmp_path / "canary"
    path = tmp_path / "hostile.pkl"
    path.write_bytes(make(canary))
    began = time.process_time()
    with pytest.raises(DataError) as caught:
        read_pickled(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert not canary.exists()
    assert time.process_time() - began < 3


def test_there_are_enough_hostile_files():
    assert len(HOSTILE) > 60


def test_the_canary_would_be_seen(tmp_path):
    """Had the program been run, the file would be there: the check above can fail."""
    canary = tmp_path / "canary"
    pickle.loads(HOSTILE["GLOBAL os.system"][0](canary))
    assert canary.exists()


@pytest.mark.parametrize("name", ["GLOBAL os.system", "STACK_GLOBAL os.system", "getattr chain", "INST"])
def test_a_hostile_torch_file_is_refused(name, tmp_path):
    canary = tmp_path / "canary"
    path = tmp_path / "hostile.pth"
    inner = HOSTILE[name][0](canary)
    for data in (
        inner,
        MAGIC + SYSTEM + inner,
        zipped({"archive/data.pkl": inner, "archive/version": b"3\n"}),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match="not allowed"):
            read_torch(path)
    assert not canary.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_values_come_back(protocol, tmp_path):
    value = {
        "a": [1, -2, 2**70, 0.5, None, True, "é"],
        "b": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "c": OrderedDict([("x", {}), ("y", [])]),
        "d": {"one", 2},
    }
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert read_pickled(path) == value


@pytest.mark.parametrize("package", [b"numpy._core", b"numpy.core"])
def test_numpy_values_come_back(package, tmp_path):
    """By the name of NumPy's package of today and of 2021."""
    value = [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        np.array(True),
        np.float64(0.25),
        np.int64(-3),
    ]
    path = tmp_path / "numbers.pkl"
    path.write_bytes(pickle.dumps(value, 3).replace(b"numpy._core", package))
    for ours, theirs in zip(read_pickled(path), value, strict=True):
        np.testing.assert_array_equal(ours, theirs)


TENSORS = {
    "float": torch.arange(6.0).reshape(2, 3),
    "turned": torch.arange(6.0).reshape(2, 3).t(),
    "part": torch.arange(10.0)[3:7:2],
    "half": torch.arange(3).half(),
    "brain": torch.tensor([1.5, -2.0]).bfloat16(),
    "long": torch.tensor(7),
    "bool": torch.tensor([True, False]),
    "none": torch.zeros(0, 4),
    "parameter": torch.nn.Parameter(torch.ones(2)),
}


@pytest.mark.parametrize("new", [True, False])
def test_torch_files_come_back(new, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(
        {"state": OrderedDict(TENSORS), "step": 3, "where": torch.device("cpu")},
        path,
        _use_new_zipfile_serialization=new,
    )
    found = read_torch(path)
    assert found["step"] == 3
    assert found["where"] == "cpu"
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(
            found["state"][name],
            tensor.detach().to(torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype).numpy(),
        )
        assert found["state"][name].flags.writeable


@pytest.mark.parametrize("new", [True, False])
def test_a_module_s_state_comes_back_and_a_module_does_not(new, tmp_path):
    module = torch.nn.Linear(2, 3)
    path = tmp_path / "module.pth"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=new)
    assert set(read_torch(path)) == {"weight", "bias"}
    torch.save(module, path, _use_new_zipfile_serialization=new)
    with pytest.raises(DataError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_torch(path)


@pytest.mark.parametrize("new", [True, False])
def test_a_cut_torch_file_is_refused(new, tmp_path):
    path = tmp_path / "cut.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    for share in (0.2, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError):
            read_torch(path)


OFFICIAL = ("sg2_official_nosrc.pkl", "sg3t_official_nosrc.pkl")


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_published_snapshot_is_read(name, parity_folder):
    found = read_pickled(parity_folder / name)
    assert set(found) == {"G", "D", "G_ema", "augment_pipe", "training_set_kwargs"}
    network = found["G_ema"]
    assert isinstance(network, PickledObject)
    assert network.class_name == "Generator"
    assert network.state["_init_kwargs"]["img_resolution"] == 32
    weight = network.state["_modules"]["mapping"].state["_modules"]["fc0"].state["_parameters"]["weight"]
    assert weight.shape == (16, 16)


def test_source_text_in_a_snapshot_never_runs(parity_folder, tmp_path):
    """As published, but with source that would be seen: it stands where the text is empty in the example."""
    canary = tmp_path / "canary"
    source = f"open({str(canary)!r}, 'w')"
    data = (parity_folder / OFFICIAL[0]).read_bytes()
    slot = b"\x8c\x0amodule_src\x94\x8c\x00\x94"
    assert data.count(slot) == 1
    grown = data.replace(slot, slot[:-3] + b"\x8c" + bytes([len(source)]) + source.encode() + b"\x94")
    frame = struct.unpack_from("<Q", grown, 3)[0] + len(source)
    path = tmp_path / "with_source.pkl"
    path.write_bytes(grown[:3] + struct.pack("<Q", frame) + grown[11:])
    assert read_pickled(path)["G"].class_name == "Generator"
    assert not canary.exists()


def test_settings_of_a_published_kind_are_read(tmp_path):
    """EasyDict, and a set as protocol 3 writes it."""
    path = tmp_path / "settings.pkl"
    path.write_bytes(proto(b"cdnnlib.util\nEasyDict\n)\x81" + text("a") + b"K\x01s", 3))
    assert read_pickled(path) == {"a": 1}
    path.write_bytes(pickle.dumps({1, 2}, 2))
    assert read_pickled(path) == {1, 2}


@pytest.mark.parametrize("name", OFFICIAL)
def test_damaged_bytes_raise_only_data_errors(name, parity_folder, tmp_path):
    whole = (parity_folder / name).read_bytes()
    whole = whole[: len(whole) // 3]  # G alone is enough, and ends in an error that is ours
    chance = np.random.default_rng(3)
    path = tmp_path / "flipped.pkl"
    for _ in range(25):
        data = bytearray(whole)
        for at in chance.integers(0, len(whole), chance.integers(1, 40)):
            data[at] ^= 1 << chance.integers(8)
        path.write_bytes(data)
        with pytest.raises(DataError):
            read_pickled(path)


@pytest.mark.parametrize("new", [True, False])
def test_damaged_torch_files_raise_only_data_errors(new, tmp_path):
    path = tmp_path / "flipped.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    chance = np.random.default_rng(4)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for at in chance.integers(0, len(whole), 8):
            data[at] = chance.integers(256)
        path.write_bytes(data)
        try:
            read_torch(path)
        except DataError:
            refused += 1
    assert refused > 50


OTHERS = {
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "NIfTI": b"\x5c\x01\0\0" + bytes(344),
    "words": b"The quick brown fox\n",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    "safetensors": struct.pack("<Q", 60) + b'{"a":{}}',
    "JSON": b'{"a": 1}',
    "zeros": bytes(5000),
}


@pytest.mark.parametrize("read", [read_pickled, read_torch])
@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_kind_is_no_pickle(name, read, tmp_path):
    path = tmp_path / "file.pkl"
    path.write_bytes(OTHERS[name])
    with pytest.raises(DataError, match="this is no pickle, and so no checkpoint") as caught:
        read(path)
    assert "opcode" not in str(caught.value)
    assert "Check the path" in str(caught.value)


def test_an_archive_of_something_else_is_no_checkpoint(tmp_path):
    path = tmp_path / "slices.zip"
    path.write_bytes(zipped({"slice.txt": b"1"}))
    with pytest.raises(DataError, match="zip archive, and no checkpoint"):
        read_pickled(path)


def test_a_path_that_leads_nowhere(tmp_path):
    with pytest.raises(DataError, match="there is no such file") as caught:
        read_pickled(tmp_path / "none.pkl")
    assert "Check the path" in str(caught.value)
    assert "trust" not in str(caught.value)
    with pytest.raises(DataError, match="this is a folder"):
        read_pickled(tmp_path)


def test_a_pickle_without_the_mark_is_known_as_one(tmp_path):
    """Protocols 0 and 1 have no mark: what is refused in them is still named."""
    path = tmp_path / "old.pkl"
    path.write_bytes(pickle.dumps({"a": [1.5, "b"]}, 1))
    assert read_pickled(path) == {"a": [1.5, "b"]}
    path.write_bytes(pickle.dumps({"a": [1.5, "b"]}, 0))
    with pytest.raises(DataError, match="opcode DICT"):
        read_pickled(path)
