"""Few-shot segmentation: heads on GAN features, and what else few masks and many unlabelled slices can do.

A StyleGAN (Karras et al. 2020, with adaptive augmentation) learns the unlabelled slices; the k labelled
slices and their augmented copies are inverted into its latents; a small head learns from the generator's
activations (RepurposeGAN, Tritrong et al. 2021); the head labels generated slices and a U-Net learns from
them and the k real ones (auto-shot). Propagation: labelled slices are registered with unlabelled ones, and
the U-Net of the k masks goes on with their warps and with what it and the registered masks agree on. Beside
them stand heads on other features (a self-supervised encoder, the U-Net), a mean teacher (Tarvainen & Valpola
2017), the plain U-Net on the same k masks, also trained twice as long, the U-Net on all masks and the empty
mask. All are scored on the same patients.

    fewmask run fewshot --preset chest-xray-64 --cohort MY_FILMS --out runs/films

Times and scores on real scans: docs/results/.
"""

from collections.abc import Sequence
from dataclasses import replace

from fewmask.metrics.score import Row
from fewmask.recipes.arms import UNET, unet_arm
from fewmask.recipes.controls import empty_arm
from fewmask.recipes.deviations import deviations
from fewmask.recipes.embedding import unlabelled_slices
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.ganchecks import gan_checks
from fewmask.recipes.generator import learn_generator
from fewmask.recipes.heads import Heads, head_arm, key_of, support_checks
from fewmask.recipes.outcome import Outcome, marked
from fewmask.recipes.plan import Work, embedding_work, gan_work, head_works, inversion_works, unet_work
from fewmask.recipes.pool import AUTOSHOT, LONGER, TEACHER, autoshot_arm, longer_arm, pool_of, teacher_arm
from fewmask.recipes.propagation import PROPAGATION, Atlas, propagation_arm, registration_work
from fewmask.recipes.reading import Reading
from fewmask.recipes.stage import Stage, every_draw
from fewmask.recipes.support import checked_support, key_of_supported, support_arms
from fewmask.report.content import EMPTY_ARM, Arm, Check
from fewmask.synthesis.generator import Slices
from fewmask.synthesis.registration import Demons

QUESTION = "From few masks and many unlabelled slices: what beats a U-Net on the same masks?"

_ARMS = {
    "empty": EMPTY_ARM,
    "unet": Arm(
        UNET, "plain U-Net", "baseline", "U-Net with strong augmentation on the labelled slices alone"
    ),
    "longer": Arm(
        LONGER,
        "U-Net, trained twice as long",
        "baseline",
        "the plain U-Net goes on for as many images again, on the labelled slices alone",
    ),
    "mean teacher": Arm(
        TEACHER,
        "mean teacher",
        "baseline",
        "a U-Net that also learns to agree with its own average on the unlabelled slices",
    ),
    "auto-shot": Arm(
        AUTOSHOT,
        "auto-shot U-Net",
        "ours",
        "a U-Net that learns from generated slices, labelled by a head, and from the labelled slices",
    ),
    "propagation": Arm(
        PROPAGATION,
        "U-Net taught by registration",
        "ours",
        "the plain U-Net goes on: it also learns the labelled slices in other patients' shapes and "
        "unlabelled slices that it and registered masks have labelled",
    ),
}

_SOURCES = {
    "generator": "the generator",
    "discriminator": "the discriminator",
    "encoder": "a self-supervised encoder",
    "unet": "the plain U-Net",
    "image": "the slice",
}


def arms(settings: FewshotSettings) -> tuple[Arm, ...]:
    """What the settings ask for: ours first, then what they must beat."""
    wanted = [name for name in settings.arms if name != "heads"]
    heads = [head_of(one) for one in settings.readings]
    if settings.head.support is not None:
        heads += [supported(one) for one in settings.readings]
    every = [*heads, *(_ARMS[name] for name in dict.fromkeys([*wanted, "unet"]))]
    order = ("ours", "baseline", "reference", "control", "trivial")
    return tuple(sorted(every, key=lambda arm: (order.index(arm.kind), arm.key != UNET)))


def head_of(reading: Reading) -> Arm:
    """A head's arm; those that read nothing of a GAN are rivals."""
    names = " and ".join(_SOURCES[name] for name in reading.sources)
    kind = "ours" if {"generator", "discriminator"} & set(reading.sources) else "baseline"
    way = "" if reading.way is None else f"; slices are inverted by {reading.way.upper()}"
    if reading.way == "encoder":
        way = "; slices are inverted by an encoder"
    return Arm(
        key_of(reading),
        f"head on {reading.text}",
        kind,  # type: ignore[arg-type]
        f"a small head on features of {names}{way}",
    )


