"""The decoding, operations and encoding of `image_processing`."""
