import pytest
import torch
from safetensors.torch import save_file

from fewmask.core.errors import DataError, RunError
from fewmask.inversion.lpips import checksums, read_lpips
from fewmask.networks.lpips import LpipsNetwork, classifier_names, published_names


def _published(backbone="alex"):
    """Tensors named and shaped as the package lpips names them."""
    own = LpipsNetwork(backbone).state_dict()
    chance = torch.Generator().manual_seed(0)
    tensors = {}
    for ours, theirs in published_names(backbone).items():
        shape = (1, -1, 1, 1) if ours.startswith("weights") else own[ours].shape
        tensors[theirs] = torch.rand(own[ours].shape, generator=chance).reshape(shape).contiguous()
    return tensors


def test_published_names_are_read(tmp_path):
    tensors = _published()
    assert tensors["net.slice3.6.weight"].shape == (384, 192, 3, 3)
    assert tensors["lin4.model.1.weight"].shape == (1, 256, 1, 1)
    save_file({**tensors, "scaling_layer.shift": torch.zeros(1, 3, 1, 1)}, tmp_path / "lpips.safetensors")
    network = read_lpips(tmp_path / "lpips.safetensors").network
    assert torch.equal(network.convolutions[2].weight, tensors["net.slice3.6.weight"])
    assert torch.equal(network.weights[4], tensors["lin4.model.1.weight"].flatten())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_other_files_are_refused_with_the_way_to_make_one(tmp_path):
    path = tmp_path / "lpips.safetensors"
    tensors = _published()
    save_file({name: value for name, value in tensors.items() if "slice5" not in name}, path)
    with pytest.raises(RunError, match=r"does not hold the weights of LPIPS") as caught:
        read_lpips(path)
    assert "net.slice5.10.weight" in str(caught.value)
    assert "save_file" in str(caught.value)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match="not a readable safetensors"):
        read_lpips(path)


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_a_folder_with_the_published_pair_of_files(backbone, tmp_path):
    """A torchvision classifier and the weights of LPIPS, as torch writes them."""
    tensors = _published(backbone)
    renamed = {published_names(backbone)[ours]: theirs for ours, theirs in classifier_names(backbone).items()}
    classifier = {renamed[name]: tensors[name] for name in renamed}
    torch.save({**classifier, "classifier.1.bias": torch.zeros(4)}, tmp_path / "classifier.pth")
    torch.save({k: v for k, v in tensors.items() if k.startswith("lin")}, tmp_path / f"{backbone}.pth")
    save_file(tensors, tmp_path / "whole.safetensors")
    whole = read_lpips(tmp_path / "whole.safetensors")
    (tmp_path / "whole.safetensors").unlink()
    pair = read_lpips(tmp_path)
    assert pair.network.backbone == backbone
    image, other = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    assert torch.equal(pair.towards(image)(other), whole.towards(image)(other))
    found = checksums(tmp_path)
    assert set(found) == {"classifier.pth", f"{backbone}.pth"}
    assert all(len(value) == 64 for value in found.values())


def test_a_module_instead_of_weights_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "lpips.pth")
    with pytest.raises(DataError, match=r"Linear, which is not allowed"):
        read_lpips(tmp_path / "lpips.pth")
    torch.save([1, 2], tmp_path / "lpips.pth")
    with pytest.raises(RunError, match="does not hold"):
        read_lpips(tmp_path / "lpips.pth")
