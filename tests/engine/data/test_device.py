import pytest
import torch
from torchvision.transforms import v2

from engine.data.device import MEAN, STD, DeviceFeed, normalize


def pictures(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stored", [torch.contiguous_format, torch.channels_last])
def test_images_are_normalised_as_torchvision_does(
    stored: torch.memory_format, memory_format: torch.memory_format
) -> None:
    images = pictures(4, 9).contiguous(memory_format=stored)
    expected = v2.functional.normalize(images.float() / 255, list(MEAN), list(STD))
    result = normalize(images, memory_format)
    assert result.dtype == torch.float32 and result.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    assert torch.equal(images, pictures(4, 9))


def test_what_is_brought_is_what_was_there(device: torch.device) -> None:
    """Batch after batch, none kept: memory is taken again while the device still works on what lay there."""
    feed = DeviceFeed(device)
    pin = device.type == "cuda"
    weight = torch.randn(3, 3, 5, 5, device=device)
    for number in range(20):
        batch = pictures(8, 64).roll(number, 0)
        batch = batch.pin_memory() if pin else batch
        images, (label,) = feed(
            lambda b=batch, n=number: (
                normalize(b.to(device, non_blocking=True), torch.contiguous_format),
                [torch.full((1,), n, device=device)],
            )
        )
        result = torch.conv2d(images, weight)
        expected = torch.conv2d(normalize(batch.to(device), torch.contiguous_format), weight)
        assert torch.equal(result, expected) and label.item() == number
