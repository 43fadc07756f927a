"""The same autoencoder as plain_loop.py with PyTorch Lightning, which moves it to whatever devices
there are: pip install pytorch-lightning.

    python examples/lightning_module.py [--steps 300]
"""

import argparse

import pytorch_lightning as lightning
import torch
from plain_loop import Autoencoder, discs
from torch.utils.data import DataLoader, IterableDataset


class Discs(IterableDataset):
    def __init__(self, batch: int) -> None:
        self.batch = batch

    def __iter__(self):
        drawing = torch.Generator().manual_seed(0)
        while True:
            yield discs(self.batch, drawing)


class Training(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Autoencoder()

    def training_step(self, images: torch.Tensor, index: int) -> torch.Tensor:
        _, loss = self.model(images)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=2e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    lightning.seed_everything(0)
    training = Training()
    trainer = lightning.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    # A batch is an item of the set; batch_size=None leaves it as it is.
    trainer.fit(training, DataLoader(Discs(64), batch_size=None))
    model = training.model.eval()
    with torch.no_grad():
        images = discs(256, torch.Generator().manual_seed(1))
        codes = model.quantizer.encode(model.encoder(images))
    print(f"loss {trainer.callback_metrics['loss'].item():.4f}")
    print(f"{len(codes.unique())} of 256 codes in use")


if __name__ == "__main__":
    main()
