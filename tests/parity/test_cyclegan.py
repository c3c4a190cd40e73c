"""Our CycleGAN and pix2pix compute what the published code computes; so do the schedule and the history."""

import random

import pytest
import torch
import torch.nn.functional as F

from fewmask.networks.cyclegan import PatchDiscriminator, ResNetGenerator
from fewmask.networks.cyclegan_names import (
    from_published_discriminator,
    from_published_generator,
    from_published_unet,
)
from fewmask.networks.pix2pix import UNetGenerator
from fewmask.objectives.cyclegan import Rate, least_squares
from fewmask.objectives.history import History


def tensors(state):
    return {key: torch.from_numpy(value) for key, value in state.items()}


def watched(layers):
    """What named layers give, once the network was called."""
    seen = {}
    for key, layer in layers.items():
        layer.register_forward_hook(lambda _, __, y, key=key: seen.update({key: y.detach()}))
    return seen


def with_bias(r, seen):
    """Our convolutions have no bias before a norm; the published ones' is added to what is compared."""
    for key, y in seen.items():
        bias = r.tensor(f"sd/{key.removeprefix('act/')}.bias")
        r.compare(key, (y if bias is None else y + bias[:, None, None])[:1])


def test_parity_resnet(resnet_file, reference):
    r = reference(resnet_file)
    how, x = r.config, r.tensor("in/x")
    network = ResNetGenerator(how["input_nc"], how["output_nc"], width=how["ngf"], blocks=how["n_blocks"])
    network.load_state_dict(from_published_generator(tensors(r.state())))
    count = how["n_blocks"]
    layers = {"1": network.stem, "4": network.down[0], "7": network.down[1]}
    layers |= {f"{10 + n}": block for n, block in enumerate(network.blocks)}
    layers |= {f"{10 + count}": network.up[0], f"{13 + count}": network.up[1]}
    seen = watched({f"act/model.{key}": layer for key, layer in layers.items()})
    last = watched({"last": network.last})
    y = network(x)
    with_bias(r, seen)
    r.compare(f"act/model.{17 + count}", last["last"][:1])
    r.compare(f"act/model.{18 + count}", y[:1])
    r.compare("out/y", y)
    r.check()


def test_parity_patches(patches_file, reference):
    r = reference(patches_file)
    how, x = r.config, r.tensor("in/x")
    network = PatchDiscriminator(how["input_nc"], width=how["ndf"], layers=how["n_layers"], norm=how["norm"])
    network.load_state_dict(from_published_discriminator(tensors(r.state())))
    if how["norm"] == "batch":
        r.compare("out/y_eval", network.eval()(x))
        r.compare("out/y_train", network.train()(x))
        return r.check()
    inner = {f"act/model.{2 + 3 * n}": layer for n, layer in enumerate(network.inner)}
    seen = watched({"act/model.0": network.first, **inner, f"act/model.{2 + 3 * len(inner)}": network.last})
    y = network(x)
    for place in ("0", str(2 + 3 * len(inner))):
        r.compare(f"act/model.{place}", seen.pop(f"act/model.{place}")[:1])
    with_bias(r, seen)
    r.compare("out/y", y)
    r.compare("out/loss_lsgan_real", least_squares(y, 1.0))
    r.compare("out/loss_lsgan_fake", least_squares(y, 0.0))
    r.compare("out/loss_vanilla_real", F.binary_cross_entropy_with_logits(y, torch.ones_like(y)))
    r.compare("out/loss_vanilla_fake", F.binary_cross_entropy_with_logits(y, torch.zeros_like(y)))
    return r.check()


def test_parity_unet(unet_file, reference):
    r = reference(unet_file)
    how, x = r.config, r.tensor("in/x").float()
    drop = 0.5 if how["use_dropout"] else 0.0
    network = UNetGenerator(
        how["input_nc"], how["output_nc"], width=how["ngf"], depth=how["num_downs"], dropout=drop
    )
    network.load_state_dict(from_published_unet(tensors(r.state())))
    inputs = {}
    for level, up in enumerate(network.up):
        up.register_forward_hook(lambda _, given, __, level=level: inputs.update({level: given[0].detach()}))
    r.compare("out/y_eval", network.eval()(x))
    for key, found in r.named(r"act/level(\d+)_submodule_out"):
        # what a level hands up is rectified by the next; theirs may be kept from before that
        r.data[key] = r.data[key].clip(min=0)
        r.compare(key, inputs[int(found[1]) - 1])
    r.compare("out/y_train", network.train()(x))
    moved = from_published_unet({k: k for k, _ in r.named(r"out/after_train/.*")})
    for ours, theirs in moved.items():
        r.compare(theirs, network.state_dict()[ours])
    r.check()


def test_parity_schedule_and_history(schedule_file, reference):
    r = reference(schedule_file)
    how, epoch = r.config, 37
    rate = Rate(how["lr"], images=(how["n_epochs"] + how["n_epochs_decay"]) * epoch, step=epoch)
    found = [rate.at(epoch * number) for number in range(how["n_epochs"] + how["n_epochs_decay"])]
    r.compare("out/lr_per_epoch", found)
    assert found == pytest.approx(r.data["out/lr_per_epoch"], rel=1e-12)
    size, chance = how["pool_size"], random.Random(how["python_random_seed"])
    history, given = History(size, (1, 1, 1)), []
    batches, each = r.data["out/pool_ids"].shape
    for batch in range(batches):
        swap, place = torch.zeros(each, dtype=torch.bool), torch.zeros(each, dtype=torch.int64)
        for n in range(each):
            if batch * each + n >= size:  # the published draws begin when it is full
                swap[n] = chance.uniform(0, 1) > 0.5
                place[n] = chance.randint(0, size - 1) if swap[n] else 0
        numbers = torch.arange(batch * each, (batch + 1) * each).float()
        given.append(history.exchange(numbers[:, None, None, None], swap, place).flatten())
    assert torch.equal(torch.stack(given).long(), r.tensor("out/pool_ids"))
    r.done.add("out/pool_ids")
    r.check()
