#!/bin/sh
# Runs this example five times in a scratch copy and shows what is remembered.
# SEEKNAL names the command; KEEP=1 leaves the copy.
set -eu

SEEKNAL=${SEEKNAL:-seeknal}
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
if [ -n "${KEEP:-}" ]; then
    echo "the project stays in $scratch/weather"
else
    trap 'rm -rf "$scratch"' EXIT
fi
cp -R "$here" "$scratch/weather"
cd "$scratch/weather"
rm -rf target

say() {
    printf '\n== %s\n\n' "$*"
}

say 'First run: everything is new'
"$SEEKNAL" run

say 'Second run: nothing has changed, everything is cached'
"$SEEKNAL" run

say 'One query changes: it runs, and what depends on it, and nothing else'
sed -i.before 's/round(avg(celsius), 2)/round(avg(celsius), 1)/' seeknal/transforms/daily.yml
rm seeknal/transforms/daily.yml.before
"$SEEKNAL" run

say 'Some days are done again: those of July, and the months that they are in'
"$SEEKNAL" run --restate --start 2010-07-04 --end 2010-07-05

say 'And nothing is left'
"$SEEKNAL" run

say 'seeknal intervals list'
"$SEEKNAL" intervals list

say 'seeknal state list'
"$SEEKNAL" state list

say 'seeknal state show'
"$SEEKNAL" state show

say 'head -n 24 target/run_state.json'
head -n 24 target/run_state.json
