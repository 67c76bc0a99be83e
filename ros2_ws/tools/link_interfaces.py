"""Link the built interface packages into the virtual environment, where the ROS wheels keep theirs.

After this, any Python of the environment imports them with no shell set-up: the wheels' bootstrap puts
`<environment>/lib` into LD_LIBRARY_PATH, and that is where ROS looks for a message's type support at run time.
A ROS installation needs none of it, because its setup.bash sets the paths.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
from pathlib import Path


def link(source: Path, target: Path) -> None:
    """Make `target` a link to `source`, replacing an older link but never a real file or folder."""
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        sys.exit(f"{target} exists and is not a link; remove it, then build again")
    target.symlink_to(source)


def link_package(install: Path, package: str) -> int:
    """Link libraries and the Python module of `install/<package>`; return how many links were made."""
    prefix = (install / package).resolve()
    libraries = sorted(prefix.glob(f"lib/lib{package}__*.so"))
    modules = sorted(prefix.glob(f"lib/python*/site-packages/{package}"))
    if not libraries or len(modules) != 1:
        sys.exit(f"{prefix} holds no complete build of {package}: remove ros2_ws/install and build again")
    for library in libraries:
        link(library, Path(sys.prefix) / "lib" / library.name)
    link(modules[0], Path(sysconfig.get_path("purelib")) / package)
    return len(libraries) + 1


def main() -> None:
    """Command line: link_interfaces.py INSTALL PACKAGE..."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("install", type=Path, help="install folder of the workspace")
    parser.add_argument("packages", nargs="+", help="interface packages to link")
    arguments = parser.parse_args()
    if sys.prefix == sys.base_prefix:
        sys.exit("link_interfaces.py runs inside a virtual environment only")
    for package in arguments.packages:
        count = link_package(arguments.install, package)
        print(f"linked {count} files of {package} into {sys.prefix}")


if __name__ == "__main__":
    main()
