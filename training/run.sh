#!/bin/sh
# Everything that made the networks in src/reel_modal/_upscaling/models, from packages to files. Run it from the root of
# a checkout with its history, with a Python that has this package and the dependency group `training`:
# training/run.sh FOLDER. About three hours of one core, and five gigabytes in FOLDER. See README.md.
set -e
work=$(realpath "$1")
here=$(pwd)
train="python -m training.train"

# The loop and the pool as they were before: they made small-x2, small-x4 and large-x4, which are as they were, and what
# large-x2 began with.
git worktree add --detach "$work/earlier" b662162
cd "$work/earlier"
training/run.sh "$work"
for name in small-x2 small-x4 large-x4; do
    cp "src/reel_modal/upscaling/models/$name.onnx" "$here/src/reel_modal/_upscaling/models"
done
before="$train $work/x2.npz --scale 2 --channels 48 --blocks 12 --clip 0.02 --border 2"
$before "$work/wide_first.pt" --steps 52000 --until 16000 --rate 1e-3 --coded-weight 0.25 --squared-share 0.3 \
    --precise-share 0.08 --log "$here/training/logs/large_x2_first.tsv"
$before "$work/wide_second.pt" --steps 24000 --rate 6e-4 --coded-weight 0.25 --squared-share 0.35 \
    --precise-share 0.08 --start "$work/wide_first.pt" --log "$here/training/logs/large_x2_second.tsv"
$before "$work/wide_third.pt" --steps 8000 --rate 3e-4 --coded-weight 0.15 --squared-share 0.9 \
    --precise-share 0.06 --start "$work/wide_second.pt" --log "$here/training/logs/large_x2_third.tsv"

# The loop and the pool of this folder.
cd "$here"
python -m training.fetch "$work/packages"
python -m training.dataset "$work/packages" "$work/x2_tiles.npz" --scale 2
now="$train $work/x2_tiles.npz --scale 2 --channels 48 --blocks 12"
$now "$work/wide_fourth.pt" --steps 1000 --rate 1e-3 --adam-rate 5e-4 --patch 56 --border 6 --coded-weight 0.25 \
    --averaged-steps 100 --start "$work/wide_third.pt" --log training/logs/large_x2_fourth.tsv
$now "$work/wide_fifth.pt" --steps 30000 --until 0.3333 --rate 1e-3 --adam-rate 3e-4 --coded-batch 3 \
    --coded-weight 0.25 --workers 2 --start "$work/wide_fourth.pt" --log training/logs/large_x2_fifth.tsv
python -m training.mean "$work/wide_mean.pt" "$work/wide_third.pt" "$work/wide_fifth.pt"
small="--patch 40 --border 4 --coded-weight 0.15 --rate 3e-4 --adam-rate 1e-4 --workers 2"
$now "$work/wide_sixth.pt" --steps 8000 --until 0.0625 $small --batch 16 --coded-batch 8 --averaged-steps 500 \
    --start "$work/wide_mean.pt" --log training/logs/large_x2_sixth.tsv
$now "$work/wide_seventh.pt" --steps 6400 --until 0.39 $small --batch 12 --coded-batch 6 --precise-share 1 \
    --start "$work/wide_sixth.pt" --log training/logs/large_x2_seventh.tsv
python -m training.mean "$work/large_x2.pt" "$work/wide_third.pt" "$work/wide_third.pt" "$work/wide_fifth.pt" \
    "$work/wide_seventh.pt"

python -m training.export "$work/large_x2.pt" large-x2 src/reel_modal/_upscaling/models --copies 4
python -m training.wrap
python -m training.curves training/logs training/curves.png
git worktree remove --force "$work/earlier"
