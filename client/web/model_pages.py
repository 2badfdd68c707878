"""The models installed at this hospital, and the stays whose label one of them doubts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response

from consilium.client.commands.persons import CLINICIAN, STEWARD
from consilium.client.hospital.folder import SiteFolder
from consilium.shared.audit.events import Acted
from consilium.shared.audit.own_log import open_audit
from consilium.shared.errors import ConsiliumError
from consilium.shared.web.application import Visit
from consilium.shared.web.jobs import Jobs

if TYPE_CHECKING:
    from consilium.client.bedside.suspect_labels import Suspect
    from consilium.shared.export.manifest import ModelManifest

PACKAGE = "consilium.client.web"
MODELS = "models"
LISTED = 50


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A folder of an exported model: its manifest if every part fits, else what is wrong."""

    name: str
    manifest: "ModelManifest | None"
    wrong: str


class ModelPages:
    """The pages about models.

    Args:
        folder: the site's; models lie in its folder ``models``.
        jobs: where records are scored.
    """

    def __init__(self, folder: SiteFolder, jobs: Jobs) -> None:
        self._folder, self._jobs = folder, jobs

    def listed(self, visit: Visit) -> Response:
        """Show every installed model, checked as ``consilium-site model`` does."""
        return visit.page(
            PACKAGE,
            "models.html",
            models=[self._checked(place) for place in self._places()],
            place=self._folder.path / MODELS,
            reads=visit.person.role in (STEWARD, CLINICIAN),
        )

    def suspects(self, visit: Visit) -> Response:
        """Show the stays whose label a model doubts most, once they were looked for."""
        name = self._place(visit).name
        return visit.page(
            PACKAGE, "suspects.html", model=name, job=self._jobs.find(f"suspects {name}")
        )

    def look(self, visit: Visit) -> Response:
        """Begin to look for stays whose label a model doubts."""
        place = self._place(visit)
        open_audit(self._folder).append(
            Acted(by=visit.by, act="suspect-labels", subject=place.name[:200])
        )
        self._jobs.start(f"suspects {place.name}", lambda: self._suspects(place), by=visit.by)
        return visit.go(f"/models/{place.name}/suspects")

    def _suspects(self, place: Path) -> "tuple[list[Suspect], int]":
        from consilium.client.bedside.suspect_labels import suspects
        from consilium.client.commands.model import open_own_model
        from consilium.client.records.windows import read_windows
        from consilium.client.sources.registry import open_source

        found = open_own_model(place, self._folder.path, "")
        study = found.trained.study
        source = open_source(self._folder.settings().records(self._folder.path), study)
        names = tuple(found.manifest.outputs)
        return suspects(found.trained, read_windows(source, study), names, most=LISTED)

    def _checked(self, place: Path) -> Installed:
        from consilium.client.commands.model import open_model  # it imports PyTorch

        try:
            found = open_model(place, self._folder.path, "")
        except ConsiliumError as error:
            return Installed(name=place.name, manifest=None, wrong=str(error))
        return Installed(name=place.name, manifest=found.manifest, wrong="")

    def _places(self) -> list[Path]:
        folder = self._folder.path / MODELS
        if not folder.is_dir():
            return []
        return sorted(
            place for place in folder.iterdir() if place.is_dir() and place.name[0] != "."
        )

    def _place(self, visit: Visit) -> Path:
        """Return the folder of the model in the path: one of those there are, and no other path.

        Raises:
            HTTPException: there is none of this name.
        """
        for place in self._places():
            if place.name == visit.parts["name"]:
                return place
        raise HTTPException(404, "No model of this name is installed.")
