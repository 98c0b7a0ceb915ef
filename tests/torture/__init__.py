"""Proofs that take minutes or hours: `make torture`. The short ones of them run in `make test`."""
