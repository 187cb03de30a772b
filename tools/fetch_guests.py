"""Fetches real guests from Debian's packages, without root: U-Boot, the arm64 kernel and a busybox
initramfs.

apt uses a private state directory in the cache, so the package lists and the architecture settings
of the machine do not change. The machine's own Debian sources and keyrings are used. The files in
the cache are:

    u-boot.bin       U-Boot for the QEMU ``virt`` board (package u-boot-qemu)
    Image            the kernel that linux-image-arm64 depends on, as a plain arm64 Image
    initramfs.cpio   busybox-static:arm64, an /init (``autorun`` on the command line: self-test, then power-off),
                     and a few kernel modules
    versions.json    package versions and SHA-256 of each file
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import make_initramfs

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "guests"
PRODUCTS = ("u-boot.bin", "Image", "initramfs.cpio")
MODULES = (
    "dummy",
    "crc-itu-t",
    "softdog",
)  # without dependencies on other modules; the last module uses kernel timers
SOURCES = Path("/etc/apt/sources.list")
SOURCE_PARTS = Path("/etc/apt/sources.list.d")
DEBIAN_URI = re.compile(
    r"https?://\S+/debian(-security)?/?(\s|$)|^URIs:\s*(mirror|file|copy|cdrom):", re.MULTILINE
)


class FetchError(Exception):
    """An error for the user, as one line."""


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """Run a command and return its standard output; FetchError with the end of its standard error
    if it fails."""
    try:
        done = subprocess.run(
            [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise FetchError(
            f"{command[0]} is missing: this needs a Debian machine (apt, dpkg)"
        ) from None
    if done.returncode:
        tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise FetchError(f"{' '.join(map(str, command[-3:]))} failed: {' / '.join(tail)}")
    return done.stdout


def debian_sources() -> dict[str, str]:
    """The machine's Debian package sources, by file name in a private sources.list.d; third-party
    sources are left out."""
    found: dict[str, str] = {}
    if SOURCES.is_file():
        all_lines = SOURCES.read_text().splitlines()
        lines = [line for line in all_lines if line.startswith("deb ") and DEBIAN_URI.search(line)]
        if lines:
            found["machine.list"] = (
                "\n".join(re.sub(r"arch=\S+?(?=[\s\]])", "", line) for line in lines) + "\n"
            )
    for part in sorted(SOURCE_PARTS.glob("*.sources")):
        stanzas = [
            text for text in re.split(r"\n\s*\n", part.read_text()) if DEBIAN_URI.search(text)
        ]
        if stanzas:
            found[part.name] = (
                "\n\n".join(re.sub(r"(?m)^Architectures:.*\n", "", text) for text in stanzas) + "\n"
            )
    if not found:
        raise FetchError(f"no Debian package source in {SOURCES} or {SOURCE_PARTS}")
    return found


class Apt:
    """apt for arm64 packages, with a private state directory."""

    def __init__(self, home: Path) -> None:
        self.downloads = home / "debs"
        parts = home / "sources.list.d"
        shutil.rmtree(parts, ignore_errors=True)
        for folder in (
            home / "state/lists/partial",
            home / "cache/archives/partial",
            self.downloads,
            parts,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        (home / "status").touch()
        for name, text in debian_sources().items():
            (parts / name).write_text(text)
        options = {
            "Dir::State": home / "state",
            "Dir::State::status": home / "status",
            "Dir::Cache": home / "cache",
            "Dir::Etc::SourceList": "/dev/null",
            "Dir::Etc::SourceParts": parts,
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Sandbox::User": "root",  # as root: do not change to the user _apt, who may not write here
            "APT::Get::List-Cleanup": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
        }
        self._options = [
            word for key, value in options.items() for word in ("-o", f"{key}={value}")
        ]

    def update(self) -> None:
        run(["apt-get", *self._options, "-q", "update"])

    def show(self, package: str) -> dict[str, str]:
        """Fields of the newest version of a package."""
        text = run(["apt-cache", *self._options, "--no-all-versions", "show", package])
        return dict(
            line.split(": ", 1) for line in text.splitlines() if re.match(r"[A-Z][\w-]*: ", line)
        )

    def download(self, package: str) -> tuple[Path, str]:
        """The package's .deb (kept from an earlier run when its version is the same) and its
        version."""
        fields = self.show(package)
        name = f"{package}_{fields['Version'].replace(':', '%3a')}_{fields['Architecture']}.deb"
        if not (self.downloads / name).exists():
            run(["apt-get", *self._options, "-q", "download", package], cwd=self.downloads)
        return self.downloads / name, fields["Version"]


def kernel_package(apt: Apt) -> str:
    """The versioned image package that the metapackage linux-image-arm64 depends on."""
    match = re.match(r"linux-image-\S+", apt.show("linux-image-arm64").get("Depends", ""))
    if not match:
        raise FetchError("linux-image-arm64 does not name an image package")
    return match.group(0)


def plain_image(data: bytes) -> bytes:
    """The plain arm64 Image of a vmlinuz (Linux Documentation/arm64/booting.rst: magic ARM\x64 at
    56)."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if data[56:60] != b"ARM\x64":
        raise FetchError("the kernel is not a plain or gzipped arm64 Image")
    return data


