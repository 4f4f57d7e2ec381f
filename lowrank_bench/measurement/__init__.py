"""What is true about a model: how fast it is, what it costs in accuracy, and on which machine that was measured."""
