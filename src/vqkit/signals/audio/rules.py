"""Which settings suit recordings that were looked at: all rules, and every number in them.

They are for `vqkit train` and `vqkit data` without a recipe. What a user sets wins over them.
"""

from __future__ import annotations

from ..base import Choice, Suggestion
from .look import Look

# Share of quiet frames from which on sound is speech. Medians of folders at more than 22 kHz:
# speech 0.33 and 0.37, orchestral music and that of games 0.00 to 0.17, ringtones 0.23.
SPEECH = 0.25
# Samples a second from which on sound may be music; telephones and old recordings of voices have
# fewer.
RATE_OF_MUSIC = 22_050
# Samples a second beyond which recordings of voices are made smaller.
MOST_OF_VOICES = 16_000


def suggested(look: Look) -> Suggestion:
    if look.quiet is not None and look.quiet < SPEECH and look.rate >= RATE_OF_MUSIC:
        return Suggestion("music", f"without pauses: {look.quiet:.0%} of it is quiet")
    choices = []
    if look.rate > MOST_OF_VOICES:
        setting = f"data.sample_rate={MOST_OF_VOICES}"
        because = f"{look.rate} samples a second are more than voices need"
        choices.append(Choice((setting,), because))
    if look.channels > 1:
        choices.append(Choice(("data.channels=1",), "a voice is one source: mixed to mono"))
    return Suggestion("speech", "made for voices", tuple(choices))
