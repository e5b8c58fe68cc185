#!/usr/bin/env bash
# Train a recipe on a Slurm cluster: one job over N hosts.
#
#   deploy/slurm/submit.sh --hosts N [--ranks R] [--gpus-per-host G] [--time 24:00:00] \
#       [--partition P] [--account A] [--qos Q] [--name NAME] [--chdir DIR] [--max-restarts K] \
#       [--dry-run] RECIPE key=value ...
#
# --ranks: processes of the whole job (default: a rank for each GPU, or one for each host). output= and
# the data must lie on a file system that all hosts share, and `trainer` on the same path everywhere:
# activate its environment first, the job takes PATH over. 120 s before the time limit ranks save and
# end; stopped or failed, the same command continues. --dry-run prints the command; what it submits is
# trainer/launching/sbatch.txt.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"
hosts='' ranks='' gpus='' limit='' partition='' account='' qos='' name=headrace
directory='' restarts='' dry_run=0
while [ $# -gt 0 ]; do
  case "$1" in
    --hosts) hosts=${2-}; shift 2 || die "$1 needs a value" ;;
    --ranks) ranks=${2-}; shift 2 || die "$1 needs a value" ;;
    --gpus-per-host) gpus=${2-}; shift 2 || die "$1 needs a value" ;;
    --time) limit=${2-}; shift 2 || die "$1 needs a value" ;;
    --partition) partition=${2-}; shift 2 || die "$1 needs a value" ;;
    --account) account=${2-}; shift 2 || die "$1 needs a value" ;;
    --qos) qos=${2-}; shift 2 || die "$1 needs a value" ;;
    --name) name=${2-}; shift 2 || die "$1 needs a value" ;;
    --chdir) directory=${2-}; shift 2 || die "$1 needs a value" ;;
    --max-restarts) restarts=${2-}; shift 2 || die "$1 needs a value" ;;
    --dry-run) dry_run=1; shift ;;
    --help) help; exit 0 ;;
    --*) die "unknown option $1 (see --help)" ;;
    *) break ;;
  esac
done
need "$hosts" --hosts 'how many hosts'
[[ "$hosts" =~ ^[1-9][0-9]*$ ]] || die "--hosts $hosts: give a whole number, 1 or more"
[ $# -gt 0 ] || die 'no recipe: give RECIPE key=value ... (see trainer plan)'

flags=("--nodes=$hosts" "--job-name=$name")
if [ -n "$gpus" ]; then flags+=("--gpus-per-node=$gpus"); fi
if [ -n "$limit" ]; then flags+=("--time=$limit"); fi
if [ -n "$partition" ]; then flags+=("--partition=$partition"); fi
if [ -n "$account" ]; then flags+=("--account=$account"); fi
if [ -n "$qos" ]; then flags+=("--qos=$qos"); fi
if [ -n "$directory" ]; then flags+=("--chdir=$directory"); fi
words=("$@")
if [ -n "$ranks" ]; then words+=(--ranks "$ranks"); fi
if [ -n "$restarts" ]; then words+=(--max-restarts "$restarts"); fi
run sbatch "${flags[@]}" "$(cd "$(dirname "$0")/../.." && pwd)/trainer/launching/sbatch.txt" "${words[@]}"
