"""Finds which colours an image file has, and converts its pixels to sRGB.

A profile in the file (ICC) goes before numbers (AVIF's nclx); in PNG, cICP goes before a profile, and gAMA with cHRM
after it, as the standard orders them. Without any of them an image is sRGB.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from node.workloads.image import containers, icc, iso_media
from node.workloads.image.icc import SRGB_PRIMARIES, Chromaticities, Profile
from node.workloads.image.pixels import channels, white

if TYPE_CHECKING:
    import numpy as np
    from PIL import ImageCms
    from PIL.Image import Image as Picture

    from node.workloads.image.pixels import Image

_D65 = (0.3127, 0.3290)
#: Primaries by their number in ITU-T H.273 -> name, chromaticities. 1 (sRGB's) and 2 (unspecified) are not listed.
_PRIMARIES: dict[int, tuple[str, Chromaticities]] = {
    4: ("BT.470 M", (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: ("BT.601 625", (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: ("BT.601 525", (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    7: ("SMPTE 240M", (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    9: ("BT.2020", (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    11: ("DCI-P3", (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
    12: ("Display P3", (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
    22: ("EBU 3213", (*_D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077)),
}
#: Transfer functions by their number -> exponent. Those of video (1, 6, 14, 15) are shown as sRGB's, as browsers do.
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_PQ, _HLG = 16, 18
#: The brightness of white in graphics beside HDR video, cd/m² (ITU-R BT.2408). What is brighter becomes white.
_WHITE_NITS = 203.0
_HLG_PEAK_NITS = 1000.0
_ADOBE_RGB: Chromaticities = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_ADOBE_GAMMA = 563 / 256
#: PNG's gAMA of sRGB, and how far others may be from it to count as the same.
_SRGB_GAMMA, _NEAR = 0.45455, 0.001
#: Rows that are converted at a time.
_STRIP_ROWS = 256


def find_profile(name: str, data: bytes, info: Mapping[Any, Any], exif: Any, is_gray: bool) -> Profile | None:
    """The profile of an image file of the format `name`, or None for sRGB. `info` and `exif`: as Pillow read them.

    A damaged profile is the same as none.
    """
    chunks = (containers.png_chunks(data) or {}) if name == "png" else {}
    cicp = chunks.get(b"cICP", b"")
    if len(cicp) >= 2:
        return _of_codes(cicp[0], cicp[1], is_gray)
    embedded = containers.bmp_profile(data) if name == "bmp" else info.get("icc_profile")
    if embedded:
        profile = icc.read_profile(embedded)
        return None if profile is None or icc.is_srgb(profile) else profile
    if name == "png":
        return None if b"sRGB" in chunks else _of_gamma(chunks, is_gray)
    if name in ("avif", "heic") and (codes := iso_media.colour_codes(data)):
        return _of_codes(*codes, is_gray)
    if name == "jpeg" and not is_gray and _is_adobe_rgb(exif):
        return icc.write_profile("Adobe RGB (1998)", icc.parametric(_ADOBE_GAMMA), _ADOBE_RGB)
    return None


def _of_codes(primaries: int, transfer: int, is_gray: bool) -> Profile | None:
    """The profile of numbers of H.273; None for sRGB. Unspecified and unknown numbers are taken for sRGB's."""
    import numpy as np

    label, xy = _PRIMARIES.get(primaries, ("", SRGB_PRIMARIES))
    if transfer in (_PQ, _HLG):
        samples = np.linspace(0, 1, icc.TABLE)
        curve, name = icc.table(_pq(samples) if transfer == _PQ else _hlg(samples)), "PQ" if transfer == _PQ else "HLG"
    elif transfer in _GAMMAS:
        curve, name = icc.parametric(_GAMMAS[transfer]), f"gamma {_GAMMAS[transfer]:g}"
    else:
        curve, name = icc.srgb_curve(), ""
    profile = icc.write_profile(f"{label} {name}".strip() or "sRGB", curve, None if is_gray else xy)
    return None if icc.is_srgb(profile) else profile


