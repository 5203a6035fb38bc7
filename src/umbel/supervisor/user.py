"""Becoming another user, for those who start as root."""

from __future__ import annotations

import grp
import os
import pwd

from umbel.exceptions import ImproperlyConfigured

__all__ = ["become"]


def become(user: str | None, group: str | None) -> None:
    """Be *user* and *group* from now on, given by name or number; the user's own group if only that is given.

    Raises:
        ImproperlyConfigured: there is no such one, or only root may do this.
    """
    entry = find_user(user) if user else None
    gid = find_group(group) if group else entry.pw_gid if entry else None
    if (entry is None or entry.pw_uid == os.geteuid()) and (gid is None or gid == os.getegid()):
        return
    try:
        if entry is not None:
            os.initgroups(entry.pw_name, gid if gid is not None else entry.pw_gid)
        if gid is not None:
            os.setgid(gid)
        if entry is not None:
            os.setuid(entry.pw_uid)
    except PermissionError as exc:
        raise ImproperlyConfigured(
            f"Only root may become another user, and this is user {os.geteuid()}. Start it as root, or leave out --uid and --gid."
        ) from exc


def find_user(name: str) -> pwd.struct_passwd:
    """Return the entry of a user."""
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        raise ImproperlyConfigured(f"There is no user {name!r} on this machine. Give another with --uid.") from None


def find_group(name: str) -> int:
    """Return the number of a group."""
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ImproperlyConfigured(f"There is no group {name!r} on this machine. Give another with --gid.") from None