def supported(reading: Reading) -> Arm:
    """The arm of a head that learns from generated slices which a person labelled."""
    return replace(
        head_of(reading),
        key=key_of_supported(reading),
        name=f"head on {reading.text}, generated slices",
        what="the same head, taught by generated slices that a person labelled",
        own_masks=True,
    )


def run(stage: Stage, settings: FewshotSettings) -> Outcome:
    """Train and score every arm."""
    unlabelled = unlabelled_slices(stage.ground, settings.gan.slices_per_patient)
    gan = None
    if settings.needs_generator:
        gan = learn_generator(stage.ground, settings.gan, Slices(unlabelled))
    stage = replace(stage, ground=stage.ground.alone())
    heads = Heads(stage, settings, unlabelled, gan)
    pool = pool_of(unlabelled, settings.pool, settings.seed)
    how = settings.propagation
    targets = pool_of(unlabelled, how.targets, settings.seed)
    atlas = Atlas(targets, Demons(side=how.side, smoothness=how.smoothness))

    rows: list[Row] = empty_arm(stage) if "empty" in settings.arms else []
    drawn: dict[str, int] = {}
    if settings.head.support is not None:
        support = checked_support(heads)
        rows += support_arms(heads, settings.readings, support)
        drawn = {row.arm: int(marked(support.masks).any(axis=(1, 2)).sum()) for row in rows if row.shots}
    for few, items in every_draw(stage):
        rows += [row for reading in settings.readings for row in head_arm(heads, reading, few, items)]
        if "auto-shot" in settings.arms:
            rows += autoshot_arm(heads, settings, few, items)
        rows += unet_arm(stage, items, shots=few.count, draw=few.draw)
        if "longer" in settings.arms:
            rows += longer_arm(stage, few, items)
        if "mean teacher" in settings.arms:
            rows += teacher_arm(stage, settings.teacher, pool, settings.gan.slices_per_patient, few, items)
        if "propagation" in settings.arms:
            rows += propagation_arm(stage, settings, atlas, few, items)
    if settings.shots.full:
        rows += unet_arm(stage, stage.labelled, shots=None, draw=0)
    learned = learned_from(settings, len(unlabelled), len(pool), len(targets))
    kind = None if gan is None else str(gan.settings["generator"]["kind"])
    found, departs = checks(heads, settings), deviations(settings, kind)
    return Outcome(rows, found, learned, departs, drawn, without_validation(settings))


def learned_from(settings: FewshotSettings, unlabelled: int, pool: int, targets: int) -> dict[str, int]:
    """By arm, how many unlabelled slices it has seen."""
    pools = {TEACHER: pool, PROPAGATION: targets}
    blind = {key_of(one) for one in settings.readings if set(one.sources) <= {"unet", "image"}}
    blind |= {UNET, LONGER, EMPTY_ARM.key}
    return {arm.key: pools.get(arm.key, unlabelled) for arm in arms(settings) if arm.key not in blind}


def without_validation(settings: FewshotSettings) -> frozenset[str]:
    """The arms that choose nothing by validation patients: heads, unless they read the U-Net."""
    blind = [one for one in settings.readings if "unet" not in one.sources]
    return frozenset(name(one) for one in blind for name in (key_of, key_of_supported))


def checks(heads: Heads, settings: FewshotSettings) -> tuple[Check, ...]:
    """What can go wrong with a GAN and its inversions."""
    if not settings.needs_generator:
        return ()
    made = gan_checks(heads.gan.generator, heads.unlabelled, heads.tested.images, seed=settings.seed)
    return (*made, *support_checks(heads))


def plan(settings: FewshotSettings) -> Sequence[Work]:
    """What `run` will do, to be timed."""
    draws = len(settings.shots.counts) * settings.shots.draws
    works = [gan_work(settings.gan, settings.prepare.size[0])] if settings.needs_generator else []
    if settings.needs_encoder:
        name = "self-supervised encoder"
        works.append(embedding_work(settings.encoder.images, settings.prepare.size[0], what=name))
    works += [*inversion_works(settings), *head_works(settings)]
    if "propagation" in settings.arms:
        works.append(registration_work(settings))
    works.append(unet_work(settings, "plain U-Net", draws + int(settings.shots.full)))
    trained = [name for name in _ARMS if name in settings.arms and name not in ("empty", "unet")]
    return [*works, *(unet_work(settings, name, draws) for name in trained)]
