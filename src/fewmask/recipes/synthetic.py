"""A factory of labelled images from few masks, and whether it is good enough here.

DatasetGAN (Zhang et al., CVPR 2021): a StyleGAN2 learns the unlabelled slices; an ensemble of per-pixel
classifiers learns the labelled ones, inverted into its latents (Xu & Zheng, CVPR 2023, "HandsOff"), and
labels what the generator draws; the least certain and the implausible are left out. SemanticGAN (Li et al.,
CVPR 2021): the generator learns to draw the mask beside the image. One and the same U-Net learns from pairs,
from pairs and then the real slices, from both mixed, and from the real slices alone with and without
augmentation; a mean teacher gets the same unlabelled slices; all see as many images.

    fewmask run synthetic --preset chest-xray-64 --cohort MY_FILMS --out runs/factory

Times and scores on real scans: docs/results/.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from fewmask.core.errors import ConfigError
from fewmask.metrics.score import Row
from fewmask.recipes.arms import UNET, unet_arm
from fewmask.recipes.controls import empty_arm
from fewmask.recipes.deviations import factory_deviations
from fewmask.recipes.factory import Factory
from fewmask.recipes.ganchecks import gan_checks
from fewmask.recipes.generator import learn_generator
from fewmask.recipes.heads import Heads, head_arm, key_of, support_checks
from fewmask.recipes.outcome import Outcome
from fewmask.recipes.plan import (
    Work,
    embedding_work,
    gan_work,
    head_works,
    inversion_works,
    pairs_work,
    semantic_work,
    unet_work,
)
from fewmask.recipes.pool import TEACHER, pool_of, teacher_arm
from fewmask.recipes.presence import labels_given, learned_slices, training_set
from fewmask.recipes.semantic import SEMANTIC, Semantics, search_key
from fewmask.recipes.stage import Few, Labelled, Stage, every_draw
from fewmask.recipes.synthetic_settings import SyntheticSettings
from fewmask.recipes.taught import Lessons, alone_arm, alone_key, mixed_arm, mixed_key, then_arm, then_key
from fewmask.recipes.trust import Judge
from fewmask.report.content import EMPTY_ARM, Arm

QUESTION = "Do generated images with labels teach a U-Net more than the few real ones they come from?"

PLAIN, PAIRS, PERSON = "unet plain", "pairs", "pairs person"

_RIVALS = {
    "empty": EMPTY_ARM,
    "unet": Arm(
        UNET, "plain U-Net", "baseline", "U-Net with strong augmentation on the labelled slices alone"
    ),
    "plain": Arm(
        PLAIN, "U-Net without augmentation", "control", "the same U-Net on the labelled slices as they are"
    ),
    "mean teacher": Arm(
        TEACHER,
        "mean teacher",
        "baseline",
        "a U-Net that also learns to agree with its own average on the unlabelled slices",
    ),
}


def arms(settings: SyntheticSettings) -> tuple[Arm, ...]:
    """What the settings ask for: ours first, then what they must beat."""
    rivals = [_RIVALS[name] for name in dict.fromkeys([*settings.arms, "unet"]) if name in _RIVALS]
    order = ("ours", "baseline", "reference", "control", "trivial")
    every = [*_taught(settings), *rivals]
    return tuple(sorted(every, key=lambda arm: (order.index(arm.kind), arm.key != UNET)))


def _taught(settings: SyntheticSettings) -> list[Arm]:
    """The arms of the factory."""
    from_shots = "oracle's slices" if settings.factory.source == "oracle" else "shots"
    of = f"generated slices that an ensemble on {settings.reading.text} labelled, taught by the {from_shots}"
    found = []
    if "pairs then real" in settings.arms:
        what = f"a U-Net that learns from {of}, then from the real slices"
        found.append(Arm(then_key(PAIRS), "U-Net on pairs, then real slices", "ours", what))
    if "mixed" in settings.arms:
        found += [
            Arm(
                mixed_key(PAIRS, share),
                f"U-Net on pairs and {share:.0%} real slices",
                "ours",
                f"a U-Net that learns from {of}; {share:.0%} of its images are the real slices",
            )
            for share in settings.factory.mix
        ]
    if "pairs" in settings.arms:
        found.append(Arm(alone_key(PAIRS), "U-Net on pairs alone", "ours", f"a U-Net that learns from {of}"))
        if settings.head.support is not None:
            what = "the same, the ensemble taught by generated slices that a person labelled"
            found.append(Arm(PERSON, "U-Net on pairs, labelled by a person", "ours", what, own_masks=True))
    found += _semantic(settings)
    if "interpreter" in settings.arms:
        what = f"the ensemble on {settings.reading.text} itself, on test slices after an inversion"
        found.append(Arm(key_of(settings.reading), f"head on {settings.reading.text}", "ours", what))
    return found


def _semantic(settings: SyntheticSettings) -> list[Arm]:
    """The arms of generators that draw masks themselves."""
    of = "what a generator with a mask branch draws"
    found = []
    if "semantic pairs then real" in settings.arms:
        name, what = "U-Net on SemanticGAN's pairs, then real slices", f"a U-Net that learns from {of}, then "
        found.append(Arm(then_key(SEMANTIC), name, "ours", f"{what}from the real slices"))
    if "semantic pairs" in settings.arms:
        what = f"a U-Net that learns from {of}"
        found.append(Arm(alone_key(SEMANTIC), "U-Net on SemanticGAN's pairs alone", "ours", what))
    if "semantic search" in settings.arms:
        for steps in settings.semantic.steps:
            how = f"{steps} steps of search" if steps else "its encoder alone"
            what = "the mask that the generator draws beside the image nearest to the test slice"
            found.append(Arm(search_key(steps), f"SemanticGAN by {how}", "ours", what))
    return found


def run(stage: Stage, settings: SyntheticSettings) -> Outcome:
    """Train and score every arm."""
    _refuse_oracle(stage, settings)
    gan_set = training_set(stage.ground, settings.gan)
    unlabelled, slices = gan_set.images, learned_slices(stage.ground, settings.gan, gan_set)
    gan = learn_generator(stage.ground, settings.gan, slices) if settings.needs_generator else None
    stage = replace(stage, ground=stage.ground.alone())
    heads = Heads(stage, settings, unlabelled, gan)
    factory, pool = Factory(heads, settings), pool_of(unlabelled, settings.pool, settings.seed)
    semantics = Semantics(factory, slices) if settings.needs_semantic else None

    rows: list[Row] = empty_arm(stage) if "empty" in settings.arms else []
    for few, items in every_draw(stage):
        rows += unet_arm(stage, items, shots=few.count, draw=few.draw)
        if "plain" in settings.arms:
            rows += unet_arm(stage, items, arm=PLAIN, shots=few.count, draw=few.draw, augment=False)
        if "mean teacher" in settings.arms:
            per_patient = settings.gan.slices_per_patient
            rows += teacher_arm(stage, settings.teacher, pool, per_patient, few, items)
        if "interpreter" in settings.arms:
            rows += head_arm(heads, settings.reading, few, items)
        rows += taught(factory, few, items)
        if semantics is not None:
            rows += semantics.arms(few, items)
    if settings.shots.full:
        rows += unet_arm(stage, stage.labelled, shots=None, draw=0)
    if settings.head.support is not None and "pairs" in settings.arms:
        rows += by_person(factory, stage.items(stage.shots.take(0, max(settings.shots.counts))))
    learned = learned_from(settings, len(unlabelled), len(pool))
    return outcome(factory, semantics, rows, learned) if gan is not None else Outcome(rows, (), learned)


def outcome(
    factory: Factory, semantics: Semantics | None, rows: list[Row], learned: dict[str, int]
) -> Outcome:
    """The rows, with what is known of the generator and its pairs."""
    heads, settings = factory.heads, factory.settings
    judged = Judge(factory).judged(semantics)
    told = [arm for arm in learned if arm != TEACHER]
    checks = gan_checks(heads.gan.generator, heads.unlabelled, heads.tested.images, seed=settings.seed)
    inverted = support_checks(heads) if settings.inverts else ()
    return Outcome(
        rows,
        (*checks, *inverted, *judged.checks),
        learned,
        factory_deviations(settings),
        image_labels=dict.fromkeys(told, labels_given(settings.gan, len(heads.unlabelled))),
        tables=judged.tables,
        galleries=judged.galleries,
        terms=judged.terms,
    )


def taught(factory: Factory, few: Few, items: Labelled) -> list[Row]:
    """The arms that learn from the pairs of one draw."""
    settings, stage = factory.settings, factory.stage
    how = settings.factory
    rows: list[Row] = []
    if not settings.needs_pairs:
        return rows
    lessons = Lessons(PAIRS, partial(factory.of, few, items), how.labels, factory.told(few, items))
    if "pairs" in settings.arms:
        rows += alone_arm(stage, lessons, few, items)
    if "pairs then real" in settings.arms:
        rows += then_arm(stage, lessons, few, items, how.first)
    if "mixed" in settings.arms:
        rows += [row for share in how.mix for row in mixed_arm(stage, lessons, few, items, share)]
    return rows


def by_person(factory: Factory, items: Labelled) -> list[Row]:
    """A U-Net on the pairs whose interpreter a person taught; the number of labelled slices stands for k."""
    drawn, told = factory.of_person()
    few = Few(len(drawn.real_masks), 0, ())
    lessons = Lessons(PERSON, lambda: drawn, factory.settings.factory.labels, told)
    return alone_arm(factory.stage, lessons, few, items)


def learned_from(settings: SyntheticSettings, unlabelled: int, pool: int) -> dict[str, int]:
    """By arm, how many unlabelled slices it has seen."""
    blind = {UNET, PLAIN, EMPTY_ARM.key}
    seen = {arm.key: unlabelled for arm in arms(settings) if arm.key not in blind}
    return {**seen, **({TEACHER: pool} if TEACHER in seen else {})}


def _refuse_oracle(stage: Stage, settings: SyntheticSettings) -> None:
    if settings.factory.source == "oracle" and stage.cohort.folder != stage.run.phantom:
        raise ConfigError(
            "the oracle labels generated slices in simulation only: it knows all masks",
            where="factory.source",
            found=f"oracle, with the cohort {stage.cohort.folder}",
            expected="real, or no --cohort",
            mend="Leave factory.source at real; or label generated slices by hand, see `fewmask sample`.",
        )


def plan(settings: SyntheticSettings) -> Sequence[Work]:
    """What `run` will do, to be timed."""
    draws = len(settings.shots.counts) * settings.shots.draws
    works: list[Work] = []
    size = settings.prepare.size[0]
    if settings.needs_generator:
        works.append(gan_work(settings.gan, size))
        works.append(embedding_work(settings.encoder.images, size, what="self-supervised encoder"))
    if settings.needs_interpreter:
        works += [*inversion_works(settings), *head_works(settings), pairs_work(settings, draws)]
    if settings.needs_semantic:
        works.append(semantic_work(settings, draws))
    works.append(unet_work(settings, "plain U-Net", draws + int(settings.shots.full)))
    others = ("empty", "unet", "interpreter", "mixed", "semantic search")
    trained: list[str] = [name for name in settings.arms if name not in others]
    trained += [f"mixed, {share:.0%} real" for share in settings.factory.mix if "mixed" in settings.arms]
    return [*works, *(unet_work(settings, name, draws) for name in trained)]
