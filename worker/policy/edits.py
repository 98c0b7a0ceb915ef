"""Changes by hand: a channel that is neither what Usher left nor what it should be."""

from worker.policy.settings import NAMES, Settings, changes, said


def edits(
    have: Settings, left: Settings | None, aimed: Settings | None, want: Settings
) -> Settings:
    """Return what somebody changed by hand since Usher last set the channel.

    Only settings that Usher looks after count. Whop may make something else of what was sent (a
    cooldown cut to its largest): what it answered is `left`, and that is nobody's edit.
    """
    if left is None or aimed is None:
        return Settings()
    moved = changes(have, left)
    wrong = changes(want, have)
    names = [name for name in NAMES if name in moved and name in wrong and name in said(aimed)]
    return Settings(**{name: getattr(have, name) for name in names})


def untouched(
    have: Settings, left: Settings | None, aimed: Settings | None, want: Settings
) -> bool:
    """Say whether nothing happened since Usher set out for just this, and Whop left it otherwise.

    To send it again would change nothing.
    """
    if left is None or aimed is None:
        return False
    return not changes(left, have) and not changes(aimed, want) and not changes(want, aimed)
