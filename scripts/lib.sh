# shellcheck shell=bash
# What scripts/setup.sh is made of. Sourcing it does nothing; tests source it and replace single functions.

CYCLONEDDS_RELEASE=0.10.2
SUPPORTED_PYTHONS="3.10 3.11 3.12 3.13"
# Found missing, these stop the set-up; the optional ones only cost pictures.
REQUIRED="compiler cmake make venv headers cyclonedds"
OPTIONAL="egl gl dri"

say() { printf '%s\n' "$*"; }

# fail MESSAGE...: print to stderr and end the set-up.
fail() {
  printf '\nset-up stopped: %s\n' "$*" >&2
  exit 1
}

# --- the machine -----------------------------------------------------------------------------------------

is_root() { [ "$(id -u)" = 0 ]; }
has_apt() { command -v apt-get >/dev/null 2>&1; }
has_library() { { ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null | grep -q "$1"; }

# Version that apt would install of a package, empty when it knows none.
apt_candidate() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" { print $2 }'; }

# --- Python ----------------------------------------------------------------------------------------------

# "3.11" for an interpreter that runs, nothing otherwise.
python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

python_supported() { case " $SUPPORTED_PYTHONS " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# Print the interpreter to use: NFPO_PYTHON, else the first supported one on PATH.
find_python() {
  local candidate version
  if [ -n "${NFPO_PYTHON:-}" ]; then
    version="$(python_version "$NFPO_PYTHON")"
    python_supported "$version" || fail "NFPO_PYTHON=$NFPO_PYTHON is Python '${version:-that does not run}';" \
      "one of $SUPPORTED_PYTHONS is needed. Set NFPO_PYTHON to such an interpreter."
    printf '%s\n' "$NFPO_PYTHON"
    return
  fi
  for candidate in python3 python3.11 python3.12 python3.10 python3.13; do
    version="$(python_version "$candidate")"
    if python_supported "$version"; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python of the versions $SUPPORTED_PYTHONS was found (python3 is '$(python_version python3)')." \
    "Install one (Debian and Ubuntu: sudo apt-get install python3 python3-venv python3-dev; elsewhere: your" \
    "package manager, conda or pyenv) and set NFPO_PYTHON to it."
}

# --- Cyclone DDS -----------------------------------------------------------------------------------------

# Release number that a prefix's headers state, empty without headers.
cyclonedds_version() {
  sed -n 's/^#define DDS_VERSION "\(.*\)"/\1/p' "$1/include/dds/version.h" 2>/dev/null
}

# Print the library folder of a prefix: lib, lib64 or Debian's multi-arch folder.
cyclonedds_libdir() {
  local folder
  for folder in "$1"/lib/"$(uname -m)"-linux-gnu* "$1"/lib "$1"/lib64; do
    if [ -e "$folder/libddsc.so" ]; then
      printf '%s\n' "$folder"
      return 0
    fi
  done
  return 1
}

# A prefix that is complete and of the 0.10 series. Any other series makes Unitree's firmware and SDK crash.
cyclonedds_usable() {
  [ -x "$1/bin/idlc" ] && cyclonedds_libdir "$1" >/dev/null &&
    case "$(cyclonedds_version "$1")" in 0.10.*) true ;; *) false ;; esac
}

# Print the prefix of Cyclone DDS 0.10: CYCLONEDDS_HOME when set, else one of the usual places.
find_cyclonedds() {
  local prefix
  if [ -n "${CYCLONEDDS_HOME:-}" ]; then
    cyclonedds_usable "$CYCLONEDDS_HOME" || fail "CYCLONEDDS_HOME=$CYCLONEDDS_HOME holds Cyclone DDS" \
      "'$(cyclonedds_version "$CYCLONEDDS_HOME")'; a prefix with bin/idlc, libddsc.so and the headers of" \
      "release 0.10.x is needed. Unset it to use the system's, or point it to such a prefix."
    printf '%s\n' "$CYCLONEDDS_HOME"
    return 0
  fi
  for prefix in /usr /usr/local; do
    if cyclonedds_usable "$prefix"; then
      printf '%s\n' "$prefix"
      return 0
    fi
  done
  return 1
}

