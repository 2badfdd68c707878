#!/usr/bin/env bash
# One coordinator and the four intensive-care units of the PhysioNet/CinC Challenge 2012 as four
# hospitals, each with its own folder and process, on this machine: TLS, node authentication,
# privacy and secure sum as in earnest.
#
#   examples/loopback.sh DATA FOLDER STUDY.toml...
#
# DATA holds set-a.zip and Outcomes-a.txt, as distributed; FOLDER must not exist yet.
set -euo pipefail
data=$(realpath "$1") folder=$2 port=${PORT:-9092}
shift 2
mkdir -m 700 "$folder"
folder=$(realpath "$folder")
export CONSILIUM_COORDINATOR=$folder/coordinator OMP_NUM_THREADS=1 FLWR_TELEMETRY_ENABLED=0
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT

# The operator.
consilium-coordinator init --host 127.0.0.1 --listen 127.0.0.1 --port "$port"
consilium-coordinator start --patience 300 --monitor-port 0 2>"$folder/coordinator.log" &

# Each hospital: keys, records, policy, enrolment.
unit=0
for site in coronary-unit cardiac-surgery medical-icu surgical-icu; do
  unit=$((unit + 1))
  export CONSILIUM_SITE=$folder/$site
  consilium-site init --site "$site" >/dev/null
  printf '[data]\nsource = "physionet2012"\npath = "%s"\nwhere = { ICUType = %d }\n' \
    "$data" "$unit" >>"$CONSILIUM_SITE/site.toml"
  if [ -n "${WITHOUT_PRIVACY:-}" ]; then # these records are public; yours are not
    sed -i 's/^allow_without_privacy = false/allow_without_privacy = true/' "$CONSILIUM_SITE/policy.toml"
  fi
  until consilium-coordinator invite "$site" 2>/dev/null | consilium-site enroll -; do sleep 1; done
  consilium-site start 2>"$folder/$site.log" &
done

# Each hospital checks the others' fingerprints, which people do by telephone.
for other in coronary-unit cardiac-surgery medical-icu surgical-icu; do
  words=$(CONSILIUM_SITE=$folder/$other consilium-site identity --json | sed -n 's/.*"words": "\(.*\)".*/\1/p')
  for site in coronary-unit cardiac-surgery medical-icu surgical-icu; do
    [ "$site" = "$other" ] || CONSILIUM_SITE=$folder/$site consilium-site vouch "$other" "$words"
  done
done

# A study is offered, read and approved by each hospital, and then runs by itself.
for study in "$@"; do
  consilium-coordinator submit "$study"
  name=$(sed -n 's/^name = "\(.*\)"/\1/p' "$study")
  for site in coronary-unit cardiac-surgery medical-icu surgical-icu; do
    CONSILIUM_SITE=$folder/$site consilium-site approve "$name" --yes
  done
done
until [ "$(consilium-coordinator watch --json | grep -c '"state": "finished"')" = $# ]; do sleep 2; done
consilium-coordinator watch
for site in coronary-unit cardiac-surgery medical-icu surgical-icu; do
  CONSILIUM_SITE=$folder/$site consilium-site audit verify --peer "$CONSILIUM_COORDINATOR/audit.jsonl"
  consilium-coordinator audit verify --site "$site" --peer "$folder/$site/audit.jsonl"
done

# The finished models leave signed; each hospital checks them under the coordinator it enrolled with.
for study in "$@"; do
  name=$(sed -n 's/^name = "\(.*\)"/\1/p' "$study")
  consilium-coordinator export "$name" --out "$folder/models/$name"
  for site in coronary-unit cardiac-surgery medical-icu surgical-icu; do
    CONSILIUM_SITE=$folder/$site consilium-site predict "$folder/models/$name" \
      --out "$folder/$site/$name.csv"
  done
done
