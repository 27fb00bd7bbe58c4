#!/bin/sh
# Everything that made the networks in src/reel_modal/upscaling/models, from packages to files. Run it from the root of a checkout,
# with a Python that has this package and the dependency group `training`: training/run.sh FOLDER. About 45
# minutes of one core, and three gigabytes in FOLDER.
set -e
work=$1
new="--border 2 --coded-weight 0.5 --squared-share 0.25"
train="python -m training.train"
small="--channels 16 --blocks 6"
large="--channels 32 --blocks 8"

python -m training.fetch "$work/packages"
for scale in 2 4; do
    python -m training.dataset "$work/packages" "$work/x$scale.npz" --scale $scale
done

$train "$work/x2.npz" "$work/small_x2_first.pt" --scale 2 $small --steps 60000 --until 40000 \
    --log training/logs/small_x2_first.tsv
$train "$work/x2.npz" "$work/small_x2.pt" --scale 2 $small --steps 9000 --rate 1e-3 --clip 0.05 $new \
    --precise-share 0.2 --start "$work/small_x2_first.pt" --log training/logs/small_x2.tsv
$train "$work/x4.npz" "$work/small_x4.pt" --scale 4 $small --steps 10000 --rate 1e-3 --clip 0.05 $new \
    --precise-share 0.15 --start "$work/small_x2.pt" --log training/logs/small_x4.tsv

$train "$work/x2.npz" "$work/large_x2_first.pt" --scale 2 $large --steps 32000 --until 18000 --rate 1.2e-3 \
    --clip 0.02 $new --precise-share 0.12 --log training/logs/large_x2_first.tsv
$train "$work/x2.npz" "$work/large_x2_second.pt" --scale 2 $large --steps 8000 --rate 6e-4 --clip 0.02 $new \
    --precise-share 0.12 --start "$work/large_x2_first.pt" --log training/logs/large_x2_second.tsv
$train "$work/x2.npz" "$work/large_x2.pt" --scale 2 $large --steps 9000 --rate 6e-4 --clip 0.02 --border 2 \
    --coded-weight 0.25 --squared-share 0.4 --precise-share 0.1 --start "$work/large_x2_second.pt" \
    --log training/logs/large_x2.tsv
$train "$work/x4.npz" "$work/large_x4.pt" --scale 4 $large --steps 9000 --rate 1e-3 --clip 0.05 $new \
    --precise-share 0.1 --start "$work/large_x2_first.pt" --log training/logs/large_x4.tsv

for name in small_x2 small_x4 large_x2 large_x4; do
    python -m training.export "$work/$name.pt" "$(echo $name | tr _ -)" src/reel_modal/upscaling/models
done
python -m training.curves training/logs training/curves.png
