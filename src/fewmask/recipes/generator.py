"""From settings to a trained generator: what every recipe that trains one shares."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fewmask.core.errors import ConfigError
from fewmask.core.run import GeneratorFolder, Run
from fewmask.inversion.resume import network_key
from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.ada import SEQUENCES
from fewmask.recipes.ground import Ground
from fewmask.recipes.presence import refuse_other_presence
from fewmask.recipes.record import patient_key
from fewmask.recipes.settings import GANSettings
from fewmask.synthesis.design import GeneratorDesign, Kind, build_generator
from fewmask.synthesis.generator import Judge, Slices, TrainedGenerator, train_generator
from fewmask.synthesis.keep import KeptGenerator, read_generator
from fewmask.synthesis.start import Start, refuse_other
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
        return ready_generator(ground, gan, gan.ready, slices.classes)
    kept = None if gan.start is None else read_kept(gan.start)
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


def ready_generator(ground: Ground, gan: GANSettings, folder: Path, classes: int) -> TrainedGenerator:
    """A generator of so many classes (0: none) that `run gan` made, taken as it is.

    Raises:
        ConfigError: it has learned from patients whom this run tests or validates on, nobody knows from whom
            it learned, it knows slices of another preparation, or was told something else of them.
        DataError: the folder holds no generator, or a damaged one.
    """
    kept = read_kept(folder)
    if kept.discriminator is None or kept.discriminator_settings is None:
        raise ConfigError(
            "the generator has no discriminator", where=str(folder), mend="Use that of `run gan`."
        )
    refuse_leak(ground, kept, folder)
    ours = knowledge(ground)
    other = [name for name in ours if ours[name] != kept.told.get(name)]
    if other:
        raise ConfigError(
            f"the generator knows slices with another {' and '.join(other)}",
            where=str(folder),
            found="; ".join(f"{name}: {kept.told.get(name)}" for name in other),
            expected="; ".join(f"{name}: {ours[name]}" for name in other),
            mend="Give both runs the same prepare.* settings and modalities.",
        )
    refuse_other_presence(ground, gan, kept, str(folder), classes)
    settings = {"generator": dict(kept.settings), "discriminator": dict(kept.discriminator_settings)}
    return TrainedGenerator(
        kept.generator,
        kept.discriminator,
        Fitted(int(kept.told.get("images", 0)), 0.0, None, folder, None),
        {"ready": network_key(kept.generator), "discriminator": network_key(kept.discriminator)},
        kept.generator,
        None,
        (),
        settings,
    )


def read_kept(folder: Path) -> KeptGenerator:
    """The generator in `folder`, or in the folder `generator` of the run that `folder` is."""
    inside = Run(folder).generator
    if not GeneratorFolder(folder).generator_json.exists() and inside.is_dir():
        return read_generator(inside)
    return read_generator(folder)


def refuse_leak(ground: Ground, kept: KeptGenerator, folder: Path) -> None:
    """A `ConfigError` when the generator learned from a patient on whom this run tests or validates."""
    seen = seen_by(kept)
    if seen is None:
        raise ConfigError(
            "nobody knows from which patients the generator learned",
            where=str(folder),
            mend="Use one made by `run gan`, or start from this one with gan.start.",
        )
    held_out = {*ground.split.test, *ground.split.validation}
    leaked = sorted(patient for patient in held_out if patient_key(patient) in seen)
    if leaked:
        raise ConfigError(
            "the generator has learned from patients whom this run tests on",
            where=str(folder),
            found=f"{len(leaked)} of {len(held_out)}: {', '.join(leaked[:6])}",
            expected="none of them",
            mend="Give both runs the same cohort, split.* and seed.",
        )


def seen_by(kept: KeptGenerator) -> frozenset[str] | None:
    """Keys of the patients that a kept generator learned from; None when that is not known."""
    seen = kept.told.get("seen")
    return None if seen is None else frozenset(seen)


def knowledge(ground: Ground) -> dict[str, Any]:
    """What decides how slices look to a generator, as JSON values: remembered with it."""
    prepare = ground.settings.prepare.model_dump(mode="json")
    return {"prepare": prepare, "modalities": list(ground.cohort.modalities)}


def refuse_unfit(gan: GANSettings, slices: Slices, ranks: int) -> None:
    """A `ConfigError` for what the training would refuse only after the judge has learned."""
    channels, size = slices.images.shape[1:3]
    group = design_of(gan).group
    if gan.start is not None:
        kept = read_kept(gan.start)
        group = (kept.discriminator_settings or {}).get("group", group)
        ours = like_start(design_of(gan), kept, freeze=0).generator(channels, size, slices.classes)
        refuse_other(Start(kept.generator), build_generator(ours))
    share = gan.batch / (gan.parts * ranks)
    if share % 1 or (group and share % group):
        raise ConfigError(
            "a minibatch cannot be divided so",
            where="gan.parts",
            found=f"gan.batch={gan.batch} in {gan.parts} parts on {ranks} devices: {share:g} images each",
            expected=f"a multiple of {group}, the images over which the discriminator measures variety",
            mend="Choose another gan.batch or gan.parts.",
        )
    blocks = size.bit_length() - 3
    if gan.freeze_d > blocks:
        raise ConfigError(
            "more blocks to freeze than the discriminator has",
            where="gan.freeze_d",
            found=str(gan.freeze_d),
            expected=f"at most {blocks} at {size} px",
            mend="Freeze fewer; 1 to 3 is usual.",
        )


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
        conv_clamp=256.0 if third else None,
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
