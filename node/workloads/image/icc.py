"""Colour profiles (ICC): reads those that are a matrix and curves, and writes them from primaries and a curve.

LittleCMS converts the colours of 8-bit images with any profile. What it can't do through Pillow is done here: 16 bits a
sample, and colours that a file describes without a profile (PNG's gAMA, cHRM and cICP, AVIF's nclx).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: The white point of the connection space, D50.
_D50 = (0.9642, 1.0, 0.8249)
_MAX_TAGS = 200
#: Samples of a curve at which two profiles are compared, and the largest difference of equal ones.
_PROBES, _SAME = 65, 0.002
#: Entries of a curve that is written as a table.
TABLE = 4096

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue, CIE 1931"""
SRGB_PRIMARIES: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
#: The parameters g, a, b, c, d of sRGB's curve, as ICC's curve type 3 has them.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


@dataclass(frozen=True)
class Profile:
    """A colour profile: its bytes, its name for messages, and what can be read of it."""

    data: bytes
    name: str
    space: str
    """The colours it describes: "RGB ", "GRAY", "CMYK", …"""
    matrix: np.ndarray | None = None
    """3 x 3, linear RGB to XYZ (D50); None for gray, and for profiles that are tables of colours."""
    curves: tuple[bytes, ...] = ()
    """The curve to linear light of each channel, as ICC has it; empty for profiles that are tables of colours."""


def read_profile(data: bytes, name: str = "") -> Profile | None:
    """The profile in `data`; None if it is damaged."""
    import numpy as np

    tags = _tags(data)
    if tags is None:
        return None
    space = data[16:20].decode("latin-1")
    name = name or _description(tags.get(b"desc", b"")) or "a profile without a name"
    matrix, curves = None, ()
    if not any(tag in tags for tag in (b"A2B0", b"A2B1", b"D2B0", b"D2B1")):
        names = [b"rTRC", b"gTRC", b"bTRC"] if space == "RGB " else [b"kTRC"]
        columns = [_xyz(tags.get(tag, b"")) for tag in (b"rXYZ", b"gXYZ", b"bXYZ")]
        if all(_is_curve(tags.get(tag, b"")) for tag in names) and (space == "GRAY" or all(columns)):
            curves = tuple(tags[tag] for tag in names)
            matrix = np.array(columns).T if space == "RGB " else None
    return Profile(data, name[:80], space, matrix, curves)


def _tags(data: bytes) -> dict[bytes, bytes] | None:
    count = int.from_bytes(data[128:132], "big")
    if len(data) < 132 or data[36:40] != b"acsp" or not 0 < count <= _MAX_TAGS or 132 + 12 * count > len(data):
        return None
    tags: dict[bytes, bytes] = {}
    for at in range(132, 132 + 12 * count, 12):
        start, size = int.from_bytes(data[at + 4 : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big")
        if start + size > len(data):
            return None
        tags[data[at : at + 4]] = data[start : start + size]
    return tags


def _description(tag: bytes) -> str:
    if tag[:4] == b"desc":
        return tag[12 : 12 + int.from_bytes(tag[8:12], "big")].split(b"\0")[0].decode("latin-1").strip()
    if tag[:4] == b"mluc" and len(tag) >= 28:
        size, start = int.from_bytes(tag[20:24], "big"), int.from_bytes(tag[24:28], "big")
        return tag[start : start + size].decode("utf-16-be", "replace").strip("\0 ")
    return ""


def _fixed(data: bytes, at: int) -> float:
    return int.from_bytes(data[at : at + 4], "big", signed=True) / 65536


def _xyz(tag: bytes) -> tuple[float, float, float] | None:
    return (_fixed(tag, 8), _fixed(tag, 12), _fixed(tag, 16)) if tag[:4] == b"XYZ " and len(tag) >= 20 else None


#: Type of a parametric curve -> the number of its parameters.
_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}


def _is_curve(tag: bytes) -> bool:
    if tag[:4] == b"curv" and len(tag) >= 12:
        return 12 + 2 * int.from_bytes(tag[8:12], "big") <= len(tag)
    count = _PARAMETERS.get(int.from_bytes(tag[8:10], "big"))
    return tag[:4] == b"para" and count is not None and 12 + 4 * count <= len(tag)


def linear(curve: bytes, values: np.ndarray) -> np.ndarray:
    """Linear light, 0 to 1, of samples 0 to 1 by a curve of a profile."""
    import numpy as np

    if curve[:4] == b"curv":
        count = int.from_bytes(curve[8:12], "big")
        if count < 2:
            return values ** (int.from_bytes(curve[12:14], "big") / 256 if count else 1.0)
        table = np.frombuffer(curve, ">u2", count, 12) / 65535
        return np.interp(values, np.linspace(0, 1, count), table)
    kind = int.from_bytes(curve[8:10], "big")
    g, a, b, c, d, e, f = ([_fixed(curve, 12 + 4 * index) for index in range(_PARAMETERS[kind])] + [0.0] * 6)[:7]
    if kind == 0:
        return values**g
    if kind in (1, 2):
        # Type 1: (a x + b)^g from -b / a on, else 0; type 2 adds c to both.
        return np.where(values >= -b / a if a else values >= 0, np.maximum(a * values + b, 0) ** g, 0) + c
    return np.where(values >= d, np.maximum(a * values + b, 0) ** g + e, c * values + f).clip(0, 1)


def encoded(light: np.ndarray) -> np.ndarray:
    """The samples of sRGB, 0 to 1, of linear light, clipped to 0 to 1."""
    import numpy as np

    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def to_srgb_matrix(matrix: np.ndarray) -> np.ndarray:
    """3 x 3: linear RGB of a profile with `matrix` to linear sRGB."""
    import numpy as np

    return np.linalg.inv(_to_d50(SRGB_PRIMARIES)) @ matrix


def is_srgb(profile: Profile) -> bool:
    """Whether converting to sRGB would change nothing that 8 bits can show."""
    import numpy as np

    if not profile.curves:
        return False
    probes = np.linspace(0, 1, _PROBES)
    wanted = linear(parametric(*_SRGB_CURVE), probes)
    if any(np.abs(linear(curve, probes) - wanted).max() > _SAME for curve in profile.curves):
        return False
    return profile.matrix is None or bool(np.abs(profile.matrix - _to_d50(SRGB_PRIMARIES)).max() <= _SAME)


def _to_d50(primaries: Chromaticities) -> np.ndarray:
    """Linear RGB with these primaries to XYZ, adapted to D50 by Bradford's method."""
    import numpy as np

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1.0, (1 - x - y) / y])

    white = xyz(*primaries[:2])
    columns = np.stack([xyz(*primaries[at : at + 2]) for at in (2, 4, 6)], axis=1)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gains = (bradford @ np.array(_D50)) / (bradford @ white)
    adapted = np.linalg.inv(bradford) @ np.diag(gains) @ bradford
    return adapted @ columns @ np.diag(np.linalg.solve(columns, white))


