# Sourced by the scripts beside it: options, and running a command or printing it.

die() { echo "$(basename "$0"): $*" >&2; exit 2; }

# need VALUE --flag 'what it is': a script's required option.
need() { [ -n "$1" ] || die "$2 is missing: $3 (see --help)"; }

# The comment at the top of the script is its help.
help() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# run COMMAND...: runs it, or with --dry-run prints it as it could be typed.
run() {
  if [ "$dry_run" = 1 ]; then
    printf '%q' "$1"; shift
    [ $# = 0 ] || printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}
