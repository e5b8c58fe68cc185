#!/usr/bin/env bash
# Run a recipe on Google Cloud Dataflow: one Dataflow job for each stage that is due.
#
#   deploy/dataflow/submit.sh --project P --region R --bucket gs://B --image IMAGE \
#       [--machine-type n2-standard-4] [--max-workers 50] [--service-account EMAIL] \
#       [--subnetwork NAME] [--dry-run] RECIPE key=value ...
#
# output= must be a gs:// path. Stages are committed by this command, so it stays until the last job
# has ended; stopped or cut off, the same command continues. --dry-run prints the command.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"
project='' region='' bucket='' image='' machine=n2-standard-4 workers=50
account='' subnetwork='' dry_run=0
while [ $# -gt 0 ]; do
  case "$1" in
    --project) project=${2-}; shift 2 || die "$1 needs a value" ;;
    --region) region=${2-}; shift 2 || die "$1 needs a value" ;;
    --bucket) bucket=${2-}; shift 2 || die "$1 needs a value" ;;
    --image) image=${2-}; shift 2 || die "$1 needs a value" ;;
    --machine-type) machine=${2-}; shift 2 || die "$1 needs a value" ;;
    --max-workers) workers=${2-}; shift 2 || die "$1 needs a value" ;;
    --service-account) account=${2-}; shift 2 || die "$1 needs a value" ;;
    --subnetwork) subnetwork=${2-}; shift 2 || die "$1 needs a value" ;;
    --dry-run) dry_run=1; shift ;;
    --help) help; exit 0 ;;
    --*) die "unknown option $1 (see --help)" ;;
    *) break ;;
  esac
done
need "$project" --project 'the Google Cloud project'
need "$region" --region 'a Dataflow region, as in europe-west4'
need "$bucket" --bucket 'gs://BUCKET for temporary files'
need "$image" --image 'the worker image (deploy/worker/build.sh)'
[[ "$bucket" == gs://* ]] || die "--bucket $bucket: it must start with gs://"
[ $# -gt 0 ] || die 'no recipe: give RECIPE key=value ... (see dataflows list)'

# sdk_location=container: the image holds Beam and Headrace, nothing is staged or installed at start.
flags=(
  "--project=$project" "--region=$region"
  "--temp_location=${bucket%/}/headrace/temp" "--staging_location=${bucket%/}/headrace/staging"
  "--sdk_container_image=$image" --sdk_location=container
  "--machine_type=$machine" "--max_num_workers=$workers" --disk_size_gb=50
  --labels=application=headrace
)
if [ -n "$account" ]; then flags+=("--service_account_email=$account"); fi
if [ -n "$subnetwork" ]; then flags+=("--subnetwork=$subnetwork" --no_use_public_ips); fi
run dataflows run "$@" --runner dataflow -- "${flags[@]}"
