"""What a sweep says when it ends: how the study stands, where its files are, and the commands that come next."""

from collections.abc import Iterator

from sweeper import text
from sweeper.results import status
from sweeper.store import studies
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.terminal.output import print_message


def say(folder: StudyFolder, command: str, reason: str = "") -> None:
    """Tell on stderr how the study stands, where its files are, and the commands that come next.

    Nothing of a study whose folder is gone: the error that ended the sweep says that.
    """
    if not folder.root.exists():
        return
    one = studies.status_of(folder)
    if reason:
        print_message(reason)
    print_message(f"best:   {status.best(one.best) if one.best else 'no trial completed yet'}")
    print_message(f"files:  {text.relative_path(folder.root)}")
    for line in _broken(one):
        print_message(line)
    print_message(f"resume: {command}")
    if one.best:
        print_message(f"submit: sweep best {folder.name} --export submission")
    if folder.sync_state.exists():
        print_message(f"browse: sweep ui {folder.name}")


def _broken(one: studies.StudyStatus) -> Iterator[str]:
    """Where to read why trials failed, when none did better."""
    failed = [result for result in one.results if result.state == "FAILED"]
    if failed and not one.best:
        log = RunFolder(one.study.trial(failed[-1].number).root).log
        yield f"failed: {failed[-1].error}; its log is {text.relative_path(log)}"