# link_cyclonedds FROM TO: a plain prefix of links, because Debian's multi-arch folders are not where the
# Python binding's build looks.
link_cyclonedds() {
  local from=$1 to=$2 libdir header
  libdir="$(cyclonedds_libdir "$from")" || return 1
  rm -rf "$to"
  mkdir -p "$to/lib" "$to/include" "$to/bin"
  ln -s "$libdir"/libddsc.so* "$libdir"/libcycloneddsidl.so* "$to/lib/"
  for header in dds ddsc idl idlc; do
    [ -d "$from/include/$header" ] && ln -s "$from/include/$header" "$to/include/"
  done
  ln -s "$from/bin/idlc" "$to/bin/"
}

cyclonedds_from_source() {
  cat <<TEXT
  git clone --depth 1 --branch $CYCLONEDDS_RELEASE https://github.com/eclipse-cyclonedds/cyclonedds
  cmake -S cyclonedds -B cyclonedds/build -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="\$HOME/.local/cyclonedds-0.10"
  cmake --build cyclonedds/build --parallel --target install
  export CYCLONEDDS_HOME="\$HOME/.local/cyclonedds-0.10"
TEXT
}

# --- system packages -------------------------------------------------------------------------------------

# has_requirement NAME PYTHON
has_requirement() {
  case $1 in
    compiler) command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 ;;
    cmake | make) command -v "$1" >/dev/null 2>&1 ;;
    venv) "$2" -c 'import ensurepip, venv' 2>/dev/null ;;
    headers) "$2" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' 2>/dev/null ;;
    cyclonedds) find_cyclonedds >/dev/null ;;
    egl) has_library libEGL.so.1 ;;
    gl) has_library libGL.so.1 || has_library libOpenGL.so.0 ;;
    dri) has_library libEGL_nvidia || compgen -G '/usr/lib*/dri/swrast_dri.so' >/dev/null || compgen -G '/usr/lib/*/dri/swrast_dri.so' >/dev/null || has_library libgallium ;;
    *) fail "unknown requirement '$1'" ;;
  esac
}

# Names of Debian and Ubuntu packages for a requirement.
apt_packages() {
  local python
  python="python$(python_version "$2")"
  case $1 in
    compiler) echo g++ ;;
    venv) echo "$python-venv" ;;
    headers) echo "$python-dev" ;;
    cyclonedds) echo cyclonedds-dev cyclonedds-tools ;;
    egl) echo libegl1 ;;
    gl) echo libgl1 ;;
    dri) echo libgl1-mesa-dri ;;
    *) echo "$1" ;;
  esac
}

# What a requirement is called outside Debian.
describe_requirement() {
  case $1 in
    compiler) echo "a C++ compiler (package gcc-c++ or gcc)" ;;
    venv) echo "Python's venv and ensurepip modules" ;;
    headers) echo "Python's C headers (package python3-devel; Arch and conda ship them with Python)" ;;
    cyclonedds) echo "Cyclone DDS 0.10.x with its headers and idlc (built from source, below)" ;;
    egl) echo "libEGL, for pictures (package libglvnd-egl, libglvnd or mesa-libEGL)" ;;
    gl) echo "libGL, for pictures (package libglvnd-glx, libglvnd or mesa-libGL)" ;;
    dri) echo "Mesa's software renderer, for pictures (package mesa-dri-drivers or mesa)" ;;
    *) echo "$1" ;;
  esac
}

# missing_requirements PYTHON NAME...: those of the names that this machine lacks, one a line.
missing_requirements() {
  local python=$1 name
  shift
  for name in "$@"; do
    has_requirement "$name" "$python" || echo "$name"
  done
}

# apt has a Cyclone DDS, but of another series (Ubuntu 22.04 has an older one).
apt_lacks_cyclonedds() {
  case "$(apt_candidate cyclonedds-dev)" in 0.10.*) return 1 ;; *) return 0 ;; esac
}

