import pytest
import torch

from lowrank_bench.errors import DataMissing
from lowrank_bench.recipe import Recipe
from lowrank_bench.tasks.charnet import CharNet
from lowrank_bench.tasks.chars36 import ASSETS, Chars36
from lowrank_bench.tasks.checkpoint import checkpoint_facts, load_checkpoint, save_checkpoint
from lowrank_bench.training.evaluate import top1
from lowrank_bench.training.recipes import get_recipe


def test_macs_are_those_of_the_paper():
    macs = {}

    def note(name):
        def hook(conv, inputs, output):
            macs[name] = conv.weight.numel() * output.shape[2] * output.shape[3]

        return hook

    model = CharNet()
    for name, module in model.named_children():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note(name))
    assert model(torch.zeros(2, 1, 24, 24)).shape == (2, 36)
    assert macs == {"conv1": 1_990_656, "conv2": 31_850_496, "conv3": 2_097_152, "conv4": 18_432}


def test_shipped_weights_are_small_float16_and_say_how_they_were_made():
    path = ASSETS / "charnet.safetensors"
    assert path.stat().st_size <= 6_000_000
    facts = checkpoint_facts(path)
    assert Recipe.model_validate(facts["recipe"]) == get_recipe("charnet")
    assert facts["task_version"] == Chars36.version


def test_shipped_accuracy_is_that_of_the_paper_and_of_the_metadata():
    task = Chars36()
    measured = top1(task.load("charnet"), task.batches("test"), torch.device("cpu"))
    assert 90 <= measured <= 93
    assert measured == pytest.approx(checkpoint_facts(ASSETS / "charnet.safetensors")["top1"]["test"], abs=0.1)


def test_a_loaded_model_is_float32_and_in_eval_mode():
    model = Chars36().load("charnet")
    assert not model.training
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


def test_checkpoint_round_trip_keeps_weights_to_half_precision_and_facts(tmp_path):
    torch.manual_seed(0)
    model = CharNet()
    save_checkpoint(model, tmp_path / "new" / "x.safetensors", top1={"test": 91.25}, note="a")
    loaded = load_checkpoint(CharNet(), tmp_path / "new" / "x.safetensors")
    for value, again in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True):
        torch.testing.assert_close(again, value, rtol=2**-10, atol=1e-7)
    assert checkpoint_facts(tmp_path / "new" / "x.safetensors") == {"top1": {"test": 91.25}, "note": "a"}


def test_a_missing_checkpoint_says_how_to_make_it(tmp_path):
    with pytest.raises(DataMissing, match="lowrank-bench train charnet"):
        load_checkpoint(CharNet(), tmp_path / "charnet.safetensors", "run `lowrank-bench train charnet`")
