"""Trains in several processes: `pair_worker.py FOLDER HOW SCENARIO...`, FOLDER/SCENARIO is the training's.

A scenario is OBJECTIVE-IMAGES-DEVICES-PARTS-TROUBLE. HOW is "here": the one scenario runs in this process,
and Fabric starts the others; or "forks": every process is a fork that finds in its environment what torchrun
tells. TROUBLE happens in the last process after 48 images: "nan" in its loss, "logged" infinity, "error"
raised, "kill" of the process, "SIGTERM", "SIGUSR1" or "SIGINT" sent to itself; "none" for none.
"""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fewmask.core.errors import FewmaskError
from fewmask.core.run import Step
from fewmask.core.seed import integer, stream
from fewmask.data.batches import ArraySource, Batch, Stream, rows
from fewmask.objectives.minimise import Minimise
from fewmask.training.launch import launch
from fewmask.training.loop import fit

SEED, BATCH, HALF, GROUP = 7, 16, 8, 4


class Pair:
    """A small critic with the minibatch deviation, noise of the whole batch, and a running mean."""

    def __init__(self, trouble: str) -> None:
        torch.manual_seed(integer(SEED, "initial"))
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(6, 6, 3))
        self.head = nn.Linear(7, 1)
        both = [*self.body.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.Adam(both, lr=2e-3, betas=(0.0, 0.99))
        self.heat, self.trouble = 0.0, trouble

    def modules(self) -> Mapping[str, nn.Module]:
        return {"body": self.body, "head": self.head}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self.optimizer}

    def state(self) -> Mapping[str, float]:
        return {"heat": self.heat}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.heat = state["heat"]

    def logits(self, image: Tensor) -> Tensor:
        found = self.body(image)
        groups = found.view(GROUP, -1, *found.shape[1:])
        deviation = groups.var(dim=0, unbiased=False).add(1e-8).sqrt().mean(dim=(1, 2, 3)).repeat(GROUP)
        return self.head(torch.cat([found.mean(dim=(2, 3)), deviation[:, None]], dim=1))

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        count = len(batch) * minimise.ranks
        noise = torch.randn(count, *batch.image.shape[1:])[rows(count, minimise.rank, minimise.ranks)]
        troubled = images_seen >= 40 and minimise.rank == minimise.ranks - 1
        if troubled and self.trouble:
            self.be(self.trouble)

        def losses():
            for part in range(minimise.parts):
                mine = rows(len(batch), part, minimise.parts)
                real, wrong = self.logits(batch.image[mine]), self.logits(noise[mine])
                loss = nn.functional.softplus(-real).mean() + nn.functional.softplus(wrong).mean()
                yield loss / minimise.parts * (float("nan") if troubled and self.trouble == "nan" else 1)

        loss = minimise(losses(), self.optimizer)
        self.heat = 0.9 * self.heat + 0.1 * float(minimise.mean(noise.mean()))
        if troubled and self.trouble == "logged":
            return {"loss": loss, "strange": float("inf")}
        return {"loss": loss, "heat": self.heat}

    def be(self, trouble: str) -> None:
        if trouble == "error":
            raise MemoryError("no memory left in this process")
        if trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, trouble))
            self.trouble = ""


def pair(trouble: str) -> tuple[Pair, Stream]:
    images = stream(SEED, "images").standard_normal((50, 1, 8, 8), dtype=np.float32)
    return Pair(trouble), Stream(ArraySource(images), BATCH, seed=SEED, name="train")


def stylegan2(trouble: str, dtype: torch.dtype = torch.float64, count: int = HALF) -> tuple[object, Stream]:
    """A very small StyleGAN2 with everything at work that looks at a whole batch, in float64 by default.

    In float32 the order of a sum may decide on which side of a kink (leaky ReLU) a number falls, and second
    derivatives jump there: then two processes end elsewhere than one, as two computers would.
    """
    from fewmask.networks.stylegan2 import Discriminator, Generator  # noqa: PLC0415
    from fewmask.objectives.ada import AdaptiveAugmentation  # noqa: PLC0415
    from fewmask.objectives.regularise import Regularisation  # noqa: PLC0415
    from fewmask.objectives.stylegan import StyleGANObjective  # noqa: PLC0415

    torch.manual_seed(integer(SEED, "initial"))
    small = {"channel_base": 64, "channel_max": 8}
    generator, average = (Generator(8, 8, 16, 1, mapping_layers=2, **small).to(dtype) for _ in range(2))
    discriminator = Discriminator(16, 1, **small).to(dtype)

    class Cast(StyleGANObjective):
        def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> dict[str, Tensor | float]:
            return super().update(replace(batch, image=batch.image.to(dtype)), images_seen, minimise)

    objective = Cast(
        generator,
        discriminator,
        average,
        batch=count,
        augment=AdaptiveAugmentation(p=0.3, images=500),
        regularisation=Regularisation(r1_every=4, path_length_weight=2.0),
    )
    images = stream(SEED, "images").random((50, 1, 16, 16), dtype=np.float32) * 2 - 1
    return objective, Stream(ArraySource(images), count, seed=SEED, name="train")


def float32(trouble: str) -> tuple[object, Stream]:
    """The same in float32, with twice as many images in a batch."""
    return stylegan2(trouble, torch.float32, BATCH)


def train(folder: str, scenario: str) -> int:
    """The exit code of one process of a training."""
    name, images, devices, parts, trouble = scenario.split("-")
    fabric = launch(devices=int(devices), threads=1)
    make = {"pair": pair, "stylegan2": stylegan2, "float32": float32}[name]
    objective, batches = make("" if trouble == "none" else trouble)
    weights = next(next(iter(objective.modules().values())).parameters()).detach()
    try:
        fit(
            objective,
            batches,
            Step(Path(folder) / scenario),
            images=int(images),
            seed=SEED,
            fabric=fabric,
            checkpoint_every=160,
            report_every=160,
            validate=lambda: weights.square().mean().item(),
            validate_every=320,
            parts=int(parts),
            label=name,
        )
    except FewmaskError as error:
        sys.stderr.write(f"process {fabric.global_rank}: {error}\n")
        return error.exit_code
    return 0


def fork(folder: str, scenario: str) -> list[int]:
    """Process ids of the training's processes."""
    devices = int(scenario.split("-")[2])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(devices):
        children.append(os.fork())
        if children[-1]:
            continue
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": devices, "LOCAL_WORLD_SIZE": devices}
        told |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "x"}
        os.environ.update({name: str(value) for name, value in told.items()} if devices > 1 else {})
        code = 99
        try:
            code = train(folder, scenario)
        except MemoryError as error:
            sys.stderr.write(f"process {rank}: {error}\n")
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return children


def main(folder: str, how: str, *scenarios: str) -> None:
    if how == "here":
        sys.exit(train(folder, *scenarios))
    torch.set_num_threads(1)
    for scenario in scenarios:
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in fork(folder, scenario)]
        sys.stdout.write(f"{scenario} {' '.join(map(str, ended))}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
