"""Images in, images out: a list of operations on one image or a batch; JPEG, PNG, WebP, AVIF, TIFF and BMP."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from mesh.kinds.base import Data, KindSpec, Need, Payload, Resources
from mesh.kinds.image_operations import Blur, Edges, Grayscale, Operation, Resize, Side, Step

MAX_IMAGES = 1000

#: Names that are files in any folder of any system: the result of a batch holds files of these names.
_FILE_NAME = re.compile(r"[^\x00-\x1f<>:\"/\\|?*\x7f.][^\x00-\x1f<>:\"/\\|?*\x7f]{0,179}")


def _format(value: Any) -> Any:
    if isinstance(value, str):
        value = value.lower()
        return {"jpg": "jpeg", "tif": "tiff"}.get(value, value)
    return value


Format = Literal["jpeg", "png", "webp", "avif", "tiff", "bmp"]
_List = Annotated[tuple[Data, ...], Field(max_length=MAX_IMAGES), Tag("list")]
_Names = Annotated[dict[str, Data], Field(max_length=MAX_IMAGES), Tag("names")]
Images = Annotated[_List | _Names, Discriminator(lambda value: "names" if isinstance(value, dict) else "list")]


class ImageProcessingPayload(Payload):
    """What `image_processing` takes. Short forms (width, height, blur, …) run before `operations`."""

    image: Data | None = Field(default=None, description="the file: base64, or a blob")
    images: Images | None = Field(
        default=None,
        validate_default=True,
        description="instead, a batch: a list of files, or name -> file; the result is a ZIP of images and report.json",
    )
    width: Side | None = Field(default=None, description="short for a resize")
    height: Side | None = Field(default=None, description="short for a resize")
    keep_aspect: bool = Field(default=True, description="of that resize")
    blur: int | None = Field(default=None, ge=1, le=250, description="short for a blur of that radius, pixels")
    grayscale: bool = Field(default=False, description="short for grayscale")
    edges: bool = Field(default=False, description="short for edges")
    operations: tuple[Operation, ...] = Field(
        default=(), max_length=50, description='what to do, in order: {"op": "resize", "width": 320}, …'
    )
    format: Annotated[Format, BeforeValidator(_format)] | None = Field(
        default=None, description="of the result; the same as the input's when left out"
    )
    quality: int = Field(default=90, ge=1, le=100, description="of a JPEG, WebP or AVIF result")

    @field_validator("images")
    @classmethod
    def _one_of_two(cls, value: Any, info: ValidationInfo) -> Any:
        image = info.data.get("image", 0)
        if value is None and image is None:
            raise ValueError("must be given when image is not")
        if value is not None and image:
            raise ValueError("can't be given together with image")
        if value is not None and not value:
            raise ValueError("must have at least 1 image")
        if isinstance(value, dict) and not all(_FILE_NAME.fullmatch(name) for name in value):
            raise ValueError("must have names that are file names: no folders, no dot first, at most 180 characters")
        return value

    @property
    def batch(self) -> tuple[tuple[str, str, Any], ...]:
        """Of each of `images`: (its field, its name, its data). A list's are named by their place, from 1."""
        if self.images is None:
            return ()
        if isinstance(self.images, dict):
            return tuple((f"images.{name}", name, data) for name, data in self.images.items())
        width = len(str(len(self.images)))
        return tuple((f"images.{place}", f"{place + 1:0{width}}", data) for place, data in enumerate(self.images))

    @property
    def steps(self) -> tuple[tuple[str, Step], ...]:
        """All operations in order, the short forms first, each after the prefix of its fields' names."""
        short: list[Step] = []
        if self.width is not None or self.height is not None:
            short.append(Resize(op="resize", width=self.width, height=self.height, keep_aspect=self.keep_aspect))
        if self.blur is not None:
            short.append(Blur(op="blur", radius=self.blur))
        if self.grayscale:
            short.append(Grayscale(op="grayscale"))
        if self.edges:
            short.append(Edges(op="edges"))
        listed = [(f"operations.{index}.", step) for index, step in enumerate(self.operations)]
        return (*(("", step) for step in short), *listed)


#: Four by four pixels.
_SMALL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAIklEQVQIHWPkYmXghwFGN0cbfhhgbKqt4IcBxn07t/DDAACOqgaVVvRhWAAAAABJ"
    "RU5ErkJggg=="
)

SPEC = KindSpec(
    name="image_processing",
    summary="Resize, crop, rotate, filter, recolour, watermark and convert images, one or a batch.",
    payload=ImageProcessingPayload,
    resources=Resources(cores=1, memory_mb=2048),
    needs=(Need("cv2", "vision"), Need("numpy", "vision")),
    timeout_s=600.0,
    example={"image": _SMALL, "width": 8, "format": "png"},
    probe={"image": _SMALL, "width": 3000, "height": 3000, "blur": 5, "format": "jpeg"},
)
