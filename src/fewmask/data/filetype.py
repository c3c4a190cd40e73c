"""What a file is: by its name, by its first bytes, and what to say when the two disagree."""

import gzip
import zlib
from pathlib import Path

from fewmask.core.errors import DataError

NIFTI = (".nii", ".nii.gz")
ITK = (".mhd", ".mha", ".nrrd", ".nhdr")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
DICOM = (".dcm", ".ima", ".dicom")
READABLE = (*NIFTI, *ITK, *PICTURES, *DICOM)

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"NRRD", "a NRRD volume"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
    (b"ObjectType", "a MetaImage header (MHD or MHA)"),
)


def suffix_of(path: Path) -> str:
    """The suffix that names the format, in lower case; ".nii.gz" and ".seg.nrrd" count as one."""
    name = path.name.lower()
    for double in (".nii.gz", ".seg.nrrd"):
        if name.endswith(double):
            return double
    return path.suffix.lower()


def content_of(path: Path) -> str:
    """In words, what the first bytes of a file say that it is; "" if they say nothing."""
    with path.open("rb") as stream:
        head = stream.read(400)
    if head[128:132] == b"DICM":
        return "a DICOM file"
    if head[344:347] in (b"n+1", b"ni1"):
        return "a NIfTI file without compression"
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return _inside(path) if words == "a gzip archive" else words
    if head and b"\x00" not in head and _printable(head) > 0.95:
        first_line = head.decode("utf-8", "replace").splitlines()[0]
        return f"a text file that begins with {first_line[:40]!r}"
    return ""


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's preamble."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def require_file(path: Path) -> None:
    """A `DataError` unless `path` is a file with at least one byte that may be read."""
    if not path.exists():
        raise DataError("no such file", where=str(path), found=_nearest(path), mend="Check the path.")
    if path.is_dir():
        raise DataError("is a folder, a file was expected", where=str(path))
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror})", where=str(path)) from error
    if empty:
        raise DataError(
            "is empty (0 bytes)",
            where=str(path),
            mend="Copy or export it again; the transfer was probably interrupted.",
        )


def damaged(path: Path, expected: str, cause: BaseException | str = "") -> DataError:
    """The error for a file that is not, or not completely, what its name says.

    `expected` names the format in words; `cause` is what its reader said.
    """
    content = content_of(path)
    reason = " ".join(str(cause).split())[:200]
    if isinstance(cause, EOFError | zlib.error) or "end-of-stream" in reason:
        return DataError(
            "is cut short: the end of the file is missing or damaged",
            where=str(path),
            found=f"{path.stat().st_size} bytes; {reason}",
            mend="Copy or export it again; the transfer was probably interrupted.",
        )
    if content and not content.startswith(expected.split(" (")[0]):
        return DataError(
            f"is not {expected}, whatever its name says",
            where=str(path),
            found=content,
            expected=expected,
            mend="Give it the suffix of what it is, or export the scan again.",
        )
    return DataError(
        f"cannot be read as {expected}",
        where=str(path),
        found=f"{path.stat().st_size} bytes; {reason}" if reason else f"{path.stat().st_size} bytes",
        mend="Copy or export it again: it is damaged or cut short.",
    )


def unknown_suffix(path: Path, known: tuple[str, ...], doing: str) -> DataError:
    """The error for a file name that tells no format that fewmask can `doing` ("read", "write")."""
    return DataError(
        f"fewmask cannot {doing} this kind of file",
        where=str(path),
        found=f"suffix {suffix_of(path)!r}",
        expected=", ".join(known),
        mend="Convert it, or give the file the suffix of its format.",
    )


def _inside(path: Path) -> str:
    try:
        with gzip.open(path) as stream:
            head = stream.read(348)
    except (OSError, EOFError, zlib.error):
        return "a damaged gzip archive"
    nifti = head[344:347] in (b"n+1", b"ni1") or head[4:7] == b"n+2"
    return "a gzip-compressed NIfTI file" if nifti else "a gzip archive of something else than NIfTI"


def _printable(head: bytes) -> float:
    return sum(32 <= byte < 127 or byte in b"\r\n\t" for byte in head) / len(head)


def _nearest(path: Path) -> str:
    """What does exist of a path that does not."""
    for parent in path.absolute().parents:
        if parent.is_dir():
            return (
                f"the folder {parent} exists, {path.name} is not in it"
                if parent == path.absolute().parent
                else (f"only {parent} exists")
            )
    return ""
