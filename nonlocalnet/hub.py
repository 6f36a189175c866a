"""Networks to and from the Hugging Face Hub, or a folder laid out as a repository of it.

A repository holds model.safetensors, which says all that `load` needs and carries a self-test;
config.json, the same card for readers; and README.md, the page that the Hub shows. Nothing else is
ever fetched from one, a pickle least of all.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from .card import card_of
from .errors import UserError
from .models import IMAGE_MODELS
from .page import LICENCES, page
from .weights import load, selftest
from .weights.download import ready
from .weights.native import save, writable
from .weights.published import PUBLISHED

try:
    from huggingface_hub import HfApi, ModelCard, ModelHubMixin, hf_hub_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # not all are listed
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
except ImportError as error:
    raise ImportError(
        "nonlocalnet.hub needs the Hub's library, which the extra installs:"
        ' pip install "nonlocalnet[hub]"'
    ) from error

WEIGHTS, CONFIG, PAGE = "model.safetensors", "config.json", "README.md"
LOGIN = "log in with `hf auth login` or give token=..."


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    num_classes: int | None = None,
    preset: str | None = None,
    verify: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> nn.Module:
    """A network from the Hub, or from here: in eval mode, with its card.

    Args:
        name_or_path: a file or folder, as `load` takes; else the name of a published model; else
            OWNER/NAME of a repository on the Hub. The first of these that it is, in this order.
        device: where the network goes.
        num_classes: a new head of so many classes, untrained, if the file's has another number.
        preset: for files of other codebases that fit several networks, as of `load`.
        verify: compare with the self-test inside the file. None: where there is one and the head
            is kept, at the cost of two clips of 64 x 64.
        revision: a branch, tag or commit of the repository; None is its main branch.
        token: for private repositories; None is the one of `hf auth login`.
        cache_dir: where downloads are kept, if not in the Hub's cache (published models: ours).

    Raises:
        UserError: nothing of that name, no network to reach it, no right to read it, no
            model.safetensors in it; and what `load` refuses.
    """
    name = os.fspath(name_or_path)
    options: dict[str, Any] = {"device": device, "preset": preset, "verify": verify}
    options["num_classes"] = num_classes
    local = bool(name) and Path(name).exists()
    if local or name in PUBLISHED:
        if revision is not None:
            raise UserError(f"{name} is no repository of the Hub; leave out revision={revision!r}")
        folder = None if cache_dir is None else Path(cache_dir)
        return _load(Path(name) if local else ready(name, folder), **options)
    if isinstance(name_or_path, os.PathLike) or not _may_be_repository(name):
        raise UserError(
            f"there is no file or folder {name!r}; nor is it a published model (`nonlocalnet"
            " weights` lists them) or OWNER/NAME of a repository on the Hub"
        )
    with _told(name, f"; there is no folder of that name either, seen from {Path.cwd()}"):
        # not from_pretrained of the mixin, which wants config.json first, even without a network
        return OnHub._from_pretrained(
            model_id=name,
            revision=revision,
            cache_dir=cache_dir,
            force_download=False,
            local_files_only=False,
            token=token,
            **options,
        ).network


def save_pretrained(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write a network made by `create_model` or `load` as a repository of the Hub would hold it.

    What is there is replaced, file by file when all are complete, but for a README.md, in which
    you may have written. `from_pretrained` and `load` take the folder.

    Raises:
        UserError: a folder that cannot be written, or what `weights.save` refuses.
    """
    folder = Path(folder)
    writable(model, folder / WEIGHTS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".") as made:
            repo_id = f"OWNER/{folder.absolute().name}"
            told = {"repo_id": repo_id} if _may_be_repository(repo_id) else {}
            OnHub(model).save_pretrained(made, model_card_kwargs=told)
            for name in (WEIGHTS, CONFIG, PAGE):
                if name != PAGE or not (folder / PAGE).exists():
                    Path(made, name).replace(folder / name)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}") from error


