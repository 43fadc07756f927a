"""What the benchmarks of sound compute themselves, against formulas and by hand."""

import numpy as np
import pytest
import soundfile
import torch

from . import bench, benchmark


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("decibels", [10, 0, -5])
def test_noise_lies_so_many_decibels_below_the_speech(random, decibels):
    speech = (1000 * random.standard_normal(8000)).astype(np.int16)
    noise = random.standard_normal(3000)
    mixed = bench("noises").with_noise(speech, noise, decibels)
    added = mixed.astype(float) - speech
    ratio = np.square(speech.astype(float)).mean() / np.square(added).mean()
    assert 10 * np.log10(ratio) == pytest.approx(decibels, abs=0.02)
    # The noise goes on from its beginning.
    assert np.corrcoef(added[:2000], added[3000:5000])[0, 1] > 0.99


def test_a_mixture_that_is_too_loud_is_made_softer(random):
    speech = np.full(8000, 30000, np.int16)
    mixed = bench("noises").with_noise(speech, np.resize([1.0, -1.0], 8000), 0)
    assert mixed.max() == 32767 and mixed.min() == 0


def test_noises_come_at_one_rate_without_the_silence_around_them(tmp_path):
    tone = np.sin(np.arange(8000) / 3)
    padded = np.pad(0.5 * tone, 4000)
    soundfile.write(tmp_path / "a.wav", np.stack([padded, padded], 1), 16000)
    soundfile.write(tmp_path / "b.wav", np.zeros(4000), 16000)
    found = bench("noises").read_noises(tmp_path, 8000)
    assert list(found) == ["a.wav"]
    assert len(found["a.wav"]) == pytest.approx(4000, abs=60)


def test_the_log_mel_distance_is_that_of_levels(random):
    music = bench("music_sets")
    loud = (3000 * random.standard_normal((44100, 2))).astype(np.int16)
    assert music.log_mel_distance(loud, loud) == 0
    # Half the amplitude is 6.02 dB in every band of either channel; of one channel, half of it.
    assert music.log_mel_distance(loud, loud // 2) == pytest.approx(6.02, abs=0.05)
    one = np.stack([loud[:, 0], loud[:, 1] // 2], 1)
    assert music.log_mel_distance(loud, one) == pytest.approx(3.01, abs=0.05)


def test_a_tone_lies_in_the_band_of_its_pitch():
    music = bench("music_sets")
    times = np.arange(44100) / 44100
    tone = (10000 * np.sin(2 * np.pi * 3000 * times)).astype(np.int16)
    energies = music._energies(np.stack([tone, tone], 1))[0].mean(0)
    mels = np.linspace(0, 1127 * np.log(1 + 20000 / 700), music.BANDS + 2)
    centres = 700 * (np.exp(mels[1:-1] / 1127) - 1)
    wanted = np.abs(centres - 3000).argmin()
    # Low bands between two bins are left out.
    missing = music.BANDS - len(energies)
    assert abs(int(energies.argmax()) + missing - wanted) <= 1


def test_the_peer_is_read_off_its_curve_at_equal_bytes():
    at_equal_bytes = benchmark("music").at_equal_bytes
    points = [{"kbps": 8.0, "log_mel": 6.0}, {"kbps": 32.0, "log_mel": 2.0}]
    assert at_equal_bytes(points, 16.0, "log_mel") == pytest.approx(4.0)
    assert at_equal_bytes(points, 4.0, "log_mel") == 6.0


def test_bytes_at_the_peers_figure_lie_between_two_rates():
    share = bench("speech_scores").bytes_against_opus
    ours = [{"kbps": 1.0, "stoi": 0.8, "pesq": 1.5}, {"kbps": 2.0, "stoi": 0.9, "pesq": 2.5}]
    assert share(ours, {"kbps": 6.0, "stoi": 0.85, "pesq": 3.0}) == pytest.approx(0.25)
    assert share(ours, {"kbps": 6.0, "stoi": 0.85, "pesq": 3.0}, "pesq") == float("inf")


def test_recordings_are_cut_out_of_their_minutes(random):
    recordings = {
        str(number): (1000 * random.standard_normal(8000 * 25)).astype(np.int16)
        for number in range(7)
    }
    minutes = []

    def upside_down(samples):
        minutes.append(len(samples) / 8000)
        return -samples, 600

    found = bench("speech_scores").decoded(recordings, upside_down)
    # Three of 25 s are a minute and more; what is left joins the one before.
    assert minutes == [75, 100]
    assert found.kbps == pytest.approx(8e-3 * 1200 / 175)
    for name, samples in recordings.items():
        assert (found.recordings[name] == -samples).all()


def test_prompts_of_silence_are_not_measured(tmp_path, random):
    speech = (1000 * random.standard_normal(16000)).astype(np.int16)
    soundfile.write(tmp_path / "speech.wav", speech, 8000)
    soundfile.write(tmp_path / "silence.wav", (speech > 0).astype(np.int16), 8000)
    soundfile.write(tmp_path / "short.wav", speech[:4000], 8000)
    assert list(bench("speech_sets").read_all(tmp_path, 10)) == ["speech.wav"]


def test_phones_are_read_with_where_they_begin(tmp_path):
    path = tmp_path / "a.lab"
    path.write_text("separator ;\n#\n0.5 125 pau\n0.6 125 e\n0.76 125 gg\n", encoding="utf-8")
    found = bench("recogniser").read_phones(path)
    assert [tuple(phone) for phone in found] == [
        ("pau", 0.0, 0.5),
        ("e", 0.5, 0.6),
        ("gg", 0.6, 0.76),
    ]


def test_a_recogniser_tells_tones_apart_whatever_their_level(random):
    recogniser = bench("recogniser")
    times = np.arange(4000) / 8000

    def tone(hertz):
        hiss = 20 * random.standard_normal(4000)
        rising = np.sin(2 * np.pi * hertz * times * (1 + times))
        level = random.uniform(500, 8000)
        return (level * rising * np.hanning(4000) + hiss).astype(np.int16)

    names = ["low", "middle", "high"] * 20
    pitches = {"low": 250, "middle": 700, "high": 1500}
    seen = np.stack([recogniser.of_word(tone(pitches[name])) for name in names])
    trained = recogniser.Recogniser(seen[:30], names[:30], 0, 100)
    assert trained.is_right(seen[30:], names[30:]).mean() > 0.9
    assert not trained.is_right(seen[30:], ["low"] * 30)[1::3].any()


def test_operations_are_those_of_the_formulas():
    budget = benchmark("speech_budget")
    with budget.Operations() as counted:
        product = torch.ones(3, 5) @ torch.ones(5, 7)
    assert counted.products == 2 * 3 * 5 * 7
    # Making the two matrices took a number for each of theirs.
    assert counted.others == 15 + 35
    with budget.Operations() as counted:
        spectrum = torch.fft.rfft(product.new_zeros(4, 256).t().t())
        torch.fft.irfft(spectrum, n=256)
    # There and back, four rows.
    assert counted.fourier == 2 * 4 * 2.5 * 256 * 8
