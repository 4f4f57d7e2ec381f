"""Tensor algebra on plain tensors; knows nothing of networks."""
