"""Decoding, operations and encoding behind `image_processing`."""
