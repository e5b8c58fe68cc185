#!/usr/bin/env bash
# Build the trainer image from the current commit, and push it if asked.
#
#   deploy/trainer/build.sh --image REGISTRY/PROJECT/headrace-trainer:TAG [--push] [--dry-run]
#
# Uncommitted changes are not in the image. It holds torch's CUDA libraries: about 6 GB.
# --dry-run prints the commands.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"
image='' push=0 dry_run=0
while [ $# -gt 0 ]; do
  case "$1" in
    --image) image=${2-}; shift 2 || die '--image needs a value' ;;
    --push) push=1; shift ;;
    --dry-run) dry_run=1; shift ;;
    --help) help; exit 0 ;;
    *) die "unknown option $1 (see --help)" ;;
  esac
done
need "$image" --image 'name and tag of the image'
cd "$(dirname "$0")/../.."
context=build/trainer-context.tar
[ "$dry_run" = 1 ] || mkdir -p build
files=(LICENSE README.md constraints.txt pyproject.toml curation data dataflows deploy/trainer kernels schemas trainer)
run git archive --output "$context" --format tar HEAD "${files[@]}"
if [ "$dry_run" = 1 ]; then
  echo "docker build --file deploy/trainer/Dockerfile --tag $(printf %q "$image") - < $context"
else
  docker build --file deploy/trainer/Dockerfile --tag "$image" - < "$context"
fi
if [ "$push" = 1 ]; then run docker push "$image"; fi
