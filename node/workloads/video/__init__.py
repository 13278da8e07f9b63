"""The input, encoders and quality measurement of the kinds `video_encode_…`."""
