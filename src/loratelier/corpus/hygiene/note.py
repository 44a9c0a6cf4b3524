"""What cleaning found and did, as the manifest records it."""

from pydantic import BaseModel, ConfigDict

NAMED = 200  # findings that are named one by one; all of them are counted


class _Note(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FoundNote(_Note):
    """One private thing in a row: its kind, where it came from, how it begins."""

    row: str
    file: str
    uid: str
    kind: str
    hint: str


class BoilerplateNote(_Note):
    """A line that stands in many conversations."""

    line: str
    conversations: int


class CleaningNote(_Note):
    """Counts of rows or findings, and the first :data:`NAMED` of each that has a place.

    ``languages`` counts rows. ``private`` and ``masked`` count findings by kind; ``stripped`` is
    how many boilerplate lines were taken out. ``left_out`` counts rows by cause.
    """

    languages: dict[str, int] = {}
    private: dict[str, int] = {}
    masked: dict[str, int] = {}
    found: list[FoundNote] = []
    boilerplate: list[BoilerplateNote] = []
    stripped: int = 0
    left_out: dict[str, int] = {}
    quarantined: int = 0

    def lines(self) -> list[str]:
        """Say in lines what was found and done; nothing for nothing."""
        private = (
            f"{kind}: {number} found, {self.masked.get(kind, 0)} masked"
            for kind, number in self.private.items()
        )
        counted = (
            ("rows in " + ", ".join(f"{code} {n}" for code, n in self.languages.items()))
            if self.languages
            else "",
            f"boilerplate: {len(self.boilerplate)} lines found, {self.stripped} taken out"
            if self.boilerplate
            else "",
            f"messages with damaged code quarantined: {self.quarantined}"
            if self.quarantined
            else "",
        )
        left = (f"{cause}: {number} rows left out" for cause, number in self.left_out.items())
        return [*filter(None, counted), *private, *left]
