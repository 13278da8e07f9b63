"""The double SHA-256 kernels of `crypto_mining`."""
