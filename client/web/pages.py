"""The pages of a site, who may see each, and which function each of their forms calls."""

from consilium.client.commands.persons import CLINICIAN, IT, STEWARD, site_users
from consilium.client.hospital.folder import SiteFolder
from consilium.client.web.care_pages import CarePages
from consilium.client.web.model_pages import ModelPages
from consilium.client.web.roster_pages import RosterPages
from consilium.client.web.study_pages import StudyPages
from consilium.shared.web.application import Application, Page
from consilium.shared.web.back_off import BackOff
from consilium.shared.web.jobs import Jobs
from consilium.shared.web.users import Users

ALL = frozenset((STEWARD, CLINICIAN, IT))
STEWARDS = frozenset((STEWARD,))
CHECKS = frozenset((STEWARD, IT))
READS_PATIENTS = frozenset((STEWARD, CLINICIAN))
OPERATES = frozenset((IT,))


def site_application(
    folder: SiteFolder, *, users: Users | None = None, back_off: BackOff | None = None
) -> Application:
    """Return the application that serves an enrolled site's pages.

    Args:
        folder: the site's.
        users: who may sign in; those of the folder unless given.
        back_off: how wrong passwords wait.

    Raises:
        SettingsError: the site is not enrolled.
    """
    jobs = Jobs()
    studies, models, care = (
        StudyPages(folder, jobs), ModelPages(folder, jobs), CarePages(folder, jobs),
    )  # fmt: skip
    rosters = RosterPages(folder)
    one = "/studies/{digest}"
    hospitals = f"{one}/hospitals"
    return Application(
        f"Consilium at {folder.owner()}",
        users or site_users(folder),
        [
            Page(path="/overview", roles=ALL, answer=care.overview, link="Overview"),
            Page(path="/studies", roles=ALL, answer=studies.listed, link="Studies"),
            Page(path=one, roles=ALL, answer=studies.one),
            Page(path=f"{one}/report", roles=ALL, answer=studies.report),
            Page(path=f"{one}/check", roles=CHECKS, answer=studies.check, changes=True),
            Page(path=f"{one}/approve", roles=STEWARDS, answer=studies.approve, changes=True),
            Page(path=f"{one}/refuse", roles=STEWARDS, answer=studies.refuse, changes=True),
            Page(path=f"{one}/withdraw", roles=STEWARDS, answer=studies.withdraw, changes=True),
            Page(path=hospitals, roles=ALL, answer=rosters.one),
            Page(path=f"{hospitals}/agree", roles=STEWARDS, answer=rosters.agree, changes=True),
            Page(path=f"{hospitals}/refuse", roles=STEWARDS, answer=rosters.refuse, changes=True),
            Page(path=f"{hospitals}/keys", roles=STEWARDS, answer=rosters.accept_keys,
                 changes=True),
            Page(path="/budget", roles=ALL, answer=care.budget, link="Privacy budget"),
            Page(path="/models", roles=ALL, answer=models.listed, link="Models"),
            Page(path="/models/{name}/suspects", roles=READS_PATIENTS, answer=models.suspects),
            Page(path="/models/{name}/suspects", roles=READS_PATIENTS, answer=models.look,
                 changes=True),
            Page(path="/opt-outs", roles=ALL, answer=care.opt_outs, link="Opt-outs"),
            Page(path="/audit", roles=ALL, answer=care.audit, link="Audit log"),
            Page(path="/audit/verify", roles=CHECKS, answer=care.verify, changes=True),
            Page(path="/machine", roles=OPERATES, answer=care.machine, link="This machine"),
            Page(path="/machine/test", roles=OPERATES, answer=care.test_machine, changes=True),
        ],
        back_off=back_off,
    )  # fmt: skip
