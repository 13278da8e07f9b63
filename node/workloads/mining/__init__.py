"""SHA-256d kernels behind `crypto_mining`."""
