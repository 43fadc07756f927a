"""The discriminator of recordings: what it sees, and that padding teaches it nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vqkit.config import TrainConfig, load
from vqkit.errors import VqkitError
from vqkit.model.autoencoder import Output
from vqkit.settings import Config
from vqkit.shapes import Shape
from vqkit.signals.audio.config import StftAdversary
from vqkit.signals.audio.discriminator import POWER, SCALE, StftDiscriminator
from vqkit.signals.audio.signal import AUDIO
from vqkit.signals.image.signal import IMAGE
from vqkit.training.adversary import Adversary, Pair
from vqkit.training.engine import Engine
from vqkit.training.tasks.autoencoder import without_padding

RATE = 8000
# Windows of 64 and 128 samples.
WINDOWS = (0.008, 0.016)
LENGTH = 1024


def built(length: int = LENGTH, channels: int = 1, **settings) -> StftDiscriminator:
    torch.manual_seed(0)
    settings = {"windows": WINDOWS, "width": 4, "regularisation": "r1", **settings}
    return StftDiscriminator(StftAdversary(**settings), Shape(channels, (length,)), RATE)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------------------- what it is


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("phase", [True, False])
def test_spectra_are_those_of_torch_raised_to_a_power(phase, channels):
    sound = noise(3, channels, LENGTH)
    for window in built(channels=channels, phase=phase).windows:
        size = window.size
        margin = (size - size // 4) // 2
        spectra = torch.stft(
            F.pad(sound.flatten(0, 1), (margin, size - size // 4 - margin)),
            size,
            size // 4,
            window=torch.hann_window(size),
            center=False,
            return_complex=True,
        ).mT  # (B * C, frames, frequencies)
        # A sine of amplitude a has the magnitude a.
        spectra = spectra * 2 / (size / 2)
        size_of_each = (spectra.abs().square() + 1e-8).sqrt()
        expected = (SCALE * size_of_each**POWER)[:, None]
        if phase:
            raised = SCALE * spectra * size_of_each ** (POWER - 1)
            expected = torch.stack([raised.real, raised.imag], 1)
        expected = expected.unflatten(0, (3, channels)).flatten(1, 2)
        torch.testing.assert_close(window.seen(sound), expected, atol=2e-4, rtol=2e-4)


def test_the_gradient_is_the_difference_that_a_step_makes():
    network = built().double()
    sound = noise(2, 1, LENGTH).double().requires_grad_()
    (gradient,) = torch.autograd.grad(network.features(sound)[-1].square().sum(), sound)
    direction = noise(2, 1, LENGTH, seed=1).double()
    step = 1e-6 * direction
    with torch.no_grad():
        up = network.features(sound + step)[-1].square().sum()
        down = network.features(sound - step)[-1].square().sum()
    torch.testing.assert_close((gradient * direction).sum(), (up - down) / 2e-6, rtol=1e-5, atol=0)


def test_silence_has_finite_gradients():
    network = built()
    silence = torch.zeros(1, 1, LENGTH, requires_grad=True)
    (gradient,) = torch.autograd.grad(network.features(silence)[-1].sum(), silence)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("regularisation", ["spectral", "r1"])
@pytest.mark.parametrize(("channels", "phase"), [(1, True), (2, True), (2, False)])
@pytest.mark.parametrize("length", [128, 1000, 1024, 1111])
def test_what_is_real_is_told_of_every_layer(channels, phase, regularisation, length):
    network = built(length, channels, phase=phase, regularisation=regularisation)
    features = network.features(noise(2, channels, length))
    real = network.real(torch.ones(2, length, dtype=torch.bool))
    assert real[-1].shape == features[-1].shape
    for one, where in zip(features, real, strict=True):
        assert where.all()
        # Columns are told one by one.
        assert where.expand_as(one).shape == one.shape and where.shape[2:3] == one.shape[2:3]
    scores, _, penalty = network(*noise(2, 2, channels, length), penalised=1)
    (scores.mean() + penalty).backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in network.parameters())


def test_a_column_is_real_where_its_half_window_has_a_real_sample():
    mask = torch.arange(LENGTH)[None] < torch.tensor([[1], [64], [65], [LENGTH]])
    real = built(windows=(0.016,)).real(mask)
    # Half of 128 samples each.
    assert [int(row.sum()) for row in real[0][:, 0, :, 0]] == [1, 1, 2, 16]


def test_scores_of_a_recording_do_not_depend_on_its_neighbours():
    network = built()
    sound = noise(3, 1, LENGTH)
    alone = network.features(sound[1:2])[-1]
    torch.testing.assert_close(network.features(sound)[-1][1:2], alone)


# ------------------------------------------------------------------------------------------ padding


class Decoder(nn.Module):
    """One kernel of one weight, with which the stage compares gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(1, 1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 0.7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def padded_to(
    length: int, lengths: list[int], fill: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Recordings of `lengths` samples, and a mask: what is not real has the value `fill`."""
    mask = torch.arange(length)[None] < torch.tensor(lengths)[:, None]
    sound = F.pad(noise(len(lengths), 1, max(lengths)), (0, length - max(lengths)))
    return sound.where(mask[:, None], fill), mask


def stepped(length: int, lengths: list[int], parts: int = 1, masked: bool = True, **settings):
    """Terms of the discriminator, its figures, its gradients, and the gradient of the decoder."""
    torch.manual_seed(0)
    settings = {"windows": WINDOWS, "width": 4, "regularisation": "r1", "ramp": 1, **settings}
    config = StftAdversary(alone=1, **settings)
    sound, mask = padded_to(length, lengths)
    decoder = Decoder()

    def pair(output: Output, batch: None) -> Pair:
        fakes = without_padding(output.reconstruction, sound, mask)
        return Pair(fakes, sound, mask if masked else None)

    discriminator = AUDIO.discriminator(config, Shape(1, (length,)), load_audio().data)
    engine = Engine(TrainConfig(precision="float32"))
    adversary = Adversary(config, discriminator, AUDIO, decoder, pair, engine, parts)
    adversary.begin(0)
    generator = torch.Generator().manual_seed(0)
    # Padding is silence to the decoder too.
    reconstruction = decoder(sound) + 0.1
    terms = {"reconstruction": reconstruction.where(mask[:, None], 0.0).square().sum()}
    output = Output(reconstruction, torch.zeros(0), terms)
    joined, weights = adversary.join(output, {"reconstruction": 1.0}, None, 8, generator)
    joined.terms["adversarial"].backward()
    of_discriminator = adversary.phase.forward(adversary.model, None, generator)
    sum(of_discriminator.terms.values()).backward()
    gradients = [parameter.grad for parameter in adversary.raw.parameters()]
    return of_discriminator.terms, adversary.figures, gradients, decoder.layer.weight.grad


def load_audio() -> Config:
    return load("speech", [f"data.sample_rate={RATE}"], Config)


def assert_close(one, other) -> None:
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first, second, rtol=2e-4, atol=1e-6)


LENGTHS = [300, 640, 90]


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_more_padding_teaches_neither_side_anything(loss):
    """Also in R1, whose step this is. A clip of twice the length is silence in all that is new."""
    short = stepped(LENGTH, LENGTHS, loss=loss)
    long = stepped(2 * LENGTH, LENGTHS, loss=loss)
    assert set(short[0]) == {"discriminator", "r1"}
    for name, value in short[0].items():
        torch.testing.assert_close(value, long[0][name], rtol=2e-4, atol=1e-6)
    for name, value in short[1].items():
        assert value == pytest.approx(long[1][name], rel=1e-3), name
    assert_close(short[2], long[2])
    torch.testing.assert_close(short[3], long[3], rtol=2e-4, atol=1e-6)
    # Without a mask it would: pairs of padding are told right by nobody.
    unmasked = stepped(2 * LENGTH, LENGTHS, masked=False, loss=loss)
    assert unmasked[1]["adversary/accuracy_pairs"] < 0.6 * long[1]["adversary/accuracy_pairs"]


def test_parts_of_a_batch_with_padding_give_the_gradient_of_the_whole():
    whole = stepped(LENGTH, [*LENGTHS, 1000])
    parts = stepped(LENGTH, [*LENGTHS, 1000], parts=4)
    torch.testing.assert_close(whole[3], parts[3], rtol=2e-4, atol=1e-6)


def test_a_part_of_padding_alone_is_no_fault():
    """As where a random change cuts out all of a short recording."""
    found = stepped(LENGTH, [5, 5, 5], parts=3, augment=True)
    assert all(value.isfinite() for value in found[0].values())
    assert found[3].isfinite().all()


# --------------------------------------------------------------------------------- how it is judged


def levels(sound: torch.Tensor) -> torch.Tensor:
    """Of the spectra of int16 (B, 1, T) in dB of full scale, no lower than -100: (B, 1, F, N)."""
    padded = F.pad(sound[:, 0].float() / 32768, (256, 512))
    window = torch.hann_window(512)
    spectra = torch.stft(padded, 512, 128, window=window, center=False, return_complex=True)
    return 20 * torch.log10((spectra.abs() / 128).clamp(min=1e-5))[:, None].mT


def test_detail_is_the_log_spectral_distance_of_what_is_heard():
    sound = noise(2, 1, 8000)
    sound = (20000 * sound / sound.abs().max()).round().to(torch.int16)
    mask = torch.ones(2, 8000, dtype=torch.bool)
    mask[1, 4000:] = False
    assert AUDIO.detail(sound, sound, mask).tolist() == [0, 0]
    # Half as loud all over is 6 dB away.
    assert float(AUDIO.detail(sound // 2, sound)[0]) == pytest.approx(-6.02, abs=0.05)
    clicks = torch.zeros_like(sound)
    clicks[..., ::64] = 4000
    mine = levels(clicks.where(mask[:, None], 0))[:, 0]
    wanted = levels(sound * mask[:, None])[:, 0]
    loudness = wanted.amax(2)
    for row in range(2):
        heard = loudness[row] > loudness[row].max() - 60
        assert heard.all() == (row == 0)
        each = (mine - wanted)[row, heard].square().mean(1).sqrt()
        found = AUDIO.detail(clicks, sound, mask)[row]
        assert float(found) == pytest.approx(-float(each.mean()), rel=1e-3)
    other = sound.where(mask[:, None], 1234)
    assert torch.equal(AUDIO.detail(clicks, other, mask), AUDIO.detail(clicks, sound, mask))


# ----------------------------------------------------------------------------------------- refusals


def test_a_clip_that_is_shorter_than_a_window_is_a_sentence():
    with pytest.raises(VqkitError, match="of 128 samples, and a clip has 100: set shorter"):
        built(100)


def test_each_signal_has_a_discriminator_of_its_own():
    patch = load("photos-sharp", [], Config)
    sharp = load("speech", ["adversary.kind=stft", f"data.sample_rate={RATE}"], Config)
    shape = Shape(1, (LENGTH,))
    with pytest.raises(VqkitError, match=r"patch is not for recordings: set adversary.kind=stft"):
        AUDIO.discriminator(patch.adversary, shape, sharp.data)
    with pytest.raises(VqkitError, match=r"stft is not for images: set adversary.kind=patch"):
        IMAGE.discriminator(sharp.adversary, Shape(3, (16, 16)), patch.data)
