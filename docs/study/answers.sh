#!/bin/sh
# sh answers.sh CAPTURES OUT: every table and picture of the study, from CAPTURES/main/{off,on}.
# Pictures take nsysmoe[static] and Chrome or Chromium; the study shows five of the ten.
set -eu
out=$(realpath -m "$2")
mkdir -p "$out/runs"
cd "$1"

nsysmoe compare main/off main/on --by run --full -o "$out/table1.md"
nsysmoe compare main/off main/on --by run -o "$out/runs.parquet"
nsysmoe compare main/off main/on --by phase -o "$out/phases.md"
nsysmoe compare main/off main/on --by phase -o "$out/phases.parquet"
nsysmoe compare main/off main/on --by rank -o "$out/ranks.md"
nsysmoe compare main/off main/on -o "$out/comparison.json"
for run in main/off/run-*; do
    nsysmoe advise --routing "$run/routing.npz" --trace "$run/trace.sqlite" \
        -o "$out/advise-$(basename "$run").md"
done
nsysmoe advise --routing main/off/run-1/routing.npz --trace main/off/run-1/trace.sqlite \
    --redundant 2 -o "$out/advise-redundant-2.md"
nsysmoe kernels main/on/run-1/trace.sqlite -o "$out/kernels-on.md"
for arm in off on; do
    nsysmoe bound "main/$arm/run-1/trace.sqlite" -o "$out/bound-$arm.md"
    for run in "main/$arm"/run-*; do
        name=$arm-$(basename "$run")
        nsysmoe whatif "$run/trace.sqlite" -o "$out/whatif-$name.md"
        cp "$run/run.json" "$out/runs/$name.json"
    done
done
nsysmoe report main/off main/on -o "$out/report.html" --folder "$out/pictures" --static svg
