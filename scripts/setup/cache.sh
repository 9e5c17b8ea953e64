# shellcheck shell=bash
# Where downloaded tools are kept, and how they get there. Sourced by the other scripts in this folder.
#
# The cache lies outside the checkout, so that a fresh clone finds what an earlier one fetched.

# Prints the cache directory.
cache_directory() {
  if [[ -n ${STRONGROOM_CACHE:-} ]]; then
    printf '%s\n' "$STRONGROOM_CACHE"
  else
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/strongroom"
  fi
}

# install_once TARGET COMMAND… : runs COMMAND with an empty directory as its last argument and makes that directory
# TARGET. Does nothing when TARGET is there. Nobody ever sees a half-filled TARGET: it appears by one rename, and a
# lock keeps two scripts from doing the work twice.
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

# npm_fetch DIRECTORY PACKAGE@VERSION… : installs npm packages under DIRECTORY/node_modules. Install scripts of packages
# are not run; the callers run by name what they need.
npm_fetch() {
  local directory=$1
  shift
  if ! command -v npm >/dev/null; then
    echo "error: npm is needed to fetch $*. Install Node.js 18 or newer, then try again." >&2
    return 1
  fi
  npm install --prefix "$directory" --no-save --no-audit --no-fund --no-update-notifier \
    --ignore-scripts --loglevel=error "$@" </dev/null >&2
}
