import threading

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from torch import nn

from lowrank_bench.errors import Diverged, InvalidInput, UnknownName
from lowrank_bench.recipe import WARM_UP, Recipe
from lowrank_bench.training import loop
from lowrank_bench.training.evaluate import predictions, top1
from lowrank_bench.training.loop import train
from lowrank_bench.training.recipes import RECIPES, get_recipe

CPU = torch.device("cpu")
TOY = Recipe(name="toy", epochs=5, images_per_epoch=256, batch_size=64, learning_rate=0.05)


def toy_batches(index):
    """Two classes, told apart by the sign of the mean; another order in each pass."""
    generator = torch.Generator().manual_seed(index)
    labels = torch.randint(2, (256,), generator=generator)
    images = torch.randn(256, 1, 4, 4, generator=generator) + (2.0 * labels - 1)[:, None, None, None]
    return list(zip(images.split(64), labels.split(64), strict=True))


def toy_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))


def channels_last_model():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(32, 2)).to(memory_format=torch.channels_last)


def test_training_learns_a_toy_problem():
    model = toy_model()
    history = train(model, toy_batches, TOY, device=CPU, validate=lambda m: top1(m, toy_batches(99), CPU))
    assert history.epochs[-1].loss < 0.3 * history.epochs[0].loss
    assert history.epochs[-1].top1 > 98
    assert len(history.epochs) == 5
    assert history.seconds > 0
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    def weights(seed):
        model = toy_model()
        train(model, toy_batches, TOY, seed=seed, device=CPU)
        return model[1].weight

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_outputs_beside_the_logits_in_training_mode_are_named():
    class Headed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = toy_model()

        def forward(self, x):
            return (self.net(x), self.net(x)) if self.training else self.net(x)

    with pytest.raises(InvalidInput, match="in training mode the model gives a tuple"):
        train(Headed(), toy_batches, TOY, device=CPU)


def test_training_leaves_the_callers_random_state_alone():
    model = toy_model()
    before = torch.get_rng_state()
    train(model, toy_batches, TOY, device=CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_passes_follow_each_other_until_the_steps_of_the_recipe_are_done():
    passes, steps = [], []

    def batches(index):
        passes.append(index)
        return toy_batches(index)

    recipe = TOY.model_copy(update={"epochs": 3, "images_per_epoch": 400})
    train(toy_model(), batches, recipe, device=CPU, progress=lambda done, total, loss: steps.append((done, total)))
    assert steps == [(done, 21) for done in range(1, 22)]
    assert passes == [0, 1, 2, 3, 4, 5]


def test_a_last_batch_of_one_image_does_not_end_a_training_with_batch_norm():
    def batches(index):
        images, labels = toy_batches(index)[0]
        return zip(images.split(21), labels.split(21), strict=True)  # 21, 21, 21, 1

    steps = []
    recipe = TOY.model_copy(update={"epochs": 1})
    train(toy_model(), batches, recipe, device=CPU, progress=lambda done, *_: steps.append(done))
    assert steps == [1, 2, 3, 4]
    alone = [(images[:1], labels[:1]) for images, labels in toy_batches(0)]
    with pytest.raises(InvalidInput, match="two with batch norm"):
        train(toy_model(), lambda _index: alone, TOY, device=CPU)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))  # without one it may well train on single images
    assert len(train(model, lambda _index: alone, recipe, device=CPU).epochs) == 1


def test_a_recipe_of_no_epochs_changes_no_weight():
    model = toy_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert train(model, toy_batches, get_recipe("none"), device=CPU).epochs == ()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not model.training


def test_a_loss_that_is_not_finite_stops_the_training():
    model = toy_model()
    nn.init.constant_(model[4].weight, float("nan"))
    with pytest.raises(Diverged, match=r"step 1 of recipe 'toy'"):
        train(model, toy_batches, TOY, device=CPU)


def test_no_data_is_an_error_and_not_an_endless_loop():
    with pytest.raises(InvalidInput, match="no batch"):
        train(toy_model(), lambda index: [], TOY, device=CPU)


