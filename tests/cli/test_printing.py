"""Figures as commands print them."""

from vqkit.cli.printing import print_figures


def test_each_figure_says_what_it_is_of(capsys):
    rates = {"full": {"bits": 1010.7, "psnr": 33.478}}
    denoised = {"sigma 15": {"noisy": 25.982, "denoised": 30.793}}
    print_figures(
        {
            "split": "test",
            "psnr": 31.3,
            "denoised": denoised,
            "rates": rates,
            "rates_split": "validation",
        }
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == "noise sigma 15 noisy 25.98 dB, denoised 30.79 dB".split()
    assert lines[3:] == ["rate full          1011 bits an item, 33.48 dB (validation split)"]
    print_figures({"rates": rates})  # of an artifact from before
    assert capsys.readouterr().out.endswith("33.48 dB\n")
