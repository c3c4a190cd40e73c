"""`fewmask sample`: from a generator's folder to images that a person can label, and back."""

from pathlib import Path

import pytest
import torch

from fewmask.cli import main
from fewmask.core.run import Run
from fewmask.core.volume import Mask
from fewmask.data.io import read_volume, write_mask
from fewmask.inversion.resume import network_key
from fewmask.synthesis.design import GeneratorDesign, build_generator
from fewmask.synthesis.keep import KeptGenerator, read_generator, write_generator
from fewmask.synthesis.support import read_support


def command(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    run = Run.open(tmp_path_factory.mktemp("sample") / "run")
    settings = GeneratorDesign(channel_base=128, channel_max=8, latent=8, mapping_layers=2).generator(1, 16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_generator(run.generator, KeptGenerator(settings, build_generator(settings).eval()))
    return run


@pytest.mark.parametrize("whole_run", [True, False])
def test_from_the_generator_to_masks(run: Run, tmp_path: Path, capsys, whole_run) -> None:
    folder, out = run.folder if whole_run else run.generator, tmp_path / "to_label"
    assert command("sample", folder, "--out", out, "--count", 3, "--classes", "{lung: 1}") == 0
    assert "3 images to draw on" in capsys.readouterr().out
    seen = read_volume(out / "images" / "sample_0001.png")
    write_mask(out / "masks" / "sample_0001.png", Mask((seen.voxels > 99).astype("uint8"), seen.affine))
    found = read_support(out)
    assert found.classes == {"lung": 1}
    assert found.generator == network_key(read_generator(run.generator).generator)
    assert found.missing == ("sample_0000", "sample_0002")
    assert command("sample", folder, "--out", out, "--count", 3, "--classes", "{lung: 1}") == 0
    assert (out / "masks" / "sample_0001.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--count", "0"], "1 to 1000 samples"),
        (["--truncation", "2"], "truncation 0 to 1"),
        (["--classes", "lung"], "no mapping"),
        (["--classes", "{lung: 3}"], "declaration of classes"),
        (["--format", "jpeg"], "jpeg"),
        (["--choose", "best"], "best"),
    ],
)
def test_mistakes_end_with_2(run: Run, tmp_path: Path, capsys, words, said) -> None:
    assert command("sample", run.folder, "--out", tmp_path / "x", *words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x").exists()


def test_no_generator_and_a_folder_of_something_else(run: Run, tmp_path: Path, capsys) -> None:
    assert command("sample", tmp_path, "--out", tmp_path / "x") == 2
    assert "holds no generator" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("a")
    assert command("sample", run.folder, "--out", tmp_path / "full") == 2
    assert "holds other files" in capsys.readouterr().err
