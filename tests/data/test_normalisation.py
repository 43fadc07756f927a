"""Values of files and the floats that they stand for."""

from __future__ import annotations

import torch

from vqkit.data.normalisation import Normalisation

SIGNED = Normalisation((0.0,), (1.0,), levels=32768, is_signed=True)


def test_whole_numbers_of_16_bits_come_back():
    values = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(1, 1, -1)
    standardised = SIGNED.apply(values)
    assert float(standardised.min()) == -1.0 and float(standardised.max()) == 32767 / 32768
    restored = SIGNED.restore(standardised)
    assert restored.dtype == torch.int16 and torch.equal(restored, values)


def test_what_a_model_overshoots_ends_at_full_scale():
    assert SIGNED.restore(torch.tensor([[[1.5, -1.5]]])).tolist() == [[[32767, -32768]]]


def test_the_sign_is_written_only_where_there_is_one():
    assert Normalisation.from_dict(SIGNED.to_dict()) == SIGNED
    plain = Normalisation((0.5,), (0.2,))
    assert set(plain.to_dict()) == {"mean", "std"}
    assert Normalisation.from_dict(plain.to_dict()) == plain
