"""Content types and the extensions of files, from one table: the tables of machines differ.

Where a machine's table decides, a Matroska file is called .mkv here, .mpv there, and .bin in a bare container. Pure.
"""

from __future__ import annotations

OCTETS = "application/octet-stream"

#: content type -> extensions of its files; new files get the first one.
_TABLE = {
    "application/gzip": (".gz",),
    "application/json": (".json",),
    "application/msgpack": (".msgpack",),
    OCTETS: (".bin", ".safetensors", ".gguf"),
    "application/pdf": (".pdf",),
    "application/vnd.apache.parquet": (".parquet",),
    "application/x-ndjson": (".jsonl", ".ndjson"),
    "application/x-numpy": (".npy",),
    "application/x-numpy-archive": (".npz",),
    "application/x-queztl-checkpoint": (".checkpoint",),
    "application/xml": (".xml",),
    "application/zip": (".zip",),
    "application/zstd": (".zst",),
    "audio/aac": (".aac",),
    "audio/flac": (".flac",),
    "audio/mp4": (".m4a",),
    "audio/mpeg": (".mp3",),
    "audio/ogg": (".ogg", ".oga", ".opus"),
    "audio/wav": (".wav",),
    "audio/x-matroska": (".mka",),
    "image/avif": (".avif",),
    "image/bmp": (".bmp",),
    "image/gif": (".gif",),
    "image/heic": (".heic",),
    "image/heif": (".heif",),
    "image/jpeg": (".jpg", ".jpeg", ".jpe"),
    "image/jxl": (".jxl",),
    "image/png": (".png",),
    "image/svg+xml": (".svg",),
    "image/tiff": (".tiff", ".tif"),
    "image/webp": (".webp",),
    "text/csv": (".csv",),
    "text/html": (".html", ".htm"),
    "text/markdown": (".md",),
    "text/plain": (".txt", ".text", ".log"),
    "text/vtt": (".vtt",),
    "video/mp2t": (".ts", ".m2ts", ".mts"),
    "video/mp4": (".mp4", ".m4v"),
    "video/mpeg": (".mpg", ".mpeg"),
    "video/ogg": (".ogv",),
    "video/quicktime": (".mov",),
    "video/webm": (".webm",),
    "video/x-flv": (".flv",),
    "video/x-matroska": (".mkv",),
    "video/x-ms-wmv": (".wmv",),
    "video/x-msvideo": (".avi",),
    "video/x-nut": (".nut",),
}
#: Other names of the same types.
_SYNONYMS = {
    "application/vnd.msgpack": "application/msgpack",
    "application/x-gzip": "application/gzip",
    "application/x-msgpack": "application/msgpack",
    "application/x-zip-compressed": "application/zip",
    "audio/mp3": "audio/mpeg",
    "audio/x-flac": "audio/flac",
    "audio/x-wav": "audio/wav",
    "image/jpg": "image/jpeg",
    "image/x-ms-bmp": "image/bmp",
    "text/xml": "application/xml",
    "video/avi": "video/x-msvideo",
    "video/matroska": "video/x-matroska",
}
_TYPES = {extension: content_type for content_type, extensions in _TABLE.items() for extension in extensions}


def extension(content_type: str) -> str:
    """The extension of a new file of that type, ".bin" for an unknown one. "" is a plain value, written as JSON."""
    plain = content_type.partition(";")[0].strip().lower()
    if not plain:
        return ".json"
    return _TABLE.get(_SYNONYMS.get(plain, plain), (".bin",))[0]


def content_type(name: str) -> str:
    """The content type of a file by the extension of its name; application/octet-stream for an unknown one."""
    dot = name.rfind(".")
    return _TYPES.get(name[dot:].lower(), OCTETS) if dot >= 0 else OCTETS
