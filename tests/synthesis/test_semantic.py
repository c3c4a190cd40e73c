"""A generator of images with masks: it starts from a plain one, resumes to the same bytes, and is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError, RunError, ShapeError
from fewmask.core.run import Run
from fewmask.core.seed import stream
from fewmask.core.volume import IGNORE
from fewmask.data.augment import StrongAugment
from fewmask.data.batches import Stream
from fewmask.networks.stylegan2 import Discriminator
from fewmask.synthesis.design import (
    GeneratorDesign,
    MaskDesign,
    build_discriminator,
    build_generator,
    build_mask_discriminator,
)
from fewmask.synthesis.generator import read_stats
from fewmask.synthesis.keep import KeptGenerator, read_generator, write_generator
from fewmask.synthesis.semantic import train_semantic
from fewmask.synthesis.start import Start, copy_start
from fewmask.training.launch import launch

DESIGN = GeneratorDesign(channel_base=64, channel_max=4, latent=8, mapping_layers=1, batch=4, r1_every=2)
GAME = MaskDesign(width=2, r1_every=2)


def slices(count=20, size=16, name="slices"):
    return stream(0, name).uniform(-1, 1, (count, 1, size, size)).astype(np.float16)


def labelled(count=3, classes=3):
    chance = stream(0, "labelled")
    masks = chance.integers(0, classes, (count, 16, 16)).astype(np.uint8)
    masks[0, :4] = IGNORE
    return slices(count, name="pairs"), masks


def train(folder, *, design=DESIGN, total=24, images=None, masks=None, classes=3, **more):
    mine, drawn = labelled(classes=classes)
    return train_semantic(
        slices(),
        mine if images is None else images,
        drawn if masks is None else masks,
        design,
        Run.open(folder).step("semantic"),
        **{"total": total, "seed": 1, "fabric": launch(threads=1), "classes": classes, "game": GAME, **more},
    )


def weights(trained):
    networks = (trained.generator, trained.discriminator, trained.mask_discriminator)
    return [value for network in networks for value in network.state_dict().values()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.fixture(scope="module")
def plain():
    """A StyleGAN2 and its discriminator, as a training of images leaves them."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        generator = build_generator(DESIGN.generator(1, 16)).eval()
        generator.mapping.w_avg.normal_()
        return Start(generator, build_discriminator(DESIGN.discriminator(1, 16)))


class Dying(Stream):
    """Batches until the power fails."""

    def at(self, images_seen, **where):
        if images_seen >= 12 and self.name == "semantic":
            raise KeyboardInterrupt
        return super().at(images_seen, **where)


@pytest.mark.parametrize("augment", [None, StrongAugment()])
def test_a_cut_training_ends_in_the_same_bytes(plain, augment, tmp_path, monkeypatch):
    more = {"start": plain, "augment": augment, "keep_every": 8}
    whole = train(tmp_path / "whole", **more)
    with monkeypatch.context() as patched:
        patched.setattr("fewmask.synthesis.generator.Stream", Dying)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", **more)
    resumed = train(tmp_path / "cut", **more)
    assert resumed.fitted.resumed_from == 8
    assert same(resumed, whole)
    assert same(train(tmp_path / "whole", **more), whole)
    assert resumed.fitted.images_seen == 24
    assert not any(p.requires_grad for p in resumed.generator.parameters())
    (line,) = read_stats(Run.open(tmp_path / "cut").step("semantic").stats_jsonl)
    assert {"loss_d", "loss_mask_d", "r1_mask", "feature_matching"} <= set(line)


def test_a_start_draws_the_same_images_until_it_learns(plain, tmp_path):
    semantic = build_generator(DESIGN.semantic(1, 16, 3)).eval()
    branch = [p.clone() for p in semantic.mask_branch.parameters()]
    judge = Discriminator(16, 1, channel_base=64, channel_max=4)
    copy_start(plain, semantic, judge)
    z = torch.randn(3, 8)
    before = plain.generator(z, truncation=0.7, noise="constant")
    assert torch.equal(semantic(z, truncation=0.7, noise="constant"), before)
    image, mask = semantic.pair(semantic.mapping(z, None, 0.7), "constant")
    assert torch.equal(image, before)
    assert mask.shape == (3, 3, 16, 16)
    for kept, was in zip(semantic.mask_branch.parameters(), branch, strict=True):
        assert torch.equal(kept, was)
    assert torch.equal(judge.out.weight, plain.discriminator.out.weight)
    trained = train(tmp_path / "still", start=plain, design=replace(DESIGN, learning_rate=1e-12)).generator
    assert torch.allclose(trained.synthesis.const, plain.generator.synthesis.const, atol=1e-6)
    with pytest.raises(ConfigError, match="another architecture"):
        train(tmp_path / "wide", start=plain, design=replace(DESIGN, channel_max=8))
    with pytest.raises(RunError, match="start"):
        train(tmp_path / "still", design=replace(DESIGN, learning_rate=1e-12))


def test_it_is_built_again_from_its_settings_and_kept(tmp_path):
    trained = train(tmp_path / "run", total=8)
    for name, build in (("generator", build_generator), ("mask_discriminator", build_mask_discriminator)):
        build(trained.settings[name]).load_state_dict(getattr(trained, name).state_dict())
    kept = KeptGenerator(
        trained.settings["generator"],
        trained.generator,
        trained.settings["discriminator"],
        trained.discriminator,
    )
    write_generator(tmp_path / "kept", kept)
    after = read_generator(tmp_path / "kept").generator
    ws = trained.generator.mapping(torch.randn(2, 8))
    for ours, theirs in zip(after.pair(ws, "constant"), trained.generator.pair(ws, "constant"), strict=True):
        assert torch.equal(ours, theirs)


def test_two_classes_are_one_channel_and_other_labels_another_training(tmp_path):
    images, masks = labelled(count=1, classes=2)
    trained = train(tmp_path, total=8, classes=2, images=images, masks=masks)
    assert trained.generator.mask_channels == trained.mask_discriminator.mask_channels == 1
    with pytest.raises(RunError, match="labelled"):
        train(tmp_path, total=8, classes=2, images=images, masks=1 - np.minimum(masks, 1))


def test_labels_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    images, masks = labelled()
    with pytest.raises(ConfigError, match="at least two classes"):
        train(tmp_path, classes=1)
    with pytest.raises(DataError, match="class numbers"):
        train(tmp_path, classes=2, images=images, masks=masks)
    with pytest.raises(ShapeError, match="do not fit their images"):
        train(tmp_path, masks=masks[:2])
    with pytest.raises(ConfigError, match="another kind"):
        train(tmp_path, images=np.tile(images, (1, 3, 1, 1)))
    with pytest.raises(ConfigError, match="only StyleGAN2"):
        train(tmp_path, design=replace(DESIGN, kind="stylegan3-t"))
    assert not Run.open(tmp_path).step("semantic").inputs_json.exists()
