#!/bin/sh
# Runs what the README promises on a GPU, in ten minutes at most, and prints one table. Without a
# GPU the same on the processor with fewer steps, which shows that every line works, and no speed.
#
#     sh scripts/gpu_check.sh [DIR]        DIR: for models and logs, emptied; default runs/gpu-check
#
# PYTHON is the interpreter (default: that of .venv, else python3). Speed against
# vector-quantize-pytorch needs that package; without it its row says so.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
WORK=${1:-runs/gpu-check}
rm -rf "$WORK"
mkdir -p "$WORK/inputs" "$WORK/photographs"
TABLE=$WORK/table.txt
VQKIT="$PYTHON -m vqkit"
failed=0

DEVICE=$($PYTHON -c "import torch
print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')")
if [ "$DEVICE" ]; then
    BRIEF="train.steps=30 train.validate_every=15 train.checkpoint_every=10 coder.steps=5"
    PRIOR="train.steps=20 train.validate_every=10"
    CARD=
    SPEED=
else
    BRIEF="train.steps=4 train.validate_every=2 train.checkpoint_every=2 coder.steps=0"
    PRIOR="train.steps=4 train.validate_every=2 network.width=64 network.num_blocks=2"
    # The recipe for cards, narrow.
    CARD="train.batch_size=2 model.network.width=32 adversary.width=8"
    SPEED=--quick
    DEVICE="no GPU, the processor alone, few steps"
fi
echo "device: $DEVICE" | tee "$TABLE"

# check NAME COMMAND...: run it and note whether it went well, and its seconds.
check() {
    name=$1
    shift
    began=$(date +%s)
    said=ok
    "$@" > "$WORK/log-$(echo "$name" | tr -c 'a-z0-9\n' '-').txt" 2>&1 || said=FAILED
    [ $said = ok ] || failed=1
    printf '%-44s %-7s %4d s\n' "$name" "$said" $(($(date +%s) - began)) | tee -a "$TABLE"
}

resumed() {
    # Stopped in the middle by the signal that schedulers send, then gone on with.
    $VQKIT train emoji --out "$WORK/resumed" train.steps=100000 train.checkpoint_every=5 \
        coder.steps=0 &
    child=$!
    for _ in $(seq 120); do
        ls "$WORK/resumed/checkpoint"/step-*.safetensors > /dev/null 2>&1 && break
        sleep 1
    done
    kill -TERM $child
    wait $child
    [ $? -eq 130 ] || return 1
    timeout -s INT 8 $VQKIT train emoji --out "$WORK/resumed" --resume
    status=$?
    [ $status -eq 124 ] || [ $status -eq 130 ]
}

two_ranks() {
    # NCCL refuses two ranks on one card, Gloo does not.
    $PYTHON - "$WORK/ranks" <<'END'
import os, subprocess, sys
port = str(29500 + os.getpid() % 500)
words = [sys.executable, "-c", """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
from vqkit.cli import main
raise SystemExit(main(__import__("sys").argv[1:]))
""", "train", "emoji", "--out", sys.argv[1], "train.steps=6", "train.batch_size=32",
         "coder.steps=0"]
ranks = []
for rank in range(2):
    # Each rank sees the card as its own.
    known = dict(os.environ, RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE="2", LOCAL_WORLD_SIZE="1",
                 MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    ranks.append(subprocess.Popen(words, env=known))
raise SystemExit(max(rank.wait() for rank in ranks))
END
}

speed() {
    # Images a second of our loop and of the plain loop of benchmarks/training.py, and a step of the
    # quantizers.
    $PYTHON scripts/gpu_speed.py $SPEED | tee -a "$TABLE"
}

check "images to work on" $PYTHON -c "
import numpy as np
from PIL import Image
from vqkit.settings import DataConfig
from vqkit.signals.image.source import open_images
data = open_images('emoji', DataConfig(), 0)
for number, values in enumerate(data.read(range(16)).values):
    image = Image.fromarray(np.ascontiguousarray(values.permute(1, 2, 0)))
    image.save(f'$WORK/inputs/{number:02}.png')
    # No photographs, but as large.
    image.resize((256, 256)).save(f'$WORK/photographs/{number:02}.png')"
# At its own size, and into its stage.
CARD="$CARD $BRIEF adversary.start=0.2 adversary.alone=2 adversary.ramp=2"
for factor in 8 16; do
    check "train, recipe photos-gpu, f$factor, 256x256" $VQKIT train "$WORK/photographs" \
        --recipe photos-gpu --out "$WORK/photos-gpu-$factor" \
        model.network.downsampling_factor=$factor $CARD
done
for recipe in $($PYTHON -c "
from vqkit.config import recipe_names
from vqkit.settings import Config
print(*(name for name in recipe_names(Config) if name != 'photos-gpu'))"); do
    check "train, recipe $recipe" $VQKIT train emoji --recipe "$recipe" --out "$WORK/$recipe" \
        data.image_size='[32,32]' $BRIEF
done
M=$WORK/emoji
check "load, encode and decode" $PYTHON -c "
import numpy as np, vqkit
model = vqkit.load('$M')
images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
codes = model.encode(images)
assert np.array_equal(model.to('cpu').encode(images), codes.cpu()) or model.device.type != 'cpu'
assert model.decode(codes).shape == images.shape
print(model)"
check "train-coder" $VQKIT train-coder "$M" emoji --force --steps 2
check "evaluate" $VQKIT evaluate "$M" emoji
check "reconstruct" $VQKIT reconstruct "$M" "$WORK/inputs" --out "$WORK/reconstructed"
check "compress" $VQKIT compress "$M" "$WORK/inputs" --bundle --out "$WORK/all.vq"
check "verify" $VQKIT verify "$WORK/all.vq" --model "$M"
check "decompress" $VQKIT decompress "$WORK/all.vq" --model "$M" --out-dir "$WORK/back"
check "train-prior" $VQKIT train-prior "$M" emoji $PRIOR
check "generate" $VQKIT generate "$M" --num 16 --out "$WORK/grid.png"
check "denoise" $VQKIT denoise "$WORK/denoise" "$WORK/inputs" --out "$WORK/denoised"
check "explain" $VQKIT explain "$M" emoji --out "$WORK/explained.html" --num 256
check "stop and resume" resumed
check "bfloat16" $VQKIT train emoji --out "$WORK/bf16" train.precision=bfloat16 $BRIEF
check "float32" $VQKIT train emoji --out "$WORK/f32" train.precision=float32 $BRIEF
check "compile" $VQKIT train emoji --out "$WORK/compiled" train.compile=true train.steps=10 \
    coder.steps=0 model.network.encoder_blocks=1 model.network.decoder_blocks=1
check "two ranks on one card, gloo" two_ranks
check "speed" speed
echo
cat "$TABLE"
exit $failed
