"""Download files of a model hub, or find them in its cache on this machine; each failure is one sentence.

Only for a model that the user named. huggingface_hub does the work: HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and
its login apply, and its progress bar stands on stderr when that is a terminal.
"""

import errno
import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from clipact.errors import DownloadError

OFFLINE_WAYS = "What works without a network: mini, a model's folder, open_clip:local-dir:FOLDER, transformers:FOLDER"


CARD = "README.md"  # of a repository


class AbsentFileError(DownloadError):
    """The hub answered: the repository has no such file."""


def hub_file(repository: str, *names: str) -> Path:
    """The first of `names` that the repository has; DownloadError says why none can be had.

    The hub is asked first, once and briefly: hf_hub_download alone tries an unreachable hub for 23 seconds. When it
    does not answer, or refuses, a file that was fetched before still serves.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    # Any exception: the HTTP library underneath, and with it the errors, changed with each major version of the hub's.
    for name in names:
        try:
            get_hf_file_metadata(hf_hub_url(repository, name), timeout=10)
        except EntryNotFoundError:
            continue
        except Exception as error:
            if (cached := _cached_file(repository, names)) is not None:
                return cached
            unreachable = f"the hub {constants.ENDPOINT} cannot be reached for {repository} ({_first_line(error)})"
            raise _download_error(error, repository, otherwise=unreachable) from error
        try:
            return Path(hf_hub_download(repository, name))
        except Exception as error:
            broken_off = (
                f"the download of {name} from {repository} broke off ({_first_line(error)}): run the command again"
            )
            raise _download_error(error, repository, otherwise=broken_off) from error
    raise AbsentFileError(f"{repository} on the hub has no {' or '.join(names)}: it holds no model that can be read")


def hub_folder(repository: str, needed: Sequence[Sequence[str]], *, optional: Sequence[str] = ()) -> Path:
    """The cache's folder with a repository's files: the first of each group of `needed`, and what it has of `optional`.

    The optional ones are fetched first: where the last one needed lies in the cache, all that there was lies there too.
    """
    for name in optional:
        try:
            hub_file(repository, name)
        except AbsentFileError:
            continue
        except DownloadError:
            if _cached_file(repository, needed[-1]) is None:
                raise
    return [hub_file(repository, *names) for names in needed][-1].parent


def card_license(folder: Path) -> str:
    """The licence in the front matter of the card that lies in a repository's folder; "" where none is named.

    A licence of its own name ("other" with license_name) goes by that name.
    """
    from huggingface_hub import metadata_load

    try:
        table = metadata_load(folder / CARD) or {}
    except Exception:  # no card, or one that says nothing to a machine: YAML has errors of its own
        return ""
    said = table.get("license")
    if said == "other":
        said = table.get("license_name") or said
    words = [word for word in (said if isinstance(said, list) else [said]) if isinstance(word, str)]
    return "".join(filter(str.isprintable, " ".join(", ".join(words).split())))


def file_sha256(path: Path) -> str:
    """The hex sha256 of a file; one in the hub's cache is named by it there, and not read."""
    if re.fullmatch("[0-9a-f]{64}", named := path.resolve().name):
        return named
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached_file(repository: str, names: Sequence[str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in names:
        with suppress(HFValidationError):
            if isinstance(path := try_to_load_from_cache(repository, name), str):
                return Path(path)
    return None


def _download_error(error: Exception, repository: str, *, otherwise: str) -> DownloadError:
    from huggingface_hub import constants, errors

    hub, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    match error:
        case errors.OfflineModeIsEnabled():
            cause = f"HF_HUB_OFFLINE is set and {repository} is not in the cache {cache}"
        case errors.HFValidationError():
            cause = f"{repository!r} cannot be the name of a repository; they read ORG/NAME"
        case errors.GatedRepoError():
            cause = f"{repository} is gated: accept its terms at {hub}/{repository}, then run `hf auth login`"
        case errors.RepositoryNotFoundError():
            cause = f"{hub} shows no {repository}: check the name or, if it is private, run `hf auth login`"
        case errors.HfHubHTTPError():
            cause = f"{hub} answered {error.response.status_code} for {repository}: try again later"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            cause = f"the disk is full: no room for {repository} in {cache}; free some, or set HF_HOME"
        case OSError(errno=int()) if not isinstance(error, ConnectionError):
            cause = f"the cache {cache} cannot be used ({error.strerror}): set HF_HOME to a folder that can be written"
        case _:
            cause = otherwise
    return DownloadError(f"{cause}. {OFFLINE_WAYS}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
