"""Input, codecs and quality measurement behind the `video_encode_…` kinds."""
