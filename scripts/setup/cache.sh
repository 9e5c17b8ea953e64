# shellcheck shell=bash
# Functions for the cache of downloaded tools. Sourced by the other scripts in this directory.
#
# The cache is outside the checkout, so that new clones can use it.

# Prints the cache directory.
cache_directory() {
  if [[ -n ${STRONGROOM_CACHE:-} ]]; then
    printf '%s\n' "$STRONGROOM_CACHE"
  else
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/strongroom"
  fi
}

# install_once TARGET COMMAND…: runs COMMAND with a new empty directory as its last argument, and renames that
# directory to TARGET. Does nothing if TARGET exists. The rename makes TARGET appear complete, and a lock
# prevents concurrent installations.
install_once() {
  local target=$1 parent staging
  shift
  parent=$(dirname "$target")
  mkdir -p "$parent"
  (
    if command -v flock >/dev/null; then
      flock 9
    fi
    if [[ ! -e $target ]]; then
      staging=$(mktemp -d "$parent/.installing.XXXXXX")
      trap 'rm -rf "$staging"' EXIT
      "$@" "$staging"
      chmod 755 "$staging"
      mv "$staging" "$target"
    fi
  ) 9>"$parent/.lock"
}

# npm_fetch DIRECTORY PACKAGE@VERSION…: installs npm packages under DIRECTORY/node_modules. Install scripts of
# packages are disabled; callers run the required ones explicitly.
npm_fetch() {
  local directory=$1
  shift
  if ! command -v npm >/dev/null; then
    echo "error: npm is required to download $*. Install Node.js 18 or newer, then try again." >&2
    return 1
  fi
  npm install --prefix "$directory" --no-save --no-audit --no-fund --no-update-notifier \
    --ignore-scripts --loglevel=error "$@" </dev/null >&2
}
