#!/usr/bin/env bash
# Run a recipe on a Flink cluster: one Flink job for each stage that is due.
#
#   deploy/flink/submit.sh --master HOST:8081 --jar JOB_SERVER.jar --image IMAGE \
#       [--processes 4] [--flink-version 2.2] [--dry-run] RECIPE key=value ...
#
# JOB_SERVER.jar is Beam's beam-runners-flink-2.2-job-server of version 2.77.0 (for another Flink,
# the jar of that version and --flink-version); Beam starts it with Java on this machine and it
# submits to the master. Workers run IMAGE with Docker on each node; output= must be reachable from
# there (s3:// or gs://). Instead of --image, --pool HOST:PORT uses worker pools that run already (on
# each node: docker run IMAGE --worker_pool). --dry-run prints the command. Stopped or cut off, the
# same command continues.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"
master='' jar='' image='' pool='' processes=1 version=2.2 dry_run=0
while [ $# -gt 0 ]; do
  case "$1" in
    --master) master=${2-}; shift 2 || die "$1 needs a value" ;;
    --jar) jar=${2-}; shift 2 || die "$1 needs a value" ;;
    --image) image=${2-}; shift 2 || die "$1 needs a value" ;;
    --pool) pool=${2-}; shift 2 || die "$1 needs a value" ;;
    --processes) processes=${2-}; shift 2 || die "$1 needs a value" ;;
    --flink-version) version=${2-}; shift 2 || die "$1 needs a value" ;;
    --dry-run) dry_run=1; shift ;;
    --help) help; exit 0 ;;
    --*) die "unknown option $1 (see --help)" ;;
    *) break ;;
  esac
done
need "$master" --master "the Flink job manager, as in HOST:8081"
need "$jar" --jar "path of Beam's Flink job server"
need "$image$pool" --image 'the worker image (deploy/worker/build.sh), or --pool HOST:PORT'
[ $# -gt 0 ] || die 'no recipe: give RECIPE key=value ... (see dataflows list)'
[ "$dry_run" = 1 ] || [ -f "$jar" ] || die "--jar $jar: no such file"

flags=("--flink_job_server_jar=$jar" "--flink_master=$master" "--flink_version=$version")
if [ -n "$pool" ]; then
  flags+=(--environment_type=EXTERNAL "--environment_config=$pool")
else
  flags+=(--environment_type=DOCKER "--environment_config=$image")
fi
flags+=("--sdk_worker_parallelism=$processes" --environment_cache_millis=600000)
run dataflows run "$@" --runner flink -- "${flags[@]}"