def push_to_hub(
    model: nn.Module,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
) -> str:
    """Upload a network in one commit and return its address; the repository is made if need be.

    Mind the licence: `card_of(model).licence` is what its page will say. A README.md that is there
    already is kept.

    Args:
        model: a network made by `create_model` or `load`.
        repo_id: OWNER/NAME.
        private: of a new repository; None is the owner's rule, mostly public.
        token: with the right to write; None is the one of `hf auth login`.
        branch: where the commit goes, if not to main.
        create_pr: as a proposal for the repository's owner.
        commit_message: its first line.

    Raises:
        UserError: no network, no right to write there, or what `weights.save` refuses.
    """
    if not _may_be_repository(repo_id):
        raise UserError(f"a repository on the Hub is called OWNER/NAME; it came as {repo_id!r}")
    writable(model, Path(repo_id))  # this and the next before a repository is made
    selftest.record(model)
    with _told(repo_id, "; it takes the right to write there"):
        kept = HfApi(token=token).file_exists(repo_id, PAGE, revision=branch)
        return OnHub(model).push_to_hub(
            repo_id,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
            commit_message=commit_message or "A network of nonlocalnet",
            ignore_patterns=[PAGE] if kept else None,
            model_card_kwargs={"repo_id": repo_id},
        )


class OnHub(
    ModelHubMixin,
    library_name="nonlocalnet",
    pipeline_tag="video-classification",
):
    """A network on its way to or from the Hub, in the form that the Hub's library asks for."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def _save_pretrained(self, save_directory: Path) -> None:
        save(self.network, save_directory / WEIGHTS, prove=True)
        told = {"library_name": "nonlocalnet", **dataclasses.asdict(card_of(self.network))}
        text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
        (save_directory / CONFIG).write_text(text, encoding="utf-8")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> OnHub:
        """`model_kwargs` are the options of `load`, and verify=None as of `from_pretrained`."""
        file = model_id
        if not Path(model_id).exists():
            file = hf_hub_download(
                model_id,
                WEIGHTS,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        return cls(_load(Path(file), **model_kwargs))

    def generate_model_card(
        self, *args: Any, repo_id: str = "OWNER/NAME", **kwargs: Any
    ) -> ModelCard:
        """The page of the repository, from the network's card and nothing else."""
        card = card_of(self.network)
        data = copy(self._hub_mixin_info.model_card_data)
        name = card.architecture.get("name", "")
        if name in IMAGE_MODELS:
            data.pipeline_tag = "image-classification"
        edits = {
            "non-local-neural-networks": card.architecture.get("non_local"),
            "temporal-shift-module": name.startswith("tsm_"),
        }
        data.tags = [*(data.tags or []), *(tag for tag, there in edits.items() if there)]
        data.license = LICENCES.get(card.licence)
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{page(self.network, repo_id)}")


def _may_be_repository(name: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) is not None


def _load(file: Path, *, verify: bool | None = None, **options: Any) -> nn.Module:
    if verify is None:
        verify = _proves(file / WEIGHTS if file.is_dir() else file, options.get("num_classes"))
    return load(file, verify=verify, **options)


def _proves(file: Path, num_classes: int | None) -> bool:
    """Whether a file carries a self-test, and one of a head with so many classes."""
    try:
        with safe_open(file, "np") as opened:
            record = (opened.metadata() or {}).get("selftest")
        return record is not None and num_classes in (None, selftest.parse(record)["classes"])
    except (OSError, SafetensorError):  # another container, or for `load` to refuse
        return False


@contextmanager
def _told(repo: str, more: str) -> Iterator[None]:
    """Turn what goes wrong between here and a repository into one sentence."""
    try:
        yield
    except GatedRepoError:
        text = f"{repo} is gated: accept its terms at huggingface.co/{repo}, then {LOGIN}"
    except RepositoryNotFoundError:
        text = f"the Hub has no repository {repo}, or a private one, for which {LOGIN}{more}"
    except RevisionNotFoundError:
        text = f"{repo} on the Hub has no such branch, tag or commit"
    except LocalEntryNotFoundError as error:
        reason = _first_line(error.__cause__ or error)
        text = f"the Hub cannot be reached ({reason}), and {repo} is not in the cache{more}"
    except EntryNotFoundError:
        text = f"{repo} on the Hub has no {WEIGHTS}; push_to_hub and save_pretrained write one"
    except HFValidationError as error:
        text = f"{repo!r} cannot be a repository's name: {_first_line(error)}"
    except (HTTPError, OSError) as error:  # whatever else the server says, or its silence
        text = f"{repo} on the Hub: {_first_line(error)}{more}"
    else:
        return
    raise UserError(text)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
