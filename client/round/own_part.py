"""This site's own part of the run it is in: as saved, and as the last vector would change it."""

from consilium.client.hospital.personal_store import Array, Kept, PersonalStore
from consilium.shared.study.definition import Study


class OwnPart:
    """What is kept of one run at a time; a change counts once it is saved.

    Args:
        study: the approved study; most leave nothing to a site.
        store: the site's files.
    """

    def __init__(self, study: Study, store: PersonalStore) -> None:
        self._digest, self._store, self._run = study.digest, store, b""
        self._any = study.personalisation.active or study.training.control_variates
        self._unsaved: dict[str, Array] = {}
        self.kept: Kept = {}

    def recall(self, study_hash: bytes) -> bool:
        """Take up what is kept of this run, and drop changes of a round that came to nothing.

        Returns:
            Whether another run was taken up.

        Raises:
            SettingsError: it cannot be read.
        """
        self._unsaved = {}
        if not self._any or self._run == study_hash:
            return False
        self.kept = self._store.load(self._digest, study_hash)
        self._run = study_hash
        return True

    def change(self, name: str, value: Array) -> None:
        """Note what the round that is being computed makes of a part."""
        self._unsaved[name] = value

    def save(self) -> None:
        """Save what changed.

        Raises:
            SettingsError: it cannot be saved; what was kept before still is.
        """
        if self._unsaved:
            changed = {**self.kept, **self._unsaved}
            self._store.save(self._digest, self._run, changed)
            self.kept, self._unsaved = changed, {}
