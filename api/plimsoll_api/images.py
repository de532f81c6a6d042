"""How images become numbers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Decimal, Model
from plimsoll_api.rules import Rule, Within
from plimsoll_api.values import list_of


class ImageMode(StrEnum):
    """The channels that an image is turned into."""

    RGB = "RGB"
    GRAYSCALE = "Grayscale"


class Interpolation(StrEnum):
    """How pixels are found when an image is resized; both smooth before they shrink."""

    BILINEAR = "Bilinear"
    BICUBIC = "Bicubic"


class Images(Model):
    """How images become numbers: resized, cut, divided by 255, less the mean, by the standard deviation."""

    rules = (
        Rule(
            cel="self.crop <= self.resize",
            holds=lambda images: images.crop <= images.resize,
            message="must not be larger than resize",
            field="crop",
        ),
        *(
            Rule(
                cel=f"!has(self.{name}) || self.{name}.size() == (self.mode == 'RGB' ? 3 : 1)",
                holds=lambda images, name=name: (  # type: ignore[misc]
                    getattr(images, name) is None or len(getattr(images, name)) == images.channels
                ),
                message="must hold one number a channel: three with mode RGB, one with Grayscale",
                field=name,
            )
            for name in ("mean", "std")
        ),
    )

    mode: ImageMode = Field(default=ImageMode.RGB, description="Channels: RGB (three) or Grayscale (one).")
    resize: int = Field(
        default=256, ge=1, le=4096, description="The image is scaled until its shorter side has this many pixels."
    )
    crop: int = Field(
        default=224, ge=1, le=4096, description="Then a square of this many pixels a side is cut from the middle."
    )
    interpolation: Interpolation = Field(
        default=Interpolation.BILINEAR, description="Bilinear (as torchvision) or Bicubic (as most of timm)."
    )
    mean: list[Annotated[Decimal, Within("at most 1", at_most=1)]] | None = Field(
        default=None,
        min_length=1,
        max_length=3,
        description="Subtracted from each channel, whose pixels are from 0 to 1. When unset, ImageNet's for RGB "
        "(0.485, 0.456, 0.406) and 0 for Grayscale.",
        json_schema_extra=list_of("atomic"),
    )
    std: list[Annotated[Decimal, Within("above 0", above=0)]] | None = Field(
        default=None,
        min_length=1,
        max_length=3,
        description="What each channel is divided by after. When unset, ImageNet's for RGB (0.229, 0.224, 0.225) and 1 "
        "for Grayscale.",
        json_schema_extra=list_of("atomic"),
    )

    @property
    def channels(self) -> int:
        """The number of channels."""
        return 3 if self.mode == ImageMode.RGB else 1
