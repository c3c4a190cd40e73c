"""`fewmask export` on the command line: exit codes, and what it tells."""

import numpy as np
import pytest

from fewmask.cli import main
from fewmask.core.seed import stream
from fewmask.metrics.planted import Planted
from fewmask.synthesis.card import CopyReport, card_of, digest_of
from fewmask.synthesis.card_file import write_card
from fewmask.synthesis.export import ACCEPTED
from fewmask.synthesis.factory import make_pairs
from fewmask.synthesis.pairs import Pair
from fewmask.synthesis.sift import sift, write_sifted


def paint(number):
    mask = np.zeros((12, 12), np.uint8)
    mask[2:6, 2 : 4 + number] = 1
    image = stream(0, "export", number).uniform(-1, 1, (1, 12, 12)).astype(np.float32)
    soft = np.stack([mask == 0, mask == 1]).astype(np.float16)
    return Pair(number, image, mask, soft, np.zeros((12, 12), np.float32), number / 10)


def carded(folder, copies):
    pairs = make_pairs(folder, paint, 4, made_from={"seed": 0}, classes={"lung": 1})
    records = pairs.records()
    write_sifted(pairs, records, sift(records, uncertain_share=0.25))
    digest = digest_of(records, range(4))
    report = CopyReport((0, 1, 2, 3), digest, copies, 30, 30, {}, 0.0, Planted({"exact": 1.0}, 30))
    write_card(folder, card_of(pairs, copies=report))
    return folder


def ran(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    told = capsys.readouterr()
    return ended.value.code, " ".join((told.out + told.err).split())


def test_sound_pairs_go_out(tmp_path, capsys):
    folder, out = carded(tmp_path / "pairs", ()), tmp_path / "out"
    code, said = ran(capsys, "export", folder, "--to", "folder", "--out", out, "--format", "nifti")
    assert code == 0
    assert "3 pairs exported" in said
    assert str(out / "card.md") in said.replace(" ", "")
    assert len(list((out / "images").glob("*.nii.gz"))) == 3
    assert ran(capsys, "check", out)[0] == 0
    code, said = ran(capsys, "export", folder, "--to", "nnunet", "--all", "-o", tmp_path / "Dataset501_Made")
    assert (code, "4 pairs exported" in said) == (0, True)
    assert ran(capsys, "check", tmp_path / "Dataset501_Made")[0] == 0


def test_copies_stay_in_the_house(tmp_path, capsys):
    folder, out = carded(tmp_path / "pairs", (2,)), tmp_path / "out"
    words = ("export", folder, "--to", "dicom", "--out", out)
    code, said = ran(capsys, *words)
    assert code == 2
    assert "1 of 4 pairs are copies: pair_000002" in said
    assert f'--override "{ACCEPTED}"' in said
    assert not out.exists()
    assert ran(capsys, *words, "--override", "whatever")[0] == 2
    code, said = ran(capsys, *words, "--override", ACCEPTED)
    assert code == 0
    assert "accepted by --override: 1 of 4 pairs are copies" in said
    assert len(list((out / "images").glob("*.dcm"))) == 3
