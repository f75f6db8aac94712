#!/bin/sh
# sh variants.sh CAPTURES OUT: the tables of the variants, a pair of runs each, from
# CAPTURES/{even,tp2,inside}/{off,on} and CAPTURES/eager/off.
set -eu
out=$(realpath -m "$2")
mkdir -p "$out/runs"
cd "$1"

for name in even tp2 inside; do
    nsysmoe compare "$name/off" "$name/on" --by phase -o "$out/$name.md"
    nsysmoe compare "$name/off" "$name/on" --by phase -o "$out/$name.parquet"
done
redundant=
for name in even tp2 inside eager; do
    run=$name/off/run-1
    if [ "$name" = inside ]; then redundant="--redundant 2"; fi
    # shellcheck disable=SC2086 # an option and its value
    nsysmoe advise --routing "$run/routing.npz" --trace "$run/trace.sqlite" $redundant \
        -o "$out/advise-$name.md"
    redundant=
    for arm in "$name"/o*; do
        label=$name-$(basename "$arm")
        nsysmoe whatif "$arm/run-1/trace.sqlite" -o "$out/whatif-$label.md"
        cp "$arm/run-1/run.json" "$out/runs/$label.json"
    done
done
nsysmoe routing explain inside/off/run-1/trace.sqlite --routed inside/off/run-1/routing.npz \
    --run inside/off/run-1/run.json --against inside/on/run-1/trace.sqlite \
    --against-routed inside/on/run-1/routing.npz --against-run inside/on/run-1/run.json \
    -o "$out/explain-inside.md"
nsysmoe stalls inside/on/run-1/trace.sqlite -o "$out/stalls-inside.md"
nsysmoe summary eager/off -o "$out/eager.md"
nsysmoe bound eager/off/run-1/trace.sqlite -o "$out/bound-eager.md"
