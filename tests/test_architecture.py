"""The laws of the house (docs/architecture.md), as tests."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "fewmask"
FILES = sorted(SOURCE.rglob("*.py"))
LONG_FUNCTIONS_ALLOWED = {("training/loop.py", "fit"): 120}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _code_lines(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body that hold code: no signature, docstring, comment or blank line."""
    body = node.body
    first = body[0]
    is_docstring = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    skipped = set(range(first.lineno, (first.end_lineno or 0) + 1)) if is_docstring else set()
    lines = path.read_text(encoding="utf-8").splitlines()
    return sum(
        1
        for number in range(first.lineno, (node.end_lineno or first.lineno) + 1)
        if number not in skipped
        and lines[number - 1].strip()
        and not lines[number - 1].strip().startswith("#")
    )


def _functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in FILES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def _strings_outside_docstrings(tree: ast.Module) -> Iterator[str]:
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_files_are_short() -> None:
    long = {_name(path): n for path in FILES if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_functions_are_short() -> None:
    long = {
        f"{_name(path)}:{node.name}": n
        for path, node in _functions()
        if (n := _code_lines(path, node)) > LONG_FUNCTIONS_ALLOWED.get((_name(path), node.name), 40)
    }
    assert not long


def test_no_utils() -> None:
    assert not [path for path in FILES if path.stem in {"utils", "util", "helpers", "misc"}]


def test_every_package_and_module_has_a_docstring() -> None:
    assert not [_name(path) for path in FILES if not ast.get_docstring(_tree(path))]


def test_tests_mirror_the_package() -> None:
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert {folder for folder in folders if not list((ROOT / "tests" / folder).glob("test_*.py"))} == set()


def test_inheritance_is_at_most_two_deep() -> None:
    bases: dict[str, set[str]] = {}
    for path in FILES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}

    def depth(name: str) -> int:
        return 1 + max((depth(base) for base in bases[name] if base in bases), default=0)

    assert not [name for name in bases if depth(name) > 3]


CHANCE = {"default_rng", "RandomState", "manual_seed", "manual_seed_all", "seed_everything"}
MAY_SEED = {"core/seed.py", "training/loop.py"}


def test_chance_only_through_core_seed() -> None:
    """NumPy generators are made in core/seed.py only; torch generators only from its integers."""
    wrong = []
    for path in FILES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names):
                wrong.append(f"{_name(path)}: import random")
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            called = node.func.attr
            seeded = any(
                "integer" in ast.dump(argument) or "_seed" in ast.dump(argument) for argument in node.args
            )
            if called in CHANCE and _name(path) not in MAY_SEED and not (called == "manual_seed" and seeded):
                wrong.append(f"{_name(path)}:{node.lineno}: {called}")
    assert not wrong


def test_file_names_of_a_run_only_in_core_run() -> None:
    spelled = {
        "run.json",
        "split.json",
        "results.csv",
        "report.html",
        "report.json",
        "done.json",
        "stats.jsonl",
    }
    spelled |= {"journal.jsonl", "confidences.csv"}
    wrong = {
        _name(path): names
        for path in FILES
        if _name(path) != "core/run.py" and (names := spelled & set(_strings_outside_docstrings(_tree(path))))
    }
    assert not wrong


RUNS_PICKLES = {"pickle", "_pickle", "pickletools", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def test_no_pickle_is_ever_executed() -> None:
    wrong = []
    for path in FILES:
        for node in ast.walk(_tree(path)):
            imported = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if RUNS_PICKLES & {name.split(".")[0] for name in imported}:
                wrong.append(_name(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                dumped = ast.unparse(node.func)
                allows = any(
                    k.arg == "allow_pickle" and ast.unparse(k.value) == "True" for k in node.keywords
                )
                if dumped == "torch.load" or dumped == "torch.save" or allows:
                    wrong.append(f"{_name(path)}:{node.lineno}")
    assert not wrong


def test_no_path_of_a_machine_is_named() -> None:
    wrong = [
        path.relative_to(ROOT).as_posix()
        for path in [*FILES, *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
        if any(
            word in path.read_text(encoding="utf-8")
            for word in ("/work" + "/", "/root" + "/", "/opt" + "/pypi")
        )
    ]
    assert not wrong


HEAVY = ("torch", "monai", "scipy", "SimpleITK", "matplotlib", "lightning_fabric")


@pytest.mark.parametrize("module", ["fewmask", "fewmask.cli"])
def test_importing_the_command_line_is_light(module: str) -> None:
    """`fewmask --help` must answer at once, so nothing heavy is imported before a verb needs it."""
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_nothing_happens_at_import() -> None:
    """Importing every module sets no seed, thread count, warning filter or allocator."""
    modules = [
        "fewmask." + _name(path)[:-3].replace("/", ".")
        for path in FILES
        if path.name not in {"__init__.py", "__main__.py"}
    ]
    code = f"""
import warnings, torch, numpy
import lightning_fabric, matplotlib, SimpleITK, highdicom, nibabel, skimage, scipy.ndimage, monai.networks
before = (torch.get_num_threads(), torch.initial_seed(), torch.get_default_dtype(), list(warnings.filters))
deterministic = torch.are_deterministic_algorithms_enabled()
import importlib
for name in {modules!r}:
    importlib.import_module(name)
after = (torch.get_num_threads(), torch.initial_seed(), torch.get_default_dtype())
assert before[:3] == after, (before[:3], after)
assert deterministic == torch.are_deterministic_algorithms_enabled()
new = [entry for entry in warnings.filters if entry not in before[3]]
assert not [entry for entry in new if "fewmask" in str(entry)], new
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
