"""Data sets, and the networks trained on them."""
