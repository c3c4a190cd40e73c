"""Nothing written rots: every command of the pages is accepted, and every link leads somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from fewmask.cli import app, main
from fewmask.recipes.presets import build, parse_overrides, preset_names, read_preset
from fewmask.recipes.table import RECIPES, recipe_named

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
VERBS = (
    "demo",
    "check",
    "run",
    "import",
    "sample",
    "segment",
    "score",
    "consensus",
    "export",
    "report",
    "pairs",
)


def commands() -> list[tuple[str, str]]:
    """(page, command) of every `fewmask ...` line in a code block; a trailing backslash joins lines."""
    found = []
    for page in PAGES:
        for block in re.findall(
            r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            for line in block.replace("\\\n", " ").splitlines():
                if re.match(r"(\.venv/bin/)?fewmask ", line):
                    found.append((page.name, line))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_of_the_pages_are_accepted(page, line):
    words = shlex.split(line, comments=True)[1:]
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    if words[0] == "run":
        recipe = recipe_named(bound.arguments["recipe"])
        preset = bound.arguments.get("preset")
        layers = [read_preset(recipe.name, preset).settings] if preset else []
        build(recipe.settings, [*layers, parse_overrides(bound.arguments.get("overrides", ()))])


def test_there_are_commands_to_test():
    assert len(commands()) > 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert not [target for target in targets if "://" not in target and not (page.parent / target).exists()]


@pytest.mark.parametrize("recipe", RECIPES)
def test_commands_of_the_presets_are_accepted(recipe):
    for name in preset_names(recipe):
        words = shlex.split(read_preset(recipe, name).command)[1:]
        app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert f"Example: fewmask {verb}" in " ".join(capsys.readouterr().out.split())
