"""Images moved and mirrored by chance, as torch's generator on the host draws it."""

from __future__ import annotations

import torch
from torch.nn import functional

from plimsoll_api.steps.training import Augmentation
from plimsoll_job.errors import UserError
from plimsoll_job.load.inputs import Signature


def check_images(signature: Signature, spec_field: str) -> None:
    """UserError when what the model takes are no images."""
    if len(signature) != 1 or len(signature[0].shape) != 3 or signature[0].dtype != "float32":
        shapes = " and ".join(str(list(one.shape)) for one in signature)
        raise UserError(
            f"{spec_field}.augmentation: moves and mirrors images [channels, height, width], the model takes {shapes}"
        )


def augment(images: torch.Tensor, settings: Augmentation) -> torch.Tensor:
    """Return the images [n, channels, height, width], each moved by a shift of its own and perhaps mirrored."""
    count, _, height, width = images.shape
    most = [round(settings.shift.value * size) for size in (height, width)]
    rows, columns = (
        torch.randint(2 * reach + 1, (count, 1)) + torch.arange(size)
        for reach, size in zip(most, (height, width), strict=True)
    )
    padded = functional.pad(images, (most[1], most[1], most[0], most[0]))
    moved = padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    if settings.horizontal_flip:
        moved = torch.where((torch.rand(count) < 0.5)[:, None, None, None], moved.flip(-1), moved)
    return moved.contiguous()