def test_one_cycle_rises_and_falls_to_zero_and_cosine_only_falls():
    long = TOY.model_copy(update={"epochs": 100})
    cycle, cosine = (long.model_copy(update={"schedule": schedule}) for schedule in ("one-cycle", "cosine"))
    rates = [cycle.learning_rate_at(step) for step in range(400)]
    peak = rates.index(max(rates))
    assert peak == pytest.approx(400 * WARM_UP, abs=1)
    assert max(rates) == pytest.approx(TOY.learning_rate, rel=1e-2)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-4 * TOY.learning_rate
    falling = [cosine.learning_rate_at(step) for step in range(400)]
    assert falling == sorted(falling, reverse=True)


def test_recipes_are_frozen_and_refuse_unknown_fields():
    with pytest.raises(ValidationError):
        Recipe(name="x", epochs=1, images_per_epoch=1, learning_rate=0.1, momentum=0.9)
    with pytest.raises(ValidationError):
        TOY.epochs = 7
    with pytest.raises(UnknownName, match="did you mean 'short'"):
        get_recipe("shrot")
    assert all(recipe.name == name for name, recipe in RECIPES.items())


def test_predictions_are_the_largest_logit_and_leave_the_model_as_it_was():
    model = toy_model()
    model[3].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.cat([images for images, _ in toy_batches(0)])
    predicted = predictions(model, toy_batches(0), CPU)
    assert model.training
    assert not model[3].training
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    assert torch.equal(predicted, model.eval()(images).argmax(1))


def test_top1_is_the_percentage_of_right_predictions():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([0.0, 1.0]).expand(len(x), 2)

    batches = [(torch.zeros(3, 1), torch.tensor([1, 0, 1])), (torch.zeros(1, 1), torch.tensor([1]))]
    assert top1(Constant(), batches, CPU) == 75
    with pytest.raises(InvalidInput, match="no image"):
        top1(Constant(), [], CPU)


# -- distillation, early stop, resuming --------------------------------------------------------------------------------


def same_weights(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_distillation_alone_brings_a_network_to_its_teachers_outputs():
    teacher = toy_model().eval()
    before = [value.clone() for value in teacher.state_dict().values()]
    images = torch.cat([images for images, _ in toy_batches(7)])
    recipe = TOY.model_copy(update={"distillation": 1.0, "temperature": 2.0, "epochs": 10})
    student = toy_model()
    nn.init.normal_(student[4].weight)

    def wrong_labels(index):
        return [(images, 1 - labels) for images, labels in toy_batches(index)]  # of no weight

    def distance():
        with torch.inference_mode():
            return float((student.eval()(images).softmax(1) - teacher(images).softmax(1)).abs().mean())

    start = distance()
    teacher[1].train()  # however a user left it
    modes = [module.training for module in teacher.modules()]
    train(student, wrong_labels, recipe, device=CPU, teacher=teacher)
    assert [module.training for module in teacher.modules()] == modes
    teacher.eval()
    assert distance() < 0.3 * start
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.state_dict().values(), strict=True))


def test_a_teacher_is_not_heard_without_distillation_and_wanted_with_it():
    alone, taught = toy_model(), toy_model()
    train(alone, toy_batches, TOY, device=CPU)
    train(taught, toy_batches, TOY, device=CPU, teacher=toy_model().eval())
    assert same_weights(alone, taught)
    with pytest.raises(InvalidInput, match="learns from a trained network"):
        train(toy_model(), toy_batches, get_recipe("distilled"), device=CPU)


def test_with_patience_training_ends_and_the_best_epoch_counts():
    said, states = iter([50.0, 70.0, 60.0, 65.0, 90.0]), []

    def validate(model):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(said)

    model = toy_model()
    history = train(model, toy_batches, TOY.model_copy(update={"patience": 2}), device=CPU, validate=validate)
    assert [epoch.top1 for epoch in history.epochs] == [50, 70, 60, 65]
    assert all(torch.equal(value, states[1][name]) for name, value in model.state_dict().items())


