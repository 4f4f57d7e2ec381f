"""A paper that nobody wrote, with one claim: what the tests of papers and of their verdicts read."""

PAPER = """
title = "A paper"
cite = "Somewhere, 2014"
[experiments.net]
[experiments.net.sweep]
task = "chars36"
models = ["charnet"]
methods = ["tucker", "jaderberg", "channel_svd", "cp_nls"]
budgets = [{macs = 4}, {macs = 8}]
seeds = [0, 1]
recipe = "standard"
[experiments.net.measure]
runtimes = ["eager-nhwc", "onnxruntime"]
batches = [64]
processes = 5
seeds = [0]
[experiments.net.quick]
methods = ["tucker"]
[[claims]]
claim = "twice as fast"
paper = "2x"
where = "abstract"
models = {experiment = "net", method = "tucker"}
checks = [{metric = "speedup", at_least = 2.0}]
differs = "the machine"
"""
