"""Turns, scales and converts the frames of a video as its encoder needs them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mesh.kinds.video import VideoPayload, fit
from mesh.kinds.video_picture import LINES_REVERSED, SIDEWAYS, FieldOrder, Picture, Turn
from mesh.splitting.media import MediaFault

if TYPE_CHECKING:
    from av import VideoFrame

#: FFmpeg's filters for each turn.
_TURNS: dict[Turn, tuple[tuple[str, str], ...]] = {
    "none": (),
    "mirror": (("hflip", ""),),
    "flip": (("vflip", ""),),
    "rotate_180": (("hflip", ""), ("vflip", "")),
    "rotate_left": (("transpose", "cclock"),),
    "rotate_right": (("transpose", "clock"),),
    "transpose": (("transpose", "cclock_flip"),),
    "transverse": (("transpose", "clock_flip"),),
}
_SETFIELD: dict[FieldOrder, str] = {"progressive": "prog", "top_first": "tff", "bottom_first": "bff"}


def stamp_of(frame: VideoFrame) -> tuple[int, Fraction]:
    """(presentation time, its time base) of a frame that has both. Raises: MediaFault."""
    if frame.pts is None or frame.time_base is None:
        raise MediaFault("has frames without a time")
    return frame.pts, frame.time_base


def fields_after(picture: Picture) -> FieldOrder:
    """The order of the fields of the turned pictures: a turn sideways leaves no fields, a flip exchanges them."""
    if picture.turn in SIDEWAYS:
        return "progressive"
    if picture.turn in LINES_REVERSED and picture.interlaced:
        return "bottom_first" if picture.fields == "top_first" else "top_first"
    return picture.fields


@dataclass
class FrameFilter:
    """Turns, scales and converts frames; the first frame determines the filter graph."""

    payload: VideoPayload
    pixel_format: str
    picture: Picture = field(default_factory=Picture)
    rate: Fraction | None = None
    """Frames per second to produce by dropping and repeating frames; None: keep all."""
    threads: int = 1
    aspect: Fraction = Fraction(1)
    """Pixel aspect ratio (width over height) of the result, from the first frame on."""
    _graph: Any = None

    def put(self, frame: VideoFrame | None) -> list[VideoFrame]:
        """Filter a frame, or None at the end; returns the frames that are ready."""
        from av.error import BlockingIOError as NeedsInput
        from av.error import EOFError as Ended

        if self._graph is None:
            if frame is None:
                return []
            self._graph = self._build_graph(frame)
        if frame is not None and not frame.format.is_rgb:
            self._colour(frame)
        self._graph.vpush(frame)
        frames = []
        while True:
            try:
                frames.append(self._colour(self._graph.vpull()))
            except (NeedsInput, Ended):
                return frames

    def _colour(self, frame: VideoFrame) -> VideoFrame:
        """The frame with the colours of the whole video, which a part may lack."""
        frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = self.picture.colour
        return frame

    def _build_graph(self, frame: VideoFrame) -> Any:
        from av.filter import Graph

        graph = Graph()
        graph.threads = self.threads
        # Without the matrix and the range, the graph would drop them from the frames.
        _, base = stamp_of(frame)
        buffer = graph.add(
            "buffer",
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:"
            f"time_base={base.numerator}/{base.denominator}:colorspace={frame.colorspace:d}:"
            f"range={frame.color_range:d}",
        )
        steps = self._steps(frame)
        chain = [buffer, *(graph.add(name, arguments) for name, arguments in steps), graph.add("buffersink")]
        graph.link_nodes(*chain).configure()
        return graph

    def _steps(self, frame: VideoFrame) -> list[tuple[str, str]]:
        picture, sideways = self.picture, self.picture.turn in SIDEWAYS
        size = (frame.height, frame.width) if sideways else (frame.width, frame.height)
        width, height = fit(size, self.payload.box)
        upright = 1 / picture.pixel_aspect if sideways else picture.pixel_aspect
        self.aspect = (upright * size[0] * height / (size[1] * width)).limit_denominator(32_767)
        steps = list(_TURNS[picture.turn])
        if picture.interlaced and (fields_after(picture) != picture.fields or not frame.interlaced_frame):
            steps.append(("setfield", _SETFIELD[fields_after(picture)]))
        if self.rate is not None:
            steps.append(("fps", f"{self.rate.numerator}/{self.rate.denominator}"))
        # Each field is scaled by itself, or two moments would be mixed.
        fields = ":interl=1" if fields_after(picture) != "progressive" else ""
        matrix = ":out_color_matrix=bt709:out_range=tv" if frame.format.is_rgb else ""
        return [*steps, ("scale", f"{width}:{height}:flags=bicubic{fields}{matrix}"), ("format", self.pixel_format)]
