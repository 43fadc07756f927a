"""The same autoencoder as plain_loop.py with Accelerate, in bfloat16 where --mixed-precision says
so: pip install accelerate. Codes are found in float32 all the same.

    accelerate launch examples/accelerate_loop.py [--steps 300] [--mixed-precision bf16]
"""

import argparse

import torch
from accelerate import Accelerator
from plain_loop import Autoencoder, discs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--mixed-precision", default="no", choices=("no", "bf16"))
    options = parser.parse_args()
    torch.manual_seed(0)
    accelerator = Accelerator(mixed_precision=options.mixed_precision)
    model = Autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model, optimizer = accelerator.prepare(model, optimizer)
    # Every process draws other images; codes learn from all of them.
    drawing = torch.Generator().manual_seed(accelerator.process_index)
    for step in range(1, options.steps + 1):
        _, loss = model(discs(64, drawing).to(accelerator.device))
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        if step % 50 == 0 or step == options.steps:
            accelerator.print(f"step {step}: loss {loss.item():.4f}")

    model = accelerator.unwrap_model(model).eval()
    images = discs(256, torch.Generator().manual_seed(1)).to(accelerator.device)
    with torch.no_grad():
        codes = model.quantizer.encode(model.encoder(images))
    accelerator.print(f"{len(codes.unique())} of 256 codes in use")


if __name__ == "__main__":
    main()
