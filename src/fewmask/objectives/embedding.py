"""Teaching an image encoder without labels: two views of one image lie together, different images apart.

SimCLR (Chen, Kornblith, Norouzi & Hinton 2020, equation 1), where every image comes a second time with faults
planted (`objectives.faults`), as another image. Every image of the batch is compared with every other, so
processes and micro-batches exchange embeddings, and each sends back only the gradient of its own: together
that is exactly the step of one large batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from fewmask.data.augment_intensity import IntensityRanges, apply_tone, draw_tone
from fewmask.data.augment_spatial import SpatialRanges, apply_warp, draw_warp
from fewmask.data.batches import Batch
from fewmask.networks.embedding import ImageEncoder
from fewmask.objectives.faults import Faults, draw_faults, plant, take_rows
from fewmask.objectives.minimise import Minimise, rows
from fewmask.objectives.segmentation import Schedule


@dataclass(frozen=True)
class Views:
    """How a view of a scan is made: what may differ between two pictures of the same anatomy.

    Small moves and cuts, a little more or less exposure. No blur and no noise: a judge of generated images
    has to see them. No mirror: a chest has two sides.
    """

    spatial: SpatialRanges = field(
        default_factory=lambda: SpatialRanges(
            rotate_deg=8.0, scale=1.2, stretch=1.08, shear=0.03, shift=0.06, elastic=0.01
        )
    )
    intensity: IntensityRanges = field(
        default_factory=lambda: IntensityRanges(
            gamma=(1.1, 0.5),
            contrast=(1.1, 0.5),
            brightness=(0.05, 0.5),
            bias=(0.1, 0.3),
            noise=(0.0, 0.0),
            blur=(0.0, 0.0),
            low_resolution=(1.0, 0.0),
        )
    )

    def __call__(self, image: Tensor, rank: int, ranks: int) -> Tensor:
        """Two views of each image and of its faulty twin: (B, C, H, W) -> (4, B, C, H, W), the twins last.

        Drawn from torch's global generator for all B x ranks images of the batch; this process takes the rows
        that are its own. The faults of a twin's two views are equal, its noise is new.
        """
        count = len(image) * ranks
        shape = torch.Size((count, *image.shape[1:]))
        mine, chance = rows(count, rank, ranks), torch.default_generator
        faults = draw_faults(shape, chance)
        made = []
        for faulty in (False, False, True, True):
            warp = take_rows(draw_warp(count, 2, self.spatial, chance), mine)
            tone = take_rows(draw_tone(shape, self.intensity, chance), mine)
            view = apply_tone(apply_warp(image, None, warp, outside=0)[0], tone)
            made.append(plant(view, _with_new_noise(faults, chance).take(mine)) if faulty else view)
        return torch.stack(made)


def _with_new_noise(faults: Faults, chance: torch.Generator) -> Faults:
    """The same faults, another grain."""
    white = torch.randn(faults.grain.white.shape, generator=chance)
    return replace(faults, grain=replace(faults.grain, white=white))


class Expander(nn.Module):
    """(B, dim) -> (B, width): where the embedding's coordinates are compared; used in training only."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width)
        )

    def initialise(self, chance: torch.Generator) -> None:
        """Draw all weights from `chance`; biases start at 0."""
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    layer.weight.copy_(
                        torch.randn(layer.weight.shape, generator=chance) * layer.in_features**-0.5
                    )
                    layer.bias.zero_()

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, dim) -> (B, width)."""
        expanded: Tensor = self.layers(embedding)
        return expanded


class EmbeddingObjective:
    """SimCLR of an `ImageEncoder`.

    Args:
        encoder: what is wanted in the end.
        expander: what the loss looks at.
        images: length of the training in images seen.
        views: how two views of an image are made.
        temperature: tau of the loss.
        learning_rate: of AdamW; rises over the first tenth, then falls to 0 as a cosine.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        expander: Expander,
        *,
        images: int,
        views: Views | None = None,
        temperature: float = 0.2,
        learning_rate: float = 2e-3,
    ) -> None:
        self.encoder, self.expander, self.views = encoder, expander, views or Views()
        self.temperature = temperature
        self.schedule = Schedule(learning_rate, images, warm_up=0.1)
        learned = [*encoder.parameters(), *expander.parameters()]
        self._optimizer = AdamW(learned, learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)

    def modules(self) -> Mapping[str, nn.Module]:
        """Encoder and expander."""
        return {"encoder": self.encoder, "expander": self.expander}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Their AdamW."""
        return {"embedding": self._optimizer}

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimiser."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """One step on two views of every image and two of its faulty twin."""
        self._optimizer.param_groups[0]["lr"] = self.schedule.at(images_seen)
        image, rank, ranks, parts = batch.image, minimise.rank, minimise.ranks, minimise.parts
        views = self.views(image, rank, ranks)
        shares = [views[:, rows(len(image), part, parts)] for part in range(parts)]
        count = len(image) * ranks
        places = [rows(count, rank + ranks * part, ranks * parts) for part in range(parts)]
        alone = [self._expand(share) for share in shares] if parts == 1 else None
        with torch.no_grad():
            local = [one.detach() for one in alone or map(self._expand, shares)]
            everyone = local[0].new_zeros(4, count, local[0].shape[2])
            for place, one in zip(places, local, strict=True):
                everyone[:, place] = one * ranks
            everyone = minimise.mean(everyone)

        def losses() -> Iterator[Tensor]:
            for number, place in enumerate(places):
                mine = alone[0] if alone else self._expand(shares[number])
                loss = contrast(everyone.slice_scatter(mine, 1, *place.indices(count)), self.temperature)
                # gradients: a sum over shares, where `minimise` takes the mean over processes; value: loss
                yield ranks * loss - (ranks - 1 / parts) * loss.detach()

        return {"loss": minimise(losses(), self._optimizer)}

    def _expand(self, views: Tensor) -> Tensor:
        """Views of B images (4, B, C, H, W) as unit vectors (4, B, E)."""
        expanded: Tensor = self.expander(self.encoder(views.flatten(0, 1)))
        return F.normalize(expanded.float(), dim=1).view(4, -1, expanded.shape[1])


def contrast(expanded: Tensor, temperature: float) -> Tensor:
    """NT-Xent of unit vectors (V, B, E), equation 1; rows 0 and 1, 2 and 3 ... of V are views of the same.

    Every view has to find the other view of its image among all other views.
    """
    with torch.autocast(expanded.device.type, enabled=False):
        views, count = expanded.shape[:2]
        all_of_them = expanded.flatten(0, 1)
        similar = all_of_them @ all_of_them.t() / temperature
        itself = torch.eye(views * count, dtype=torch.bool, device=similar.device)
        places = torch.arange(views * count, device=similar.device).view(views // 2, 2, count)
        partner = places.flip(1).flatten()
        return F.cross_entropy(similar.masked_fill(itself, -torch.inf), partner)
