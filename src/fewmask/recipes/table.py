"""The only table of recipes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fewmask.core.errors import ConfigError
from fewmask.recipes import fewshot, supervised
from fewmask.recipes.outcome import Outcome
from fewmask.recipes.plan import Work
from fewmask.recipes.settings import CommonSettings, FewshotSettings, SupervisedSettings
from fewmask.recipes.stage import Stage
from fewmask.report.content import Arm


@dataclass(frozen=True)
class Recipe:
    """A recipe as the command line and the tests see it."""

    name: str
    question: str
    settings: type[CommonSettings]
    title: str
    run: Callable[[Stage, Any], Outcome]
    plan: Callable[[Any], Sequence[Work]]
    arms: tuple[Arm, ...]


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="supervised",
            question=supervised.QUESTION,
            settings=SupervisedSettings,
            title="Supervised: a U-Net on few masks, against all",
            run=supervised.run,
            plan=supervised.plan,
            arms=supervised.ARMS,
        ),
        Recipe(
            name="fewshot",
            question=fewshot.QUESTION,
            settings=FewshotSettings,
            title="Few-shot segmentation on GAN features",
            run=fewshot.run,
            plan=fewshot.plan,
            arms=fewshot.ARMS,
        ),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name; a `ConfigError` lists those that exist."""
    if name not in RECIPES:
        raise ConfigError(
            f"there is no recipe {name!r}", expected=", ".join(RECIPES), mend="See `fewmask run --help`."
        )
    return RECIPES[name]
