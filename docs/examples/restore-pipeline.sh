#!/bin/bash
# Brings many VMs back at once: fetches each one's image, verifies it, restores it, and waits until its VM runs.
#
#   restore-pipeline.sh [-j JOBS] DIRECTORY…
#
# Each DIRECTORY is one VM. It holds
#   source   one line: where its image is, as FETCH understands it
#   qemu     a program that starts its QEMU and hands its own arguments on: exec qemu-system-x86_64 … "$@"
# and is given
#   vm.mfd   the image, only as long as it is needed
#   events   what multifd-helper told of the restore, as JSON lines
#   log      what the last step wrote to stderr
#   pid      QEMU's process number, once the VM runs
#
# JOBS VMs are worked on at a time (2). FETCH is called with source and target; it is "cp" here, and may be any program
# that leaves a whole file or fails. One VM that fails does not stop the others. Exit status: 0 when all run, 1 when
# one does not, 2 for a wrong command line. Needs bash, coreutils and multifd-helper.
set -u

jobs=2
: "${FETCH:=cp}" "${HELPER:=multifd-helper}"
if [ "${1-}" = -j ]; then
  jobs=${2-}
  shift 2 || shift
fi
if [ $# = 0 ] || ! [ "$jobs" -ge 1 ] 2>/dev/null; then
  echo "usage: restore-pipeline.sh [-j JOBS] DIRECTORY…" >&2
  exit 2
fi

# Each step runs in the VM's directory. Helpers end, and clean up, when this script is killed (--die-with-parent).
fetch() {
  if [ -e pid ] && kill -0 "$(cat pid)" 2>/dev/null; then
    echo "process $(cat pid) runs it already" >&2
    return 1
  fi
  rm -f pid
  $FETCH "$(cat source)" vm.mfd
}

verify() {
  $HELPER verify vm.mfd --die-with-parent >/dev/null
}

# With --detach the helper ends when the VM runs, and leaves no QEMU behind when it does not.
restore() {
  $HELPER restore vm.mfd --running --detach --pid-file pid --die-with-parent --json -- ./qemu >events
}

runs() {
  case $(cat events) in
    *'"event":"vm"'*'"state":"running"'*) kill -0 "$(cat pid)" ;;
    *) return 1 ;;
  esac
}

pipeline() {
  cd "$1" || return 1
  local step status
  for step in fetch verify restore runs; do
    $step 2>log
    status=$?
    if [ $status != 0 ]; then
      rm -f vm.mfd
      echo "$1: FAILED at $step, status $status: $(tail -n 1 log)"
      return 1
    fi
  done
  rm -f vm.mfd
  echo "$1: runs, process $(cat pid)"
}

trap 'kill $(jobs -p) 2>/dev/null; exit 143' TERM
failed=0
running=0
for vm in "$@"; do
  if [ $running -ge "$jobs" ]; then
    wait -n || failed=1
    running=$((running - 1))
  fi
  pipeline "$vm" &
  running=$((running + 1))
done
while [ $running -gt 0 ]; do
  wait -n || failed=1
  running=$((running - 1))
done
exit $failed
