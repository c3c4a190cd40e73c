"""Messages say what, where, found, expected and how to mend."""

from fewmask.core.errors import ConfigError, DataError, Problem, TrainingError


def test_the_message_is_complete() -> None:
    error = DataError(
        "mask is (120, 512, 512), its image is (240, 512, 512)",
        where="cases.csv row 17",
        found="5.0 mm",
        expected="2.5 mm",
        mend="Resample the mask onto the image, or correct row 17.",
    )
    assert str(error).splitlines() == [
        "cases.csv row 17: mask is (120, 512, 512), its image is (240, 512, 512)",
        "  found: 5.0 mm",
        "  expected: 2.5 mm",
        "  Resample the mask onto the image, or correct row 17.",
    ]


def test_all_problems_at_once() -> None:
    error = DataError.of([Problem("a", "x"), Problem("b", "y")], title="2 cases are faulty")
    assert isinstance(error, DataError)
    assert str(error) == "2 cases are faulty\nx: a\ny: b"
    assert len(error.problems) == 2


def test_exit_codes() -> None:
    assert ConfigError("x").exit_code == 2
    assert TrainingError("x").exit_code == 1
