"""From a dense model to a compressed one."""