def module(tree: Path, name: str) -> bytes:
    """A kernel module by name; a .ko.xz of Debian is decompressed."""
    for path in sorted(tree.rglob(f"{name}.ko*")):
        data = path.read_bytes()
        return lzma.decompress(data) if path.suffix == ".xz" else data
    raise FetchError(f"module {name} is not in the kernel package")


def extract(deb: Path, into: Path) -> Path:
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    run(["dpkg-deb", "-x", deb, into])
    return into


def fetch(cache: Path) -> dict[str, object]:
    """Fill the cache; returns the data of versions.json."""
    apt = Apt(cache / "apt")
    apt.update()
    packages: dict[str, str] = {}

    def unpacked(package: str) -> Path:
        deb, packages[package] = apt.download(package)
        return extract(deb, cache / "unpacked" / package)

    u_boot = unpacked("u-boot-qemu") / "usr/lib/u-boot/qemu_arm64/u-boot.bin"
    kernel = unpacked(kernel_package(apt))
    busybox_root = unpacked("busybox-static")
    busybox = next(
        path
        for path in (busybox_root / "bin/busybox", busybox_root / "usr/bin/busybox")
        if path.exists()
    )
    (cache / "u-boot.bin").write_bytes(u_boot.read_bytes())
    (cache / "Image").write_bytes(plain_image(next(kernel.glob("boot/vmlinuz-*")).read_bytes()))
    modules = {f"{name}.ko": module(kernel, name) for name in MODULES}
    (cache / "initramfs.cpio").write_bytes(make_initramfs.initramfs(busybox.read_bytes(), modules))
    shutil.rmtree(cache / "unpacked")
    sums = {name: hashlib.sha256((cache / name).read_bytes()).hexdigest() for name in PRODUCTS}
    return {"packages": packages, "sha256": sums}


def cached(cache: Path) -> dict[str, object] | None:
    """The versions of an earlier run, if its files are complete and unchanged; else None."""
    try:
        versions: dict[str, object] = json.loads((cache / "versions.json").read_text())
        sums = versions["sha256"]
        assert isinstance(sums, dict)
        intact = all(
            hashlib.sha256((cache / name).read_bytes()).hexdigest() == sums[name]
            for name in PRODUCTS
        )
    except (OSError, ValueError, KeyError, AssertionError):
        return None
    return versions if intact else None


def renew(cache: Path, versions: dict[str, object]) -> None:
    """Replace the scripts in the cached initramfs by the present ones; nothing is fetched."""
    path = cache / "initramfs.cpio"
    archive = make_initramfs.renew(path.read_bytes())
    sums = versions["sha256"]
    assert isinstance(sums, dict)
    if archive != path.read_bytes():
        path.write_bytes(archive)
        sums[path.name] = hashlib.sha256(archive).hexdigest()
        (cache / "versions.json").write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Fetch U-Boot, Linux and an initramfs from Debian's packages."
    )
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="folder for the guests (default: .cache/guests)"
    )
    parser.add_argument("--refresh", action="store_true", help="fetch newer versions from Debian")
    options = parser.parse_args(argv)
    cache = options.cache.resolve()
    versions = None if options.refresh else cached(cache)
    try:
        if versions is not None:
            renew(cache, versions)
        if versions is None:
            cache.mkdir(parents=True, exist_ok=True)
            versions = fetch(cache)
            (cache / "versions.json").write_text(
                json.dumps(versions, indent=1, sort_keys=True) + "\n"
            )
    except (FetchError, OSError) as error:
        print(f"fetch_guests: {error}", file=sys.stderr)
        return 1
    packages = versions["packages"]
    assert isinstance(packages, dict)
    for package, version in packages.items():
        print(f"{package} {version}")
    for name in PRODUCTS:
        print(f"{cache / name}  {(cache / name).stat().st_size // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
