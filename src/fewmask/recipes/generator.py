"""From settings to a trained generator: what every recipe that trains one shares."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fewmask.core.errors import ConfigError
from fewmask.inversion.resume import network_key
from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.ada import SEQUENCES
from fewmask.recipes.ground import Ground
from fewmask.recipes.record import fingerprint
from fewmask.recipes.settings import GANSettings
from fewmask.synthesis.design import GeneratorDesign, Kind
from fewmask.synthesis.generator import Judge, Slices, TrainedGenerator, train_generator
from fewmask.synthesis.keep import KeptGenerator, read_generator
from fewmask.synthesis.start import Start
from fewmask.training.loop import Fitted


def learn_generator(
    ground: Ground,
    gan: GANSettings,
    slices: Slices,
    *,
    held_out: Slices | None = None,
    judge: Judge | None = None,
    judgements: int = 10,
) -> TrainedGenerator:
    """Train the generator of a run under its step "gan"; run again, it resumes or loads."""
    if gan.ready is not None:
        return ready_generator(ground, gan.ready)
    kept = None if gan.start is None else read_generator(gan.start)
    return train_generator(
        slices,
        design_of(gan) if kept is None else like_start(design_of(gan), kept, freeze=gan.freeze_d),
        ground.run.step("gan"),
        total=gan.images,
        seed=ground.settings.seed,
        fabric=ground.fabric,
        start=None if kept is None else Start(kept.generator, kept.discriminator),
        held_out=held_out,
        judge=judge,
        judge_every=max(gan.images // judgements, gan.batch),
        parts=gan.parts,
    )


def ready_generator(ground: Ground, folder: Path) -> TrainedGenerator:
    """A generator that `run gan` made, taken as it is.

    Raises:
        ConfigError: it was made from other scans, another split, preparation or seed: it may have seen this
            run's test patients, or knows other slices.
        DataError: the folder holds no generator, or a damaged one.
    """
    kept = read_generator(folder)
    if kept.discriminator is None or kept.discriminator_settings is None:
        raise ConfigError(
            "the generator has no discriminator", where=str(folder), mend="Use that of `run gan`."
        )
    ours = facts(ground)
    theirs = {name: kept.told.get(name) for name in ours}
    other = [name for name in ours if ours[name] != theirs[name]]
    if other:
        raise ConfigError(
            f"the generator was made with another {', '.join(other)}: it may have seen test patients",
            where=str(folder),
            found="; ".join(f"{name}: {theirs[name]}" for name in other),
            expected="; ".join(f"{name}: {ours[name]}" for name in other),
            mend="Give both runs the same cohort, prepare.*, split.* and seed.",
        )
    settings = {"generator": dict(kept.settings), "discriminator": dict(kept.discriminator_settings)}
    seen = int(kept.told.get("images", 0))
    return TrainedGenerator(
        kept.generator,
        kept.discriminator,
        Fitted(seen, 0.0, None, folder, None),
        {"ready": network_key(kept.generator), "discriminator": network_key(kept.discriminator)},
        kept.generator,
        None,
        (),
        settings,
    )


def facts(ground: Ground) -> dict[str, Any]:
    """What decides which slices a generator learns from, as JSON values: remembered with it."""
    settings = ground.settings
    return {
        "prepare": settings.prepare.model_dump(mode="json"),
        "modalities": list(ground.cohort.modalities),
        "split": settings.split.model_dump(mode="json"),
        "seed": settings.seed,
        "cohort": {"name": ground.cohort.name, "fingerprint": fingerprint(ground.cohort)},
    }


def design_of(gan: GANSettings) -> GeneratorDesign:
    """Sizes and rates of the two networks as the settings say."""
    mirror = ("xflip",) if gan.mirror else ()
    third = gan.network != "stylegan2"
    return GeneratorDesign(
        kind=gan.network,
        channel_base=gan.channel_base,
        channel_max=gan.channel_max,
        latent=gan.latent,
        mapping_layers=gan.mapping_layers,
        batch=gan.batch,
        learning_rate=gan.learning_rate,
        discriminator_rate=min(gan.learning_rate, 2e-3) if third else None,
        r1_gamma=gan.r1_gamma,
        path_length_weight=0.0 if third else gan.path_length,
        mixing=0.0 if third else gan.mixing,
        reuse_fakes=gan.reuse_fakes,
        ada_target=gan.ada_target,
        ada_images=gan.ada_images,
        ada_operations=(*mirror, *SEQUENCES),
    )


def like_start(design: GeneratorDesign, kept: KeptGenerator, *, freeze: int) -> GeneratorDesign:
    """The design with the sizes of the networks it starts from."""
    told = kept.settings
    radial = bool(told.get("use_radial_filters"))
    kind: Kind = "stylegan2" if told["kind"] == "stylegan2" else "stylegan3-r" if radial else "stylegan3-t"
    wide = 2 if radial else 1
    sizes: dict[str, Any] = {
        "kind": kind,
        "channel_base": told["channel_base"] // wide,
        "channel_max": told["channel_max"] // wide,
        "latent": told["w_dim"],
        "mapping_layers": told["mapping_layers"],
        "conv_clamp": told["conv_clamp"],
    }
    if kept.discriminator_settings is not None:
        sizes["group"] = kept.discriminator_settings["group"]
    return replace(design, **sizes).transferred(freeze=freeze)


def kept_of(trained: TrainedGenerator, generator: ImageGenerator, told: dict[str, Any]) -> KeptGenerator:
    """A trained generator as it is written for other runs; `told` is remembered with it."""
    settings = trained.settings
    return KeptGenerator(
        settings["generator"], generator, settings["discriminator"], trained.discriminator, told
    )
