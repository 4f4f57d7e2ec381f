"""A sweep with every kind of entry, as its file has it."""

SWEEP = """
[sweep]
task = "chars36"
models = ["charnet"]
methods = ["tucker", {name = "jaderberg", options = {order = "hv"}}]
budgets = [{macs = 4}, {params = 2, scope = "convs"}]
ranks = ["evbmf", {conv2 = 8}]
seeds = [0, 1]
recipe = "none"
[measure]
runtimes = ["eager", "eager-nhwc"]
threads = [1, "all"]
batches = [1, 64]
"""
