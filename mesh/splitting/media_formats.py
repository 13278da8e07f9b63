"""What the containers and encoders of a result hold: codecs, layouts, subtitles, covers, tags and timecodes."""

from __future__ import annotations

import re
from fractions import Fraction

#: The software encoders of the results.
SOFTWARE = frozenset(("libx264", "libx265", "libsvtav1"))
#: The audio codecs to copy into each container: those that players support in an mp4, and that Matroska defines.
HELD: dict[str, frozenset[str]] = {
    "mp4": frozenset(("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")),
    "mkv": frozenset((
        "aac", "mp3", "mp2", "ac3", "eac3", "dts", "truehd", "alac", "opus", "vorbis", "flac", "pcm_s16le",
        "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8",
    )),
}  # fmt: skip
#: The uncompressed codec for one that a container doesn't have, without loss.
RAW: dict[str, dict[str, str]] = {
    "mp4": {},
    "mkv": {
        "pcm_s16be": "pcm_s16le", "pcm_s24be": "pcm_s24le", "pcm_s32be": "pcm_s32le", "pcm_s8": "pcm_s16le",
        "pcm_alaw": "pcm_s16le", "pcm_mulaw": "pcm_s16le",
    },
}  # fmt: skip
#: What FFmpeg's AAC encoder writes and its decoder recognises, by the number of channels.
AAC_LAYOUTS: dict[int, tuple[str, ...]] = {
    1: ("mono",), 2: ("stereo",), 3: ("3.0", "2.1", "3.0(back)"), 4: ("4.0", "quad"), 5: ("5.0",), 6: ("5.1",),
    8: ("7.1",),
}  # fmt: skip
#: Layouts that need room for a channel that the usual layout of as many channels doesn't have.
_LARGER = {"3.1": "5.1", "4.1": "5.1", "quad(side)": "quad"}
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)

TEXT_SUBTITLES = frozenset(("subrip", "ass", "webvtt", "mov_text", "text"))
BITMAP_SUBTITLES = frozenset(("hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"))
COPIED_TEXT = {"mp4": frozenset(("mov_text",)), "mkv": frozenset(("subrip", "ass", "webvtt"))}
ENCODED_TEXT = {"mp4": "mov_text", "mkv": "subrip"}
COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}

#: The dispositions of tracks that FFmpeg writes.
DISPOSITIONS: dict[str, frozenset[str]] = {
    "mp4": frozenset((
        "default", "dub", "comment", "forced", "hearing_impaired", "visual_impaired", "captions", "descriptions",
    )),
    "mkv": frozenset(("default", "dub", "original", "comment", "forced", "hearing_impaired", "visual_impaired")),
}  # fmt: skip
#: The tags that FFmpeg writes into an mp4.
MP4_TAGS = frozenset((
    "title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright", "grouping",
    "lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords", "episode_sort",
    "season_number", "media_type", "hd_video", "track", "disc", "compilation", "gapless_playback",
))  # fmt: skip
_TIMECODE = re.compile(r"[0-2]\d:[0-5]\d:[0-5]\d([:;.])(\d\d)")


def aac_layout(layout: str, channels: int) -> str:
    """The layout of AAC for a source's: the same, else the usual one of as many channels, or the next larger one."""
    if layout in AAC_LAYOUTS.get(channels, ()):
        return layout
    if layout in _LARGER:
        return _LARGER[layout]
    return next((names[0] for count, names in AAC_LAYOUTS.items() if count >= channels), "7.1")


def timecode_fits(timecode: str, rate: Fraction) -> bool:
    """Whether a file of this frame rate can have the timecode: one that skips numbers needs about 30 or 60 a second."""
    match = _TIMECODE.fullmatch(timecode)
    nominal = round(rate)
    return bool(match) and int(match[2]) < nominal and (match[1] == ":" or nominal in (30, 60))
