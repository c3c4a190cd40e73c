"""`fewmask score` tells Dice and, where asked, lesions."""

import pytest

from fewmask.cli import main


def test_the_reference_against_itself_with_lesions(phantom, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "score",
                str(phantom / "masks"),
                str(phantom),
                "--lesions",
                "nodule",
                "--out",
                str(tmp_path / "s"),
            ]
        )
    printed = capsys.readouterr().out
    assert ended.value.code == 0, printed
    assert "1.000" in printed
    assert " outlined, 0.00 invented per patient" in printed
    assert (tmp_path / "s" / "results.csv").exists()


def test_a_class_that_is_not_there(phantom, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["score", str(phantom / "masks"), str(phantom), "--lesions", "tumour"])
    assert ended.value.code == 2
    assert "tumour" in capsys.readouterr().err
