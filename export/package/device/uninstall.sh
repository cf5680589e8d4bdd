#!/usr/bin/env bash
# Removes what install.sh installed: the service and the folder. Masks that the service wrote are in PREFIX/out: take
# --keep-output to leave that folder.
#
# Usage: PREFIX/uninstall.sh [--keep-output]
set -euo pipefail
prefix=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
keep=false
case ${1:-} in
  '') ;;
  --keep-output) keep=true ;;
  -h | --help) sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//' && exit 0 ;;
  *) echo "error: there is no option $1; there is --keep-output." >&2 && exit 1 ;;
esac
if [[ ! -f $prefix/installed.txt || $(head -n 1 "$prefix/installed.txt") != "$prefix" ]]; then
  echo "error: $prefix was not made by install.sh, so nothing is removed." >&2
  exit 1
fi
tail -n +2 "$prefix/installed.txt" | while read -r unit; do
  systemctl disable --now "${unit##*/}"
  rm -f "$unit"
  systemctl daemon-reload
done
if $keep && [[ -d $prefix/out ]]; then
  find "$prefix" -mindepth 1 -maxdepth 1 ! -name out -exec rm -rf {} +
else
  rm -rf "$prefix"
fi
echo "removed: $prefix"
