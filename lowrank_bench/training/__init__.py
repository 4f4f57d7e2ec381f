"""Training: baselines from scratch, and the fine-tuning of compressed networks."""