def parametric(*parameters: float) -> bytes:
    """A curve: of one parameter, the exponent, or of five, as sRGB's."""
    kind = {1: 0, 5: 3}[len(parameters)]
    return b"para\0\0\0\0" + kind.to_bytes(2, "big") + b"\0\0" + b"".join(_s15(value) for value in parameters)


def srgb_curve() -> bytes:
    """sRGB's curve."""
    return parametric(*_SRGB_CURVE)


def table(values: np.ndarray) -> bytes:
    """A curve as a table of its values, 0 to 1, at equal distances."""
    samples = (values.clip(0, 1) * 65535).round().astype(">u2").tobytes()
    return b"curv\0\0\0\0" + len(values).to_bytes(4, "big") + samples


def write_profile(name: str, curve: bytes, primaries: Chromaticities | None) -> Profile:
    """A profile of version 4; `primaries` None: of gray."""
    text = name.encode("utf-16-be")
    label = b"mluc\0\0\0\0" + (1).to_bytes(4, "big") + (12).to_bytes(4, "big") + b"enUS"
    label += len(text).to_bytes(4, "big") + (28).to_bytes(4, "big") + text
    tags = {b"desc": label, b"cprt": label, b"wtpt": _xyz_tag(_D50)}
    if primaries is None:
        tags[b"kTRC"] = curve
    else:
        matrix = _to_d50(primaries)
        for index, channel in enumerate("rgb"):
            column = tuple(float(value) for value in matrix[:, index])
            tags |= {f"{channel}XYZ".encode(): _xyz_tag(column), f"{channel}TRC".encode(): curve}
    entries, bodies, at = b"", b"", 132 + 12 * len(tags)
    for tag, unpadded in tags.items():
        body = unpadded + bytes(-len(unpadded) % 4)
        entries += tag + at.to_bytes(4, "big") + len(body).to_bytes(4, "big")
        bodies, at = bodies + body, at + len(body)
    space = b"GRAY" if primaries is None else b"RGB "
    head = at.to_bytes(4, "big") + bytes(4) + b"\x04\x30\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    head += bytes(28) + b"".join(_s15(value) for value in _D50)
    data = head + bytes(128 - len(head)) + len(tags).to_bytes(4, "big") + entries + bodies
    profile = read_profile(data, name)
    assert profile is not None
    return profile


def _s15(value: float) -> bytes:
    return round(value * 65536).to_bytes(4, "big", signed=True)


def _xyz_tag(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_s15(value) for value in values)
