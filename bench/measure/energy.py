"""Energy of the processors, where the kernel tells it: Intel's and AMD's running average power limit (RAPL)."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
MICRO = 1e-6


def packages(folder: Path = POWERCAP) -> list[Path]:
    """The counters of whole processors, of which the ones below them are parts."""
    return sorted(folder.glob("intel-rapl:?")) if folder.is_dir() else []


class Energy:
    """Joules that all processors used since this was made."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._packages = packages(folder)
        self._before = self._read()

    def joules(self) -> float | None:
        """None where the machine does not tell, or not to this user."""
        after = self._read()
        if not after or after.keys() != self._before.keys():
            return None
        return sum((end - self._before[file]) % self._range(file) for file, end in after.items()) * MICRO

    def _read(self) -> dict[Path, int]:
        """Microjoules of each package; nothing where one cannot be read."""
        try:
            return {package: int((package / "energy_uj").read_text()) for package in self._packages}
        except (OSError, ValueError):
            return {}

    @staticmethod
    def _range(package: Path) -> int:
        """Microjoules after which the counter begins again at zero."""
        return int((package / "max_energy_range_uj").read_text()) + 1
