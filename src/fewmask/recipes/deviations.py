"""Where a run departs from the documents it follows."""

from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.settings import MASKS
from fewmask.recipes.synthetic_settings import SyntheticSettings
from fewmask.report.content import Deviation


def deviations(settings: FewshotSettings, generator: str | None) -> tuple[Deviation, ...]:
    """Where a few-shot run departs from Aoucher et al. and Tritrong et al. 2021.

    Those that these settings make, and no other; `generator`: its kind, None where nothing needs one.
    """
    ways = {one.way for one in settings.trained_readings if one.way is not None}
    found = {
        Deviation("generator", "StyleGAN3", "StyleGAN2", "features without margins; cheaper on a CPU"): (
            generator == "stylegan2"
        ),
        Deviation(
            "labelled slices",
            "inverted as they are",
            f"inverted together with {settings.inversion.copies} augmented copies each",
            "one slice cannot teach that brightness and pose do not matter",
        ): bool(ways) and settings.inversion.copies > 0,
        Deviation("perceptual distance", "LPIPS", "the discriminator's features", "no downloaded weights"): (
            bool(ways)
        ),
        Deviation(
            "pivotal tuning (PTI)",
            "the generator is tuned to each slice",
            "one generator is tuned to training slices, for labelled and test slices alike",
            "a head reads features of one network, not of another one for each slice",
        ): "pti" in ways,
        Deviation(
            "size of the head",
            "S and M for up to 3 shots, L for more",
            f"{settings.head.size} for every number of shots",
            "one setting, so that arms differ in one thing",
        ): bool(settings.trained_readings) and _other_size(settings),
        Deviation(
            "budget of propagation",
            "one training",
            "starts from the finished U-Net: twice the training images of the plain U-Net",
            "the registered masks and a U-Net that knows the same masks err differently",
        ): "propagation" in settings.arms,
    }
    return tuple(one for one, holds in found.items() if holds)


def _other_size(settings: FewshotSettings) -> bool:
    """Whether the document has another size of head for some number of shots."""
    own = {"S": (True, False), "M": (True, False), "L": (False, True)}.get(settings.head.size, (False, False))
    return not all(own[k > 3] for k in settings.shots.counts)


def factory_deviations(settings: SyntheticSettings) -> tuple[Deviation, ...]:
    """Where a factory departs from DatasetGAN (Zhang et al. 2021) and SemanticGAN (Li et al. 2021)."""
    head, source = settings.head, settings.factory.source
    ours = f"{head.members} of size {head.size} and width {head.width}, whole slices in batches of 8"
    found = {
        Deviation(
            "generator", "a published StyleGAN of natural images", "StyleGAN2 from scratch", "no weights fit"
        ): settings.needs_generator and settings.gan.start is None and settings.gan.ready is None,
        Deviation(
            "labelled slices of the ensemble",
            "generated ones that a person labels",
            "real ones, inverted with augmented copies"
            if source == "real"
            else "generated ones that the U-Net on all masks labels",
            "a clinician labels real scans" if source == "real" else "a simulation",
        ): settings.needs_interpreter and settings.head.support is None,
        Deviation(
            "classifiers", "10 per-pixel networks of 128 and 32 channels, batches of 64 pixels", ours, "speed"
        ): settings.needs_interpreter,
        Deviation(
            "who learns from pairs",
            "DeepLabV3 from ImageNet weights",
            "the U-Net of all arms",
            "arms differ in what they learn from alone",
        ): settings.needs_pairs or settings.needs_semantic_pairs,
        Deviation(
            "uncertain pairs",
            "the release also leaves out the 30 most certain and keeps 30 of the least certain",
            f"the {settings.factory.drop:.0%} most uncertain are left out",
            "taken for a slip",
        ): settings.needs_pairs and settings.factory.drop > 0,
    }
    others = (*_presence_deviations(settings), *_semantic_deviations(settings))
    return (*(one for one, holds in found.items() if holds), *others)


def _presence_deviations(settings: SyntheticSettings) -> tuple[Deviation, ...]:
    gan = settings.gan
    if gan.presence is None or not settings.needs_generator:
        return ()
    source = "the masks" if gan.presence == MASKS else f"the tag {gan.presence}"
    does = [*(["balanced"] if gan.balance else []), *(["conditional"] if gan.conditional else [])]
    return (
        Deviation(
            "labels of the generator",
            "none: it learns from images alone",
            f"whether a class is in each training slice, by {source} of all training patients "
            f"({' and '.join(does)}); the ledger counts these labels",
            "a rare class is drawn too seldom, or not at all",
        ),
    )


def _semantic_deviations(settings: SyntheticSettings) -> tuple[Deviation, ...]:
    found = {
        Deviation(
            "SemanticGAN's training",
            "from scratch, 800,000 iterations of 16",
            f"goes on from the run's generator for {settings.semantic.images} images",
            "one training of images serves all draws of shots",
        ): settings.needs_semantic,
        Deviation(
            "SemanticGAN's encoder",
            "ResNet-50 with a feature pyramid, LPIPS",
            "a small residual encoder in passes, the discriminator's features",
            "no downloaded weights; a CPU",
        ): "semantic search" in settings.arms and settings.semantic.encoder_images > 0,
    }
    return tuple(one for one, holds in found.items() if holds)