# stop_with_commands PYTHON REQUIREMENT...: say exactly what the user has to run, then end.
stop_with_commands() {
  local python=$1 name packages=() source=0
  shift
  {
    echo
    if has_apt; then
      for name in "$@"; do
        if [ "$name" = cyclonedds ] && apt_lacks_cyclonedds; then
          source=1
        else
          read -r -a names <<<"$(apt_packages "$name" "$python")"
          packages+=("${names[@]}")
        fi
      done
      echo "set-up stopped: system packages are missing, and this user may not install them. Run:"
      echo
      [ ${#packages[@]} -gt 0 ] &&
        echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages[*]}"
    else
      echo "set-up stopped: this system has no apt, so install these with its own package manager"
      echo "(dnf, pacman, zypper, conda), which knows them under the names in brackets:"
      echo
      for name in "$@"; do
        echo "  - $(describe_requirement "$name")"
        [ "$name" = cyclonedds ] && source=1
      done
    fi
    if [ $source = 1 ]; then
      echo
      echo "Cyclone DDS 0.10 is not packaged here. Build it; this needs git, cmake and a compiler, but no root:"
      echo
      cyclonedds_from_source
    fi
    echo
    echo "Then run the same command again. More: docs/installation.md"
  } >&2
  exit 1
}

# ensure_system_packages PYTHON: install what is missing where we may, else stop with the commands.
ensure_system_packages() {
  local python=$1 required optional name packages=()
  # shellcheck disable=SC2086
  required="$(missing_requirements "$python" $REQUIRED)"
  # shellcheck disable=SC2086
  optional="$(missing_requirements "$python" $OPTIONAL)"
  [ -z "$required$optional" ] && return 0
  # A CYCLONEDDS_HOME of the wrong release is the user's to correct; apt would not help.
  [ -n "${CYCLONEDDS_HOME:-}" ] && find_cyclonedds >/dev/null
  if ! has_apt || ! is_root || { [[ $required == *cyclonedds* ]] && apt_cyclonedds_known_wrong; }; then
    # shellcheck disable=SC2086
    [ -n "$required" ] && stop_with_commands "$python" $required $optional
    say "      no off-screen renderer found (missing: $(echo $optional)): pictures are left out"
    return 0
  fi
  for name in $required $optional; do
    read -r -a names <<<"$(apt_packages "$name" "$python")"
    packages+=("${names[@]}")
  done
  install_with_apt "${packages[@]}"
  # shellcheck disable=SC2086
  required="$(missing_requirements "$python" $REQUIRED)"
  # shellcheck disable=SC2086
  [ -z "$required" ] || stop_with_commands "$python" $required
}

# True only when apt's lists are there and offer another series: empty lists prove nothing before an update.
apt_cyclonedds_known_wrong() { [ -n "$(apt_candidate cyclonedds-dev)" ] && apt_lacks_cyclonedds; }

install_with_apt() {
  run_step "apt-get update" "Check the network and apt's sources." apt-get update -q
  run_step "apt-get install $*" "Run the command by hand to see what apt objects to." \
    env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# --- steps and stamps ------------------------------------------------------------------------------------

# Every 20 s say that the step still goes and what the log's last line is. It ends with the set-up, however
# that ends, and holds neither its lock (file descriptor 9) nor its output while asleep.
start_ticker() {
  (
    nap=
    trap '[ -z "$nap" ] || kill "$nap" 2>/dev/null; exit 0' TERM
    while kill -0 $$ 2>/dev/null; do
      sleep 20 9<&- >/dev/null 2>&1 &
      nap=$!
      wait "$nap"
      printf '        %4d s  %s\n' $((SECONDS - $1)) "$(tail -n 1 "$LOG" | tr -d '\r' | cut -c 1-90)"
    done
  ) 9<&- &
  TICKER=$!
}

stop_ticker() {
  [ -n "${TICKER:-}" ] || return 0
  kill "$TICKER" 2>/dev/null || true
  wait "$TICKER" 2>/dev/null || true
  TICKER=
}

# run_step NAME REMEDY COMMAND...: run with its output in $LOG; when it fails show the log's end and the remedy.
run_step() {
  local name=$1 remedy=$2 status=0
  shift 2
  say "      $name"
  printf '\n==> %s: %s\n' "$(date +%H:%M:%S)" "$*" >>"$LOG"
  start_ticker $SECONDS
  "$@" >>"$LOG" 2>&1 </dev/null 9<&- || status=$?
  stop_ticker
  [ $status = 0 ] && return 0
  echo >&2
  tail -n 25 "$LOG" | cut -c 1-240 | sed 's/^/  | /' >&2
  fail "$name failed (status $status). $remedy The whole log: $LOG"
}

# digest FILE_OR_FOLDER... with extra words on stdin: one hash of names, contents and words.
digest() {
  { cat; find "$@" -type f -not -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum; } | sha256sum | cut -d' ' -f1
}
