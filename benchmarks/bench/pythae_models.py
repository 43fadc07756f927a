"""Samples of pythae 0.1.2 after a given time: its VQVAE with its PixelCNN sampler, and its VAE with
its own samplers.

Its ResNets for MNIST, its trainer, Adam 1e-3, batches of 100, a cosine over the epochs, and the
epoch that was best on the validation images. The networks that it ships have 4x4 codes (144 bits at
512 entries), not 7x7. Its trainer counts epochs: an epoch here is as many of the shuffled training
images as the time allows for, each image once a round, so all are used and time is kept however
fast the machine is. Seconds are of processor time, with one thread. Imports of pythae are late:
they take seconds.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

BATCH = 100
# The first epoch is of 500 images and finds out how long one takes.
EPOCHS = 11
# Validation images at the end of an epoch, few so that they leave time for training.
LOOK = 500


def pythae_vqvae_samples(
    train: np.ndarray,
    validation: np.ndarray,
    seconds: float,
    count: int,
    seed: int,
    share: float = 0.5,
    times: dict[str, float] | None = None,
) -> np.ndarray:
    """Images (N, 28, 28) uint8 -> samples (count, 28, 28, 1) uint8 of a VQVAE and a PixelCNN over
    its 4x4 codes.

    `share` of the seconds are for the VQVAE with EMA codebook (K = 512, 16 dimensions, decay 0.99),
    the rest for the PixelCNN (10 layers, kernel 5, as PixelCNNSampler has it). `times` receives
    seconds: model, prior, sampling; and `usage`, the share of the codebook that the encoded images
    hit.
    """
    from pythae.samplers import PixelCNNSampler

    begin = time.process_time()
    times = {} if times is None else times
    images = _prepared(train)
    look = _prepared(validation)[:LOOK]
    with _quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _frozen(_trained(_vqvae(use_ema=True), images, look, begin + share * seconds, seed))
        times["model"] = time.process_time() - begin
        sampler = PixelCNNSampler(model)
        # an eighth of the prior's time for its data is enough for all images unless the whole is
        # short
        codes = [
            _codes(model, part, begin + (share + (1 - share) / 8) * seconds)
            for part in (images, look)
        ]
        prior = _trained(sampler.pixelcnn_model, *codes, begin + seconds, seed)
        # what PixelCNNSampler.fit does, except that its prior is left in training mode: batch norm
        # would then take its statistics from half-drawn codes
        sampler.pixelcnn_model = prior.eval()
        sampler.is_fitted = True
        times["prior"] = time.process_time() - begin - times["model"]
        times["usage"] = codes[0].unique().numel() / model.model_config.num_embeddings
        return _sampled(sampler, count, begin, times)


def pythae_vae_samples(
    train: np.ndarray,
    validation: np.ndarray,
    seconds: float,
    count: int,
    seed: int,
    times: dict[str, float] | None = None,
) -> np.ndarray:
    """Images (N, 28, 28) uint8 -> samples (count, 28, 28, 1) uint8 of a VAE with 16 latents after
    `seconds`.

    Drawn from a normal distribution or from a mixture of ten Gaussians fitted to the latents of
    10,000 images, the one that has the smaller KID-lite0 to 500 validation images. `times` receives
    seconds (model, prior, sampling) and the KID of both (kid_normal, kid_mixture). The mixture and
    the choice come on top of `seconds`.
    """
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.benchmarks.mnist import Decoder_ResNet_AE_MNIST, Encoder_ResNet_VAE_MNIST
    from pythae.samplers import GaussianMixtureSampler, NormalSampler

    from bench.image_features import kid, lite0_features

    begin = time.process_time()
    times = {} if times is None else times
    images = _prepared(train)
    look = _prepared(validation)[:LOOK]
    with _quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # scikit-learn's mixture has no other way in through pythae
        settings = VAEConfig(input_dim=(1, 28, 28), latent_dim=16)
        model = VAE(
            settings,
            encoder=Encoder_ResNet_VAE_MNIST(settings),
            decoder=Decoder_ResNet_AE_MNIST(settings),
        )
        model = _trained(model, images, look, begin + seconds, seed)
        times["model"] = time.process_time() - begin
        mixture = GaussianMixtureSampler(model)
        mixture.fit(images[:10000])
        times["prior"] = time.process_time() - begin - times["model"]
        found = [
            _sampled(sampler, count, begin, times) for sampler in (NormalSampler(model), mixture)
        ]
        real = lite0_features(validation[:LOOK, ..., None])
        kids = [kid(lite0_features(samples[:LOOK]), real) for samples in found]
    times |= {"kid_normal": kids[0], "kid_mixture": kids[1]}
    return found[int(kids[1] < kids[0])]


# ------------------------------------------------------------------------------------------- models


def _vqvae(use_ema: bool) -> nn.Module:
    from pythae.models import VQVAE, VQVAEConfig
    from pythae.models.nn.benchmarks.mnist import (
        Decoder_ResNet_VQVAE_MNIST,
        Encoder_ResNet_VQVAE_MNIST,
    )

    settings = VQVAEConfig(
        input_dim=(1, 28, 28), latent_dim=16, num_embeddings=512, use_ema=use_ema, decay=0.99
    )
    return VQVAE(
        settings,
        encoder=Encoder_ResNet_VQVAE_MNIST(settings),
        decoder=Decoder_ResNet_VQVAE_MNIST(settings),
    )


def _frozen(trained: nn.Module) -> nn.Module:
    """The same VQVAE with its codebook as parameters: the sampler calls `quantizer.embeddings`,
    with EMA a tensor.
    """
    model = _vqvae(use_ema=False)
    model.encoder = trained.encoder
    model.decoder = trained.decoder
    model.quantizer.embeddings.weight.data.copy_(trained.quantizer.embeddings)
    return model.eval()


@torch.no_grad()
def _codes(model: nn.Module, images: Tensor, until: float) -> Tensor:
    """(N, 1, 28, 28) -> (N, 1, 4, 4) as float, which its PixelCNN reads; fewer than N if time is up
    before.
    """
    parts: list[Tensor] = []
    for part in images.split(500):
        parts.append(
            model.quantizer(
                model.encoder(part).embedding.permute(0, 2, 3, 1)
            ).quantized_indices.float()
        )
        if time.process_time() > until:
            break
    return torch.cat(parts)


@torch.no_grad()
def _sampled(sampler, count: int, begin: float, times: dict[str, float]) -> np.ndarray:
    """`count` samples (count, 28, 28, 1) uint8; drawn in whole batches of 500, then cut."""
    start = time.process_time()
    drawn = sampler.sample(num_samples=-(-count // 500) * 500, batch_size=500)[:count]
    pixels = drawn.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    times["sampling"] = times.get("sampling", 0.0) + time.process_time() - start
    return pixels


def _prepared(images: np.ndarray) -> Tensor:
    return torch.as_tensor(images)[:, None].float() / 255  # (N, 1, 28, 28)


# ----------------------------------------------------------------------------------------- training


class _Rounds(Dataset):
    """`count` items an epoch, whatever index is asked for: the next ones of an endless shuffled
    order.
    """

    def __init__(self, items: Tensor, seed: int) -> None:
        from pythae.data.datasets import DatasetOutput

        self.items = items
        self.wrapped = DatasetOutput
        self.count = min(LOOK, len(items))
        self.generator = torch.Generator().manual_seed(seed)
        self.order: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if not self.order:
            self.order = torch.randperm(len(self.items), generator=self.generator).tolist()
        return self.wrapped(data=self.items[self.order.pop()], labels=torch.ones(()))


def _clock(rounds: _Rounds, deadline: float):
    """A callback that gives every epoch its even share of the time left until `deadline` of
    time.process_time.
    """
    from pythae.trainers.training_callbacks import TrainingCallback

    class Clock(TrainingCallback):
        epoch = 0
        begin = time.process_time()
        looked = 0.0

        def on_epoch_begin(self, training_config, **_) -> None:
            self.epoch = self.epoch + 1
            self.begin = time.process_time()

        def on_eval_step_begin(self, training_config, **_) -> None:
            self.looked = time.process_time()

        def on_epoch_end(self, training_config, **_) -> None:
            now = time.process_time()
            each = (self.looked - self.begin) / rounds.count
            look = now - self.looked
            left = (deadline - now) / max(1, EPOCHS - self.epoch) - look
            rounds.count = BATCH * max(1, int(left / each / BATCH))

    return Clock()


def _trained(
    model: nn.Module, items: Tensor, look: Tensor, deadline: float, seed: int
) -> nn.Module:
    """The best epoch of pythae's BaseTrainer, done at `deadline`."""
    from pythae.data.preprocessors import DataProcessor
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    rounds = _Rounds(items, seed)
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=EPOCHS,
            learning_rate=1e-3,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            seed=seed,
            no_cuda=True,
            scheduler_cls="CosineAnnealingLR",
            scheduler_params={"T_max": EPOCHS},
        )
        validation = DataProcessor.to_dataset(look)
        trainer = BaseTrainer(model, rounds, validation, settings, [_clock(rounds, deadline)])
        trainer.train()
    return trainer._best_model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of pythae's progress bars, log lines and prints."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
