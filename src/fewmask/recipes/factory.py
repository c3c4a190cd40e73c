"""The factory of a run: for each draw of shots, pairs on the disk and a choice among them.

DatasetGAN (Zhang et al. 2021): an interpreter, the ensemble of heads that learned the shots, labels what the
generator draws. SemanticGAN (Li et al. 2021): the generator draws the mask itself, see `recipes.semantic`.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmask.core.errors import ConfigError
from fewmask.core.seed import integer
from fewmask.data.softmasks import MaskArray
from fewmask.inversion.resume import array_key, network_key
from fewmask.metrics.shapes import Margin
from fewmask.recipes.arms import UNET, place, train_unet, unet_key
from fewmask.recipes.heads import Heads, TrainedHead
from fewmask.recipes.presence import label_rows, told_of_presence
from fewmask.recipes.stage import Few, Labelled, Stage
from fewmask.recipes.support import checked_support
from fewmask.recipes.synthetic_settings import SyntheticSettings
from fewmask.segmenter.sources import encode
from fewmask.segmenter.windows import slide
from fewmask.synthesis.factory import PairFolder, Record, Shard, make_pairs
from fewmask.synthesis.pairs import Pair, PairMaker, class_centres, numbered_label, styles
from fewmask.synthesis.pixelhead import Shots
from fewmask.synthesis.sift import Sifted, sift, write_sifted

Draw = Callable[[int], Pair]


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs on the disk, and which of them teach.

    real_masks: (M, H, W) label values, the masks that they were made from.
    """

    pairs: PairFolder
    records: dict[int, Record]
    sifted: Sifted
    real_masks: NDArray[np.uint8]

    def images(self) -> NDArray[np.float16]:
        """The chosen ones, (N, C, H, W) in [-1, 1]."""
        return np.stack([self.pairs.image(number).astype(np.float16) for number in self.sifted.kept])

    def labels(self, how: str) -> MaskArray:
        """Their masks: "vote", label values (N, H, W); "soft", shares of the classes (N, K, H, W)."""
        kept = self.sifted.kept
        if how == "soft":
            return np.stack([self.pairs.soft(number)[0] for number in kept])
        return np.stack([self.pairs.mask(number) for number in kept])