def test_patience_without_validation_and_validation_without_patience_change_nothing():
    plain, patient, watched = toy_model(), toy_model(), toy_model()
    train(plain, toy_batches, TOY, device=CPU)
    train(patient, toy_batches, TOY.model_copy(update={"patience": 1}), device=CPU)
    train(watched, toy_batches, TOY, device=CPU, validate=lambda model: 0.0)
    assert same_weights(plain, patient) and same_weights(plain, watched)


def test_batches_are_drawn_where_the_network_trains_so_that_both_draw_the_same_numbers_every_time():
    threads = set()

    def batches(index):
        for batch in toy_batches(index):
            threads.add(threading.get_ident())
            yield batch

    with torch.no_grad():  # whatever the caller's state
        train(toy_model(), batches, TOY, device=CPU)
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("make", [toy_model, channels_last_model])
@pytest.mark.parametrize("patience", [0, 3])
@pytest.mark.parametrize("cut", [2, 9, 13, 19])
def test_a_resumed_training_ends_as_one_in_one_go(cut, patience, make, tmp_path):
    recipe = TOY.model_copy(update={"patience": patience})
    tops = {4: 60.0, 8: 80.0, 12: 70.0, 16: 71.0, 20: 72.0}

    def run(resume, stop=None):
        model, steps = make(), []

        def progress(step, total, loss):
            steps.append(step)
            if step == stop:
                raise KeyboardInterrupt

        try:
            validate = lambda model: tops[steps[-1]]  # noqa: E731
            history = train(model, toy_batches, recipe, device=CPU, validate=validate, progress=progress, resume=resume)
        except KeyboardInterrupt:
            return None, None, steps
        return model, [(epoch.loss, epoch.top1) for epoch in history.epochs], steps

    whole, epochs, _ = run(None)
    run(tmp_path / "x.resume", stop=cut)
    resumed, again, steps = run(tmp_path / "x.resume")
    assert steps[0] == cut - (cut - 1) % 4
    assert same_weights(whole, resumed) and again == epochs
    finished, _, steps = run(tmp_path / "x.resume")
    assert steps == [] and same_weights(whole, finished)
    with safe_open(tmp_path / "x.resume", framework="pt") as file:
        assert not any(name.startswith("optimizer/") for name in file.keys())  # noqa: SIM118  it is no dict


def test_the_state_of_another_training_or_a_damaged_file_is_not_gone_on_from(tmp_path):
    path, fresh = tmp_path / "x.resume", toy_model()
    train(toy_model(), toy_batches, TOY, seed=1, device=CPU, resume=path)
    train(fresh, toy_batches, TOY, device=CPU)
    for spoil in (lambda: None, lambda: path.write_bytes(path.read_bytes()[:-50])):
        spoil()
        model = toy_model()
        train(model, toy_batches, TOY, device=CPU, resume=path)
        assert same_weights(model, fresh)


# -- half precision, and a GPU -----------------------------------------------------------------------------------------

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))


class Seen(nn.Module):
    """Notes dtype and kind of device of what passes while it trains."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def forward(self, x):
        if self.training:
            self.seen.add((x.dtype, x.device.type))
        return x


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_in_half_precision_a_network_learns_from_a_teacher_and_goes_on_where_it_was_cut(device, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_fast_bfloat16", lambda device: True)
    recipe = TOY.model_copy(update={"distillation": 0.5})

    def run(resume, stop=None):
        teacher, seen = toy_model().eval(), Seen()
        model = toy_model().append(seen)

        def progress(step, *_):
            if step == stop:
                raise KeyboardInterrupt

        told = {"device": torch.device(device), "teacher": teacher, "progress": progress, "resume": resume}
        try:
            history = train(model, toy_batches, recipe, **told)
        except KeyboardInterrupt:
            history = None
        assert seen.seen == {(torch.bfloat16, device)}
        assert all(value.device == CPU for value in teacher.state_dict().values())
        return model, history

    whole, history = run(None)
    assert {(value.dtype, value.device) for value in whole.parameters()} == {(torch.float32, CPU)}
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert top1(whole, toy_batches(99), CPU) > 98
    run(tmp_path / "x.resume", stop=11)
    resumed, again = run(tmp_path / "x.resume")
    assert again.kept == 2
    state = resumed.state_dict()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(state[name], value)