def _pq(samples: np.ndarray) -> np.ndarray:
    """Linear light of SMPTE ST 2084, 1 being white."""
    import numpy as np

    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = samples ** (1 / m2)
    return (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * 10_000 / _WHITE_NITS


def _hlg(samples: np.ndarray) -> np.ndarray:
    """Linear light of HLG on a display of 1000 cd/m², gray taken for all colours, 1 being white."""
    import numpy as np

    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(samples <= 0.5, samples**2 / 3, (np.exp((samples - c) / a) + b) / 12)
    return scene**1.2 * _HLG_PEAK_NITS / _WHITE_NITS


def _of_gamma(chunks: Mapping[bytes, bytes], is_gray: bool) -> Profile | None:
    """The profile of PNG's gAMA and cHRM; None where they say sRGB, or nothing."""
    gamma = int.from_bytes(chunks.get(b"gAMA", b"")[:4], "big") / 100_000
    if not 0.05 <= gamma <= 20:
        return None
    xy, body = SRGB_PRIMARIES, chunks.get(b"cHRM", b"")
    if len(body) >= 32 and not is_gray:
        read = [int.from_bytes(body[at : at + 4], "big") / 100_000 for at in range(0, 32, 4)]
        xy = (read[0], read[1], read[2], read[3], read[4], read[5], read[6], read[7])
        if any(not 0.01 <= y <= 1 for y in xy[1::2]) or any(not 0 <= x <= 1 for x in xy[::2]):
            return None
    is_srgb_gamma = abs(gamma - _SRGB_GAMMA) <= _NEAR
    if is_srgb_gamma and max(abs(a - b) for a, b in zip(xy, SRGB_PRIMARIES, strict=True)) <= _NEAR:
        return None
    curve = icc.srgb_curve() if is_srgb_gamma else icc.parametric(1 / gamma)
    return icc.write_profile(f"gamma {1 / gamma:.3g}", curve, None if is_gray else xy)


def _is_adobe_rgb(exif: Any) -> bool:
    """Whether a camera's file says Adobe RGB: by the interoperability index R03, as DCF does, or as colour space 2."""
    try:
        if exif.get_ifd(0x8769).get(0xA001) == 2:
            return True
        return str(exif.get_ifd(0xA005).get(1, "")).startswith("R03")
    except (KeyError, ValueError, TypeError, SyntaxError, OSError, struct.error):
        return False


@lru_cache(maxsize=8)
def _transform(data: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """LittleCMS's transform from a profile to sRGB for 8-bit pixels of that mode; None if the profile does not fit."""
    from PIL import ImageCms

    try:
        source: Any = ImageCms.createProfile("LAB") if mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(data))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def picture_to_rgb(picture: Picture, profile: Profile | None) -> tuple[Picture, bool]:
    """(a picture of ink or of Lab colours in sRGB, whether a profile was used); without one, by the plain formula."""
    from PIL import ImageCms

    data = profile.data if profile is not None else b""
    transform = _transform(data, picture.mode) if data or picture.mode == "LAB" else None
    if transform is None:
        return picture.convert("RGB"), False
    done = ImageCms.applyTransform(picture, transform)
    assert done is not None
    return done, True


def can_keep(image: Image, profile: Profile, gray_too: bool) -> bool:
    """Whether a result with this profile shows the colours of `image`: HDR and ink become sRGB in any case.

    `gray_too`: whether the result can have a profile of gray.
    """
    if channels(image) == 1:
        return gray_too and profile.space == "GRAY"
    return profile.space == "RGB " and not profile.name.endswith(("PQ", "HLG"))


def in_space(image: Image, space: str) -> Image:
    """The image with the channels that a profile of `space` describes: gray as BGR under a profile of RGB."""
    import cv2

    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if channels(image) == 1 and space == "RGB " else image


def to_srgb(image: Image, profile: Profile) -> Image | None:
    """The pixels in sRGB; gray stays gray, alpha is unchanged. None: the profile does not fit this image."""
    if profile.space == "GRAY" or (channels(image) == 1 and profile.space == "RGB "):
        return _by_curve(image, profile)
    if profile.space != "RGB ":
        return None
    return _by_littlecms(image, profile) if image.dtype.itemsize == 1 else _deep_to_srgb(image, profile)


def _by_curve(image: Image, profile: Profile) -> Image | None:
    """Gray, for which a profile is a curve: in one of RGB, the curves of the three channels are nearly always equal."""
    import numpy as np

    if not profile.curves:
        return None
    top = white(image)
    samples = icc.encoded(icc.linear(profile.curves[-1], np.arange(top + 1) / top))
    levels = np.rint(samples * top).astype(image.dtype)
    if channels(image) == 1:
        return levels[image]
    image[:, :, :3] = levels[image[:, :, :3]]
    return image


def _by_littlecms(image: Image, profile: Profile) -> Image | None:
    import cv2
    import numpy as np
    from PIL import Image as Pictures
    from PIL import ImageCms

    transform = _transform(profile.data, "RGB")
    if transform is None:
        return None
    for start in range(0, image.shape[0], _STRIP_ROWS):
        strip = image[start : start + _STRIP_ROWS]
        colours = np.ascontiguousarray(strip[:, :, 2::-1])
        done = ImageCms.applyTransform(Pictures.fromarray(colours), transform, inPlace=False)
        strip[:, :, :3] = cv2.cvtColor(np.asarray(done), cv2.COLOR_RGB2BGR)
    return image


def _deep_to_srgb(image: Image, profile: Profile) -> Image | None:
    """16 bits a sample. A profile that is a table of colours is applied to the upper eight bits."""
    import numpy as np

    top = white(image)
    if profile.matrix is None or not profile.curves:
        done = _by_littlecms((image >> 8).astype(np.uint8), profile)
        if done is not None:
            image[:, :, :3] = done[:, :, :3].astype(np.uint16) * 257
        return None if done is None else image
    samples = np.arange(top + 1) / top
    tables = [icc.linear(curve, samples).astype(np.float32) for curve in profile.curves]
    matrix = icc.to_srgb_matrix(profile.matrix).astype(np.float32)
    for start in range(0, image.shape[0], _STRIP_ROWS):
        strip = image[start : start + _STRIP_ROWS]
        light = np.stack([tables[index][strip[:, :, 2 - index]] for index in range(3)], axis=2) @ matrix.T
        strip[:, :, 2::-1] = np.rint(icc.encoded(light) * top).astype(image.dtype)
    return image
