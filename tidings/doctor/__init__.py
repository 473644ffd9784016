"""Proofs that a webhook becomes a mail, part by part: for `tidings doctor`, and in short for `/health/ready`."""
