"""How long a run of lazylabel will take: every training, timed by a short one on noise."""

import io
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fewmask.core.run import Step
from fewmask.core.seed import stream
from fewmask.objectives.wasserstein import CriticSteps
from fewmask.recipes.healers import Lesson, Method, methods
from fewmask.recipes.lazylabel_settings import LazylabelSettings
from fewmask.recipes.plan import Work
from fewmask.synthesis.healthy import Domains
from fewmask.training.launch import launch

SHORT = 32
"""Images of a training that is timed."""


def healer_works(settings: LazylabelSettings) -> list[Work]:
    """Each training as the plan times it, by a short one on noise; slices of one channel."""

    def rate(method: Method) -> float:
        short = _of_images(settings, method.group, SHORT)
        size = settings.prepare.size
        noise = stream(0, "plan").uniform(-1, 1, (SHORT, 1, *size)).astype(np.float32)
        with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            lesson = Lesson(Domains(noise, noise), short, Step(Path(folder)), 0, launch(device="cpu"), "plan")
            started = time.perf_counter()
            method.train(lesson)
            return SHORT / (time.perf_counter() - started) * as_published(settings, method)

    found = [method for method in methods(settings) if method.group]
    return [
        Work(
            method.arms[0].name,
            settings.trainings,
            getattr(settings, method.group).images,
            partial(rate, method),
        )
        for method in found
    ]


def _of_images(settings: LazylabelSettings, group: str, images: int) -> LazylabelSettings:
    """The settings with another length of one training."""
    changed = getattr(settings, group).model_copy(update={"images": images})
    return settings.model_copy(update={group: changed})


def as_published(settings: LazylabelSettings, method: Method) -> float:
    """How much faster a whole training is than its beginning: VA-GAN's critic learns most at first."""
    if method.group != "vagan":
        return 1.0
    how = settings.vagan
    critic = CriticSteps(first=how.warm_up)
    short, whole = max(SHORT // how.batch, 1), max(how.images // how.batch, 1)
    return (critic.before(short) / short) / (critic.before(whole) / whole)
