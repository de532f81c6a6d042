"""Images as arrays, and folders of them: one folder a class, as torchvision's ImageFolder."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.images import ImageMode, Images, Interpolation
from plimsoll_api.model import canonical_json, digest_of
from plimsoll_job.errors import UserError
from plimsoll_job.load.columns import Columns
from plimsoll_job.load.inputs import SINGLE_INPUT
from plimsoll_job.load.store import Store

ENDINGS = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
#: The columns of a folder beside the images themselves.
LABELS, FILE = "labels", "file"
#: What images are normalized by when the settings do not say: ImageNet's statistics, or nothing.
NORMALIZATION = {
    ImageMode.RGB: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ImageMode.GRAYSCALE: ((0.0,), (1.0,)),
}


def read_image_folder(uri: str, settings: Images, store: Store, spec_field: str, wanted: Sequence[str]) -> Columns:
    """Return the columns inputs [n, channels, crop, crop], labels (names of folders) and file; by path, sorted.

    The digest is that of the sorted relative paths and the digests of their files.
    """
    files = _files_of(store.locate(uri, f"{spec_field}.uri"), uri, spec_field)
    images, digests = [], {}
    for file in files:
        content = store.read(f"{uri}/{file}", f"{spec_field}.uri")
        digests[file] = digest_of(content)
        if SINGLE_INPUT in wanted:
            images.append(decode_image(content, settings, f"{spec_field}.uri: {uri}/{file}"))
    arrays: dict[str, NDArray[Any]] = {
        LABELS: np.array([file.partition("/")[0] for file in files]),
        FILE: np.array(files),
    }
    if images:
        arrays[SINGLE_INPUT] = np.stack(images)
    classes = tuple(sorted(set(arrays[LABELS].tolist())))
    return Columns(arrays, digest_of(canonical_json(digests)), classes, (SINGLE_INPUT, LABELS, FILE))


def decode_image(content: bytes, settings: Images, what: str) -> NDArray[np.float32]:
    """Return a PNG or JPEG as an array [channels, crop, crop]; UserError, which says what it is, for anything else."""
    # Pillow costs a twentieth of a second to import, and most jobs read npz.
    from PIL import Image  # noqa: PLC0415

    try:
        # Pillow forgives a PNG whose end is missing or damaged, unless it is asked to verify it.
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            file.verify()
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            if file.mode[0] in "IF":
                raise UserError(f"{what} has pixels of {file.mode}, expected 8 bits a channel")
            image = file.convert("RGB" if settings.mode == ImageMode.RGB else "L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{what} is not a whole PNG or JPEG image: {error}") from error
    width, height = (settings.resize * side // min(image.size) for side in image.size)
    if (width, height) != image.size:
        bicubic = settings.interpolation == Interpolation.BICUBIC
        image = image.resize((width, height), Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR)
    left, top = round((width - settings.crop) / 2), round((height - settings.crop) / 2)
    image = image.crop((left, top, left + settings.crop, top + settings.crop))
    pixels = np.asarray(image, dtype=np.float32).reshape(settings.crop, settings.crop, -1).transpose(2, 0, 1) / 255
    mean, std = (
        np.array(usual if given is None else [number.value for number in given], dtype=np.float32)
        for given, usual in zip((settings.mean, settings.std), NORMALIZATION[settings.mode], strict=True)
    )
    return np.ascontiguousarray((pixels - mean[:, None, None]) / std[:, None, None], dtype=np.float32)


def _files_of(folder: Path, uri: str, spec_field: str) -> list[str]:
    """Return the relative paths of all images, sorted; UserError for what is neither an image nor hidden."""
    found, classes = [], set()
    for directory, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        inside = Path(directory).relative_to(folder)
        for name in (name for name in names if not name.startswith(".")):
            path = (inside / name).as_posix()
            if inside == Path() or not name.lower().endswith(ENDINGS):
                raise UserError(
                    f"{spec_field}.uri: {uri} holds {path}; expected one folder a class, with PNG or JPEG images"
                )
            found.append(path)
        if inside == Path():
            classes = set(below)
    empty = classes - {path.partition("/")[0] for path in found}
    if empty or not found:
        where = ", ".join(sorted(empty)) or uri
        raise UserError(f"{spec_field}.uri: there is no PNG or JPEG image in {where}")
    return sorted(found)
