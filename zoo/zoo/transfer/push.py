"""Publication of saved models in a repository of the Hugging Face Hub.

It takes one commit. The files of a model are replaced, those of an older model that the new one has not are removed,
and whatever else the repository holds (pictures, other formats) stays.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from zoo.hub.address import PREFIX, parse_address
from zoo.saved.manifest import ORIGIN, read_origin
from zoo.saved.read import README, open_saved
from zoo.saved.write import write_folder
from zoo_core.boundary import checked
from zoo_core.config import TOKENIZER_FOLDER
from zoo_core.errors import InputError, SaveError, describe

if TYPE_CHECKING:
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["push_to_hub"]


@checked
def push_to_hub(
    model: DualEncoder | str | Path,
    repo: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload a model saved by zoo",
    token: str | None = None,
) -> str:
    """Write a model to a repository of the Hugging Face Hub, which is made if there is none.

    All files come in one commit: whoever loads the model meanwhile has the old one or the new one.

    Args:
        model: a model that `zoo.build` made, or a folder that `zoo.save` wrote, whose files are all read and compared
            with their digests first.
        repo: `"organisation/name"`.
        private: whether a new repository is; as the account says where None. One that is there stays as it is.
        revision: branch to write to, made from the main branch if there is none; the main branch where None.
        message: the title of the commit.
        token: of the Hub; that of `hf auth login`, or of the environment variable `HF_TOKEN`, where None.

    Returns:
        `"hf-hub:organisation/name@commit"`, which loads this very model ever after.

    Raises:
        InputError: `repo` is no name of a repository; or as `zoo.save`.
        CheckpointError: the folder is no saved model, or was changed since.
        SaveError: the Hub did not take it; the repository holds what it held before.
    """
    if parse_address(repo) != (repo, None):
        raise InputError(f"repo must be 'organisation/name', found {describe(repo)}; give a branch as revision=")
    is_folder = isinstance(model, str | Path)
    with nullcontext(None) if is_folder else TemporaryDirectory() as scratch:
        if is_folder:
            folder = Path(model)
            open_saved(folder).check_files(all_bytes=True)
        else:
            folder = Path(scratch or "") / repo.partition("/")[2]
            write_folder(model, folder, complete=True, address=f"{PREFIX}{repo}")
        return f"{PREFIX}{repo}@{_commit(folder, repo, private, revision, message, token)}"


def _commit(
    folder: Path, repo: str, private: bool | None, revision: str | None, message: str, token: str | None
) -> str:
    """Write the files of a folder, and return the commit that holds them."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    names = [*read_origin(folder).files, ORIGIN, *([README] if (folder / README).is_file() else [])]
    api = HfApi(token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        # of an older model; only the folder of the tokenizer holds files of other names
        published = api.list_repo_files(repo, revision=revision)
        stale = [name for name in published if name.startswith(f"{TOKENIZER_FOLDER}/") and name not in names]
        operations = [
            *(CommitOperationAdd(name, folder / name) for name in names),
            *(CommitOperationDelete(name) for name in stale),
        ]
        return api.create_commit(repo, operations, commit_message=message, revision=revision).oid
    except Exception as error:  # whatever its HTTP client raises
        first_line = next(iter(str(error).splitlines()), "")
        cause = f"{type(error).__name__}: {first_line}".rstrip(".: ")
        raise SaveError(
            f"{repo} was not written to: {cause}. The Hub holds what it held before; log in with `hf auth login` if "
            "that is what it asks for, and push again"
        ) from error
