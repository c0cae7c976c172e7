"""Recipes as a layer of settings, and the levers that they use."""

import copy
import math

import pytest
import torch

from aae.losses import cross_entropy
from aae.networks import AdversarialAutoencoder
from aae.noise import with_noise
from job.config.recipes import RECIPES
from job.config.settings import FREE, Settings
from job.config.sources import read_configuration
from job.errors import SettingsError
from job.training.averaged_weights import EVERY_STEPS, AveragedWeights
from job.training.phases import Phases

CPU = torch.device("cpu")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_fills_in_what_nobody_has_set(recipe: str) -> None:
    """Its values are the defaults, marked as its own; all of them are settings that validate."""
    configuration = read_configuration(environment={"AAE_RECIPE": recipe})
    values = configuration.settings.model_dump()
    for name, value in RECIPES[recipe].items():
        assert values[name] == value
        assert configuration.sources[name] == "recipe"
    others = set(Settings.model_fields) - set(RECIPES[recipe]) - {"recipe"}
    assert {configuration.sources[name] for name in others} == {"default"}


def test_any_other_layer_wins_over_a_recipe() -> None:
    """A flag, a variable; and the recipe itself may come from any of them."""
    name, value = next((n, v) for n, v in RECIPES["tuned"].items() if n.endswith("_lr"))
    environment = {"AAE_RECIPE": "tuned", f"AAE_{name.upper()}": "0.3"}
    configuration = read_configuration(environment=environment)
    assert (getattr(configuration.settings, name), configuration.sources[name]) == (0.3, "environment")
    configuration = read_configuration({name: "0.4", "recipe": "tuned"}, environment={"AAE_RECIPE": "paper"})
    assert getattr(configuration.settings, name) == 0.4
    assert configuration.sources["recipe"] == "flag"
    assert value not in (0.3, 0.4)


def test_a_recipe_is_its_values_and_the_lecture_is_the_default() -> None:
    """The same values without the recipe's name make the same run; `lecture` changes nothing."""
    assert RECIPES["lecture"] == {}
    for recipe, values in RECIPES.items():
        settings = read_configuration(environment={"AAE_RECIPE": recipe}).settings
        assert settings.name == Settings(**values).name
        assert "recipe" in FREE
    assert len({Settings(**values).name for values in RECIPES.values()}) == len(RECIPES)


def test_an_unknown_recipe_is_told_with_those_that_there_are() -> None:
    """One message, with the value and what is allowed."""
    with pytest.raises(
        SettingsError, match=r"AAE_RECIPE=best \(environment\): input should be 'lecture', 'tuned' or 'paper'"
    ):
        read_configuration(environment={"AAE_RECIPE": "best"})


def test_the_total_makes_the_run_only_where_the_rates_fall() -> None:
    """Its length enters the name of a run with a schedule, and no other's."""
    assert Settings(max_steps=7).name == Settings().name
    assert Settings(lr_schedule="cosine", max_steps=7).name != Settings(lr_schedule="cosine").name
    assert {"epochs", "max_steps"} <= set(Settings(lr_schedule="cosine").fixed)


def test_the_rates_set_are_those_that_move_the_weights() -> None:
    """At a factor of 0 nothing moves; at 0.5 Adam's first step is half as long."""
    torch.manual_seed(0)
    model = AdversarialAutoencoder(2, 16, autoencoder_dropout=0.0, discriminator_dropout=0.0)
    images = torch.rand(20, 784)

    def moved(factor: float) -> float:
        ours = copy.deepcopy(model)
        phases = Phases(ours, Settings(), CPU)
        phases.set_rates(factor)
        phases.step(images)
        return float((ours.decoder.output.weight - model.decoder.output.weight).detach().abs().max())

    assert moved(0) == 0
    assert moved(0.5) == pytest.approx(moved(1) / 2, rel=1e-4)


def test_a_large_epsilon_lets_the_encoder_rest_where_there_is_little_to_learn() -> None:
    """Adam's first step is as long as the rate whatever the gradient; with an epsilon far above it, far shorter."""

    def moved(eps: float) -> float:
        torch.manual_seed(0)
        model = AdversarialAutoencoder(2, 16)
        before = model.encoder.hidden1.weight.detach().clone()
        Phases(model, Settings(generator_eps=eps, encoder_lr=1e-30), CPU).step(torch.rand(20, 784))
        return float((model.encoder.hidden1.weight.detach() - before).abs().max())

    assert moved(1e-8) == pytest.approx(5e-5, rel=0.01)
    assert moved(1.0) < 1e-6