class Factory:
    """One set of pairs per draw of shots; each is made when it is first asked for, and resumed."""

    def __init__(self, heads: Heads, settings: SyntheticSettings) -> None:
        self.heads, self.settings = heads, settings
        self._sets: dict[str, PairSet] = {}

    @property
    def stage(self) -> Stage:
        """The run."""
        return self.heads.stage

    @property
    def labels(self) -> Tensor | None:
        """What pairs are drawn with, (M, 2): slices with rare classes in the share that is asked for.

        None for a generator that is not told.
        """
        return label_rows(self.settings.factory.present) if self.settings.gan.conditional else None

    def interpreter(self, few: Few, items: Labelled) -> TrainedHead:
        """The ensemble that labels generated slices, taught by the shots or by the oracle."""
        if self.settings.factory.source == "real":
            return self.heads.train(self.settings.reading, few, items)
        name = place("interpreter", few.count, few.draw)
        stack = self.heads.stack(self.settings.reading, few, items)
        return self.heads.fit(
            self.settings.reading, name, stack, self.from_oracle(few), self.made_from(few, items)
        )

    def made_from(self, few: Few, items: Labelled) -> dict[str, Any]:
        """What an interpreter depends on, as JSON values."""
        told = self.heads.made_from(self.settings.reading, items)
        if self.settings.factory.source == "oracle":
            told |= {"oracle": unet_key(self.stage.settings.unet), "draw": few.draw, "count": few.count}
        return told

    def told(self, few: Few, items: Labelled) -> dict[str, Any]:
        """What the pairs of a draw, and the choice among them, depend on."""
        return {**self.made_from(few, items), **self.counted()}

    def counted(self) -> dict[str, Any]:
        """The settings of pairs, and how many."""
        return {"factory": told_of(self.settings), "pairs": self.settings.factory.pairs}

    def of(self, few: Few, items: Labelled) -> PairSet:
        """The pairs of a draw."""
        return self.make(
            place("pairs", few.count, few.draw),
            lambda: self.maker(self.interpreter(few, items)),
            self.told(few, items),
            np.stack(items.masks),
            **self.labelled_by(),
        )

    def labelled_by(self) -> dict[str, Any]:
        """The networks that draw and label the pairs of an interpreter, as `write` takes it."""
        head = self.settings.head.model_dump(mode="json", exclude={"reads", "support"})
        return {
            "generator": network_key(self.heads.gan.generator),
            "kind": {"reads": self.settings.reading.text, "head": head},
        }

    def of_person(self) -> tuple[PairSet, dict[str, Any]]:
        """Pairs whose interpreter learned slices that a person labelled, and what they depend on."""
        heads, reading = self.heads, self.settings.reading
        support = checked_support(heads)
        masks = encode(support.masks, self.stage.labels, str(self.settings.head.support))
        origin = {"samples": array_key(support.images), "masks": array_key(masks.astype(np.float32))}
        made_from = {**heads.made_from(reading), **origin}
        told = {**made_from, **self.counted()}
        name, shots = place("interpreter person", len(masks), 0), Shots(support.images, masks, support.ws)

        def draw() -> Draw:
            return self.maker(heads.fit(reading, name, heads.stack(reading), shots, made_from))

        name = place("pairs person", len(masks), 0)
        return self.make(name, draw, told, support.masks, **self.labelled_by()), told

    def maker(self, head: TrainedHead) -> PairMaker:
        """Draws pair n with the labels of an interpreter."""
        how, way = self.settings.factory, head.reading.way
        assert way is not None
        return PairMaker(
            self.heads.latents.generator(way),
            [head.head],
            head.stack,
            self.settings.seed,
            how.truncation,
            how.truncated_layers,
            head.class_weights,
            self.labels,
        )

    def from_oracle(self, few: Few) -> Shots:
        """As many generated slices as there are shots, labelled by the U-Net on all masks."""
        way, how = self.settings.reading.way, self.settings.factory
        assert way is not None
        generator = self.heads.latents.generator(way)
        chance = torch.Generator().manual_seed(integer(self.settings.seed, "oracle", few.draw))
        z = torch.randn(max(self.settings.shots.counts), generator.z_dim, generator=chance)[: few.count]
        label = None
        if self.labels is not None:
            label = torch.cat([numbered_label(self.labels, self.settings.seed, n) for n in range(len(z))])
        with torch.no_grad():
            ws = styles(
                generator,
                z,
                label,
                truncation=how.truncation,
                truncated_layers=how.truncated_layers,
                centres=class_centres(generator),
            )
            image = generator.synthesis(ws, noise="constant").clamp(-1, 1)
        return Shots(image.numpy(), oracle_masks(self.stage, image.numpy()), ws.numpy())

    def make(
        self,
        name: str,
        draw: Callable[[], Draw],
        told: dict[str, Any],
        real: NDArray[np.uint8],
        *,
        generator: str,
        kind: dict[str, Any],
    ) -> PairSet:
        """Pairs under a step: made, resumed, or known. `draw` is asked only while some are missing.

        told: what they depend on (JSON values); real: the masks that they were made from, label values;
        generator, kind: see `write`.
        """
        if name not in self._sets:
            folder, count = self.stage.run.step(name).pairs, self.settings.factory.pairs
            pairs = self.write(folder, draw, told, count, generator=generator, kind=kind)
            self._sets[name] = self.chosen(pairs, real)
        return self._sets[name]

    def write(
        self,
        folder: Path,
        draw: Callable[[], Draw],
        told: dict[str, Any],
        count: int,
        *,
        generator: str,
        kind: dict[str, Any],
        shard: Shard = (0, 1),
        on_progress: Callable[[int, int], None] | None = None,
    ) -> PairFolder:
        """Pairs on the disk. What they are made from names no patient: the folder may be given away.

        generator: hash of the network that draws them; kind: what labels them, in settings.
        """
        made, settings = cache(draw), self.settings
        presence = told_of_presence(self.stage.ground, settings.gan)
        source = {name: value for name, value in told.items() if name != "pairs"}  # more may be added
        whole = json.dumps({"stage": self.stage.key, **source}, sort_keys=True)
        return make_pairs(
            folder,
            lambda number: made()(number),
            count,
            made_from={
                "generator": generator,
                "key": hashlib.sha256(whole.encode()).hexdigest(),
                **kind,
                "factory": told_of(settings),
                "seed": settings.seed,
                **({} if presence is None else {"presence": presence}),
            },
            classes=self.stage.cohort.classes,
            modalities=self.stage.cohort.modalities,
            image_format=settings.factory.image_format,
            shard=shard,
            on_progress=on_progress,
        )

    def chosen(self, pairs: PairFolder, real: NDArray[np.uint8]) -> PairSet:
        """The choice among pairs, written beside them; `real`: the masks that they were made from.

        Raises `ConfigError` when none is left.
        """
        how, classes = self.settings.factory, self.stage.cohort.classes
        enough = how.plausible_from is not None and len(real) >= how.plausible_from
        records = pairs.records()
        sifted = sift(
            records,
            real_masks=real if enough else None,
            classes=classes,
            lesions=self.stage.settings.cohort.lesions,
            uncertain_share=how.drop,
            margin=Margin(how.area, how.centre * max(self.settings.prepare.size), how.pieces),
        )
        if not sifted.kept:
            refuse_none(pairs, sifted)
        write_sifted(pairs, records, sifted)
        return PairSet(pairs, records, sifted, real)


def told_of(settings: SyntheticSettings) -> dict[str, Any]:
    """The settings of pairs, and of the choice among them; which arms learn from them is told elsewhere."""
    unused = set() if settings.gan.conditional else {"present"}
    return settings.factory.model_dump(mode="json", exclude={"mix", "first", "pairs", *unused})


def oracle_masks(stage: Stage, images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Class numbers (N, H, W) that the U-Net on all masks sees in images (N, C, H, W)."""
    unet = train_unet(stage, stage.labelled, arm=UNET, shots=None, draw=0).to("cpu")
    return answers(unet.network, images, unet.design.patch, len(unet.design.labels))


def answers(
    network: nn.Module, images: NDArray[np.float32], patch: tuple[int, ...], classes: int
) -> NDArray[np.uint8]:
    """The most probable class (N, H, W) of every pixel of images (N, C, H, W)."""
    parts = []
    with torch.no_grad():
        for first in range(0, len(images), 16):
            soft = slide(network, torch.from_numpy(images[first : first + 16]), patch, classes=classes)
            parts.append(soft.argmax(dim=1).numpy().astype(np.uint8))
    return np.concatenate(parts)


def refuse_none(pairs: PairFolder, sifted: Sifted) -> None:
    """A `ConfigError` that says why no pair is left."""
    raise ConfigError(
        "no pair is left to learn from",
        where=str(pairs.folder),
        found=", ".join(f"{reason}: {count}" for reason, count in list(sifted.counts.items())[:6]),
        mend="Look at the pairs; then widen factory.area and factory.centre, or set "
        "factory.plausible_from=null.",
    )
