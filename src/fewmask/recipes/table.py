"""The only table of recipes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fewmask.core.errors import ConfigError
from fewmask.recipes import fewshot, gan, invert, lazylabel, supervised, synthetic
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.lazylabel_settings import LazylabelSettings
from fewmask.recipes.outcome import segmented
from fewmask.recipes.page import Finished, Job
from fewmask.recipes.plan import Work
from fewmask.recipes.settings import (
    GANRunSettings,
    GroundSettings,
    InvertRunSettings,
    SupervisedSettings,
)
from fewmask.recipes.synthetic_settings import SyntheticSettings
from fewmask.report.content import Arm


@dataclass(frozen=True)
class Recipe:
    """A recipe as the command line and the tests see it."""

    name: str
    title: str
    question: str
    settings: type[GroundSettings]
    carry_out: Callable[[Job, Any], Finished]
    plan: Callable[[Any], Sequence[Work]]
    arms: Callable[[Any], Sequence[Arm]] | None = None
    """The arms of its table, by the settings; none when it does not segment."""


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="supervised",
            question=supervised.QUESTION,
            settings=SupervisedSettings,
            title="Supervised: a U-Net on few masks, against all",
            carry_out=partial(segmented, supervised.run, supervised.arms),
            plan=supervised.plan,
            arms=supervised.arms,
        ),
        Recipe(
            name="fewshot",
            question=fewshot.QUESTION,
            settings=FewshotSettings,
            title="Few-shot segmentation on GAN features",
            carry_out=partial(segmented, fewshot.run, fewshot.arms),
            plan=fewshot.plan,
            arms=fewshot.arms,
        ),
        Recipe(
            name="synthetic",
            question=synthetic.QUESTION,
            settings=SyntheticSettings,
            title="A factory of labelled images",
            carry_out=partial(segmented, synthetic.run, synthetic.arms),
            plan=synthetic.plan,
            arms=synthetic.arms,
        ),
        Recipe(
            name="lazylabel",
            title=lazylabel.TITLE,
            question=lazylabel.QUESTION,
            settings=LazylabelSettings,
            carry_out=lazylabel.carry_out,
            plan=lazylabel.plan,
        ),
        Recipe(
            name="gan",
            title=gan.TITLE,
            question=gan.QUESTION,
            settings=GANRunSettings,
            carry_out=gan.carry_out,
            plan=gan.plan,
        ),
        Recipe(
            name="invert",
            title=invert.TITLE,
            question=invert.QUESTION,
            settings=InvertRunSettings,
            carry_out=invert.carry_out,
            plan=invert.plan,
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