def test_noise_on_the_codes_is_a_share_of_their_own_spread() -> None:
    """Codes k times as wide have k times the noise; its std is the share of the root of their mean variance."""
    codes = torch.randn(20_000, 2, dtype=torch.float64) * torch.tensor([1.0, 7.0]) + 3  # mean variance 25
    torch.manual_seed(1)
    noise = with_noise(codes, 0.2)[0] - codes
    assert noise.std(0).tolist() == pytest.approx([1.0, 1.0], rel=0.03)
    torch.manual_seed(1)
    torch.testing.assert_close(with_noise(4 * codes, 0.2)[0] - 4 * codes, 4 * noise)
    codes.requires_grad_()
    noisy, through = with_noise(codes, 0.2)
    g = torch.randn_like(codes)
    (gradient,) = torch.autograd.grad(noisy, codes, g)
    torch.testing.assert_close((gradient * codes).sum(), (g * noisy).sum())  # Euler's, for a map with f(k z) = k f(z)
    torch.testing.assert_close(through(g), gradient)
    noisy, through = with_noise(torch.ones(10, 2), 0.2)  # codes that are all the same
    assert torch.equal(through(torch.ones(10, 2)), torch.ones(10, 2))
    assert torch.isfinite(noisy).all()


def test_a_step_with_noise_equals_autograds() -> None:
    """Reconstruction alone, without dropout: weights agree with those of autograd through the noise and its scale."""
    still = {"generator_lr": 1e-30, "discriminator_lr": 1e-30}
    torch.manual_seed(0)
    ours = AdversarialAutoencoder(2, 32, autoencoder_dropout=0.0, discriminator_dropout=0.0).double()
    theirs = copy.deepcopy(ours)
    phases = Phases(ours, Settings(code_noise=0.5, **still), CPU)
    parameters = [*theirs.encoder.parameters(), *theirs.decoder.parameters()]
    adam = torch.optim.Adam(parameters, lr=1e-4)
    for step in range(20):
        images = torch.rand(30, 784, dtype=torch.float64)
        torch.manual_seed(step)
        found = phases.step(images)[0]
        torch.manual_seed(step)
        loss = cross_entropy(theirs.decoder(with_noise(theirs.encoder(images), 0.5)[0]), images)[0].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        torch.testing.assert_close(found, loss.detach())
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11), f"{name} differs by {(a - b).abs().max()}"


def test_r1_makes_the_discriminator_flatter_at_the_prior() -> None:
    """Trained on codes far from the prior, it has a smaller slope with the penalty than without."""

    def slope(weight: float) -> float:
        torch.manual_seed(0)
        model = AdversarialAutoencoder(2, 32)
        phases = Phases(model, Settings(r1_penalty=weight, discriminator_lr=1e-2, generator_lr=1e-9), CPU)
        for _ in range(50):
            phases.step(torch.rand(50, 784))
        prior = torch.randn(200, 2, requires_grad=True)
        (found,) = torch.autograd.grad(model.discriminator.eval()(prior).sum(), prior)
        return float(found.square().sum(1).mean())

    assert slope(1.0) < 0.3 * slope(0.0)


def test_averages_follow_as_the_formula_says() -> None:
    """Every tenth step the past keeps decay^10, at first less; without a decay the model is the trained one."""
    torch.manual_seed(0)
    model = AdversarialAutoencoder(2, 8)
    assert AveragedWeights(model, 0.0).model is model
    assert AveragedWeights(model, 0.0).state_dict() == {}
    average = AveragedWeights(model, 0.99)
    expected = model.encoder.hidden1.weight.detach().clone()
    for step in range(1, 201):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.01 * math.sin(step))
        average.follow(step)
        if step % EVERY_STEPS == 0:
            number = step // EVERY_STEPS
            kept = min(0.99**EVERY_STEPS, (1 + number) / (10 + number))
            expected = kept * expected + (1 - kept) * model.encoder.hidden1.weight.detach()
    torch.testing.assert_close(average.model.encoder.hidden1.weight.detach(), expected)
    assert average.model.discriminator is model.discriminator
    other = AveragedWeights(AdversarialAutoencoder(2, 8), 0.99)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.model.decoder.output.bias, average.model.decoder.output.bias)
