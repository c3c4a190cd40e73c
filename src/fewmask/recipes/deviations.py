"""Where a few-shot run departs from the document it follows (Aoucher et al.; Tritrong et al. 2021)."""

from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.report.content import Deviation


def deviations(settings: FewshotSettings, generator: str | None) -> tuple[Deviation, ...]:
    """Those that these settings make, and no other; `generator`: its kind, None where nothing needs one."""
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
