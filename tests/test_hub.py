"""Networks to and from folders and repositories: the Hub's own client, a server on this machine.

The server keeps commits in memory and refuses as the Hub does: by status and X-Error-Code.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import pickle
import re
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, ModelHubMixin, constants
from safetensors import safe_open
from torch import nn

from nonlocalnet import create_model, from_pretrained, hub, load, push_to_hub, save_pretrained
from nonlocalnet.card import Card, card_of, set_card
from nonlocalnet.errors import UserError
from nonlocalnet.weights import save, selftest
from nonlocalnet.weights.published import PUBLISHED

ROOT = Path(__file__).parent.parent
COMMIT = "1" * 40
FILES = ["README.md", "config.json", "model.safetensors"]


@dataclass
class Repositories:
    """The Hub: files of each repository, those refused and why, and every request that came."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    read_only: bool = False
    broken: bool = False
    asked: list[str] = field(default_factory=list)

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if self.broken:
            return 500, {}, b""
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        repo, revision, name = match.groups()
        if repo in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if repo not in self.files:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        if revision not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        head = {"X-Repo-Commit": COMMIT}
        if name not in self.files[repo]:
            return 404, head | {"X-Error-Code": "EntryNotFound"}, b""
        body = self.files[repo][name]
        return 200, head | {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'}, body

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path == "/api/validate-yaml":
            return 200, {}, b"{}"
        if self.read_only:
            return 403, {"X-Error-Message": "you may not"}, b""
        if path == "/api/repos/create":
            told = json.loads(body)
            repo = f"{told['organization']}/{told['name']}"
            self.files.setdefault(repo, {})
            return 200, {}, json.dumps({"url": f"http://127.0.0.1/{repo}"}).encode()
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path)
        assert match, path
        if match[2] == "preupload":
            rows = [
                {"path": row["path"], "uploadMode": "regular", "shouldIgnore": False}
                for row in json.loads(body)["files"]
            ]
            return 200, {}, json.dumps({"files": rows}).encode()
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.files[match[1]][line["value"]["path"]] = content
        where = {"commitUrl": f"http://127.0.0.1/{match[1]}/commit/{COMMIT}", "commitOid": COMMIT}
        return 200, {}, json.dumps(where).encode()


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repositories]:
    """A Hub without anything, and the client pointed at it, with an empty cache."""
    repositories = Repositories()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            path = self.path.partition("?")[0]
            repositories.asked.append(f"{self.command} {path}")
            if self.command == "POST":
                status, headers, body = repositories.post(path, self._body())
            else:
                status, headers, body = repositories.get(path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = _answer  # noqa: N815  # the names that http.server calls

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"]))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *args: Any) -> None:
            pass

    opened = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    _point(monkeypatch, opened.server_port, tmp_path / "cache")
    yield repositories
    opened.shutdown()
    opened.server_close()
    thread.join()


def _point(monkeypatch: pytest.MonkeyPatch, port: int, cache: Path) -> None:
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries again, and waits


def network() -> nn.Module:
    """A small one, awake everywhere, with a full card."""
    torch.manual_seed(0)
    model = create_model("i3d_tiny", 3, non_local=1, pairwise="concatenation", scale=None).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    changes = {"classes": ("a", "b", "ü <c>"), "source": "https://example.org/a_b", "stride": 2}
    set_card(model, dataclasses.replace(card_of(model), **changes, licence="CC-BY-NC-4.0"))
    return model


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert card_of(ours) == card_of(theirs)
    assert not theirs.training


def test_a_folder_gives_the_network_back(tmp_path: Path) -> None:
    model, folder = network(), tmp_path / "new" / "mine"
    save_pretrained(model, folder)
    assert sorted(p.name for p in folder.iterdir()) == FILES
    for way in (from_pretrained, load):
        assert_same(model, way(folder))
    assert_same(model, from_pretrained(str(folder / "model.safetensors"), verify=True))
    assert from_pretrained(folder, num_classes=7).fc.out_features == 7  # type: ignore[union-attr]


def test_nothing_in_a_folder_is_a_pickle(tmp_path: Path) -> None:
    save_pretrained(network(), tmp_path)
    for path in tmp_path.iterdir():
        with pytest.raises((pickle.UnpicklingError, EOFError, ValueError)), path.open("rb") as file:
            pickle.Unpickler(file).load()
    with safe_open(tmp_path / "model.safetensors", "pt") as opened:
        assert set(opened.metadata()) == {"format", "card", "selftest"}


def test_config_is_the_card(tmp_path: Path) -> None:
    model = network()
    save_pretrained(model, tmp_path)
    told = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert told.pop("library_name") == "nonlocalnet"
    assert Card.from_json(json.dumps(told)) == card_of(model)


def test_page_says_what_the_card_says_and_no_more(tmp_path: Path) -> None:
    model = network()
    save_pretrained(model, tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "nonlocalnet"
    assert card.data.pipeline_tag == "video-classification"
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.tags == ["model_hub_mixin", "non-local-neural-networks"]
    assert f"# {tmp_path.name}\n" in card.text.replace("\\_", "_")
    assert card.data.eval_results is None
    count = sum(p.numel() for p in model.parameters()) / 1e6
    for text in (
        f"{count:.3f} M parameters",
        r"3: a, b, ü \<c\>",
        r"1, concatenation: layer2.0",
        "8 frames, stride 2, 32 x 32 pixels",
        "<https://example.org/a_b>",
        "CC-BY-NC-4.0",
    ):
        assert text in card.text.replace("\\_", "_")
    assert not re.search(r"\d\s*%|top-\d", card.text)


@pytest.mark.parametrize(
    ("licence", "id"),
    [("", None), ("Apache-2.0 (the code's)", None), ("MIT", "mit"), ("my\nown: |x|", None)],
)
def test_a_licence_is_claimed_only_where_it_is_known(licence: str, id: str | None) -> None:
    model = create_model("tsm_tiny", 2)
    set_card(model, dataclasses.replace(card_of(model), licence=licence))
    card = hub.OnHub(model).generate_model_card()
    assert card.data.license == id
    assert card.data.tags == ["model_hub_mixin", "temporal-shift-module"]
    assert ("not stated" if not licence else "licence: ") in card.text
    assert all(line.count(" | ") == 1 for line in card.text.splitlines() if line[:3] == "| n")


def test_every_published_licence_and_network_makes_a_page() -> None:
    for licence in {row.licence for row in PUBLISHED.values()}:
        with torch.device("meta"):
            model = create_model("i3d_resnet50", 400, 5)
        set_card(model, dataclasses.replace(card_of(model), licence=licence))
        card = hub.OnHub(model).generate_model_card(repo_id="o/n")
        assert card.text.strip().startswith("# n\n")
        assert "35.402 M parameters" in card.text  # as `nonlocalnet show` prints
        assert 'from_pretrained("o/n")' in card.text
    images = hub.OnHub(create_model("digits", 10)).generate_model_card()
    assert images.data.pipeline_tag == "image-classification"
    assert "frames" not in images.text


def test_a_page_that_one_wrote_in_is_kept(tmp_path: Path) -> None:
    save_pretrained(create_model("c2d_tiny", 2), tmp_path)
    (tmp_path / "README.md").write_text("mine")
    model = network()
    save_pretrained(model, tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert_same(model, from_pretrained(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["classes"][0] == "a"


def test_saving_never_harms_what_is_there(tmp_path: Path) -> None:
    save_pretrained(network(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = network()
    nn.init.constant_(next(broken.parameters()), float("nan"))
    for model, says in (
        (nn.Linear(1, 1), "carries no card"),
        (create_model("c2d_tiny", 2, 1, pairwise=lambda a, b: a @ b.mT), "has no name here"),
        (broken, "no finite numbers"),
    ):
        with pytest.raises(UserError, match=says):
            save_pretrained(model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(UserError, match="cannot write"):
        save_pretrained(network(), tmp_path / "config.json")


def test_self_test_is_compared_unless_told_otherwise(tmp_path: Path) -> None:
    model = network()
    save_pretrained(model, tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-400] + whole[-200:] + whole[-400:-200])  # weights change places
    with pytest.raises(UserError, match="self-test fails"):
        from_pretrained(tmp_path)
    from_pretrained(tmp_path, verify=False)
    from_pretrained(tmp_path, num_classes=7)  # another head gives other numbers anyway
    save(model, path)  # without one
    from_pretrained(tmp_path)
    with pytest.raises(UserError, match="carries no self-test"):
        from_pretrained(tmp_path, verify=True)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**6, 3, 10**6, 64, 64]},
        {"shape": []},
        {"shape": "much"},
        {"classes": "three"},
        {"logits": [[1.0]]},
        {"logits": [["a", "b", "c"], [1, 2, 3]]},
        {"seed": -1},
        {"seed": None},
    ],
)
def test_a_damaged_self_test_is_told(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = selftest.record
    monkeypatch.setattr(selftest, "record", lambda m: json.dumps(json.loads(record(m)) | change))
    save_pretrained(network(), tmp_path)
    with pytest.raises(UserError, match="self-test is damaged"):
        from_pretrained(tmp_path)
    monkeypatch.setattr(selftest, "record", lambda m: "[")
    save_pretrained(network(), tmp_path)
    with pytest.raises(UserError, match="self-test is damaged"):
        from_pretrained(tmp_path, num_classes=3)


def test_to_the_hub_and_back(there: Repositories, tmp_path: Path) -> None:
    model = network()
    url = push_to_hub(model, "me/mine", commit_message="first", token="hf_x")
    assert url.endswith(f"me/mine/commit/{COMMIT}")
    assert sorted(there.files["me/mine"]) == FILES
    page = there.files["me/mine"]["README.md"].decode()
    assert 'from_pretrained("me/mine")' in page
    assert "# mine\n" in page
    there.asked.clear()
    assert_same(model, from_pretrained("me/mine"))
    assert {line.split("/")[-1] for line in there.asked} == {"model.safetensors"}  # and no pickle
    assert_same(model, from_pretrained("me/mine", revision=COMMIT, cache_dir=tmp_path / "other"))
    assert (tmp_path / "other" / "models--me--mine").is_dir()
    there.broken = True  # what was fetched is found without the Hub
    for revision in (None, COMMIT):
        assert_same(model, from_pretrained("me/mine", revision=revision))


def test_pushing_again_keeps_the_page(there: Repositories) -> None:
    push_to_hub(create_model("c2d_tiny", 2), "me/mine")
    there.files["me/mine"]["README.md"] = b"mine"
    model = network()
    push_to_hub(model, "me/mine")
    assert there.files["me/mine"]["README.md"] == b"mine"
    assert_same(model, from_pretrained("me/mine"))


def test_the_library_s_own_calls_work_too(there: Repositories, tmp_path: Path) -> None:
    model = network()
    assert issubclass(hub.OnHub, ModelHubMixin)
    hub.OnHub(model).save_pretrained(tmp_path / "a", push_to_hub=True, repo_id="me/a")
    for name in ("me/a", tmp_path / "a"):
        assert_same(model, hub.OnHub.from_pretrained(name).network)


def test_what_cannot_be_had_is_told_in_a_sentence(there: Repositories, tmp_path: Path) -> None:
    there.gated.add("me/gated")
    there.files["me/other"] = {"pytorch_model.bin": b"a pickle", "config.json": b"[]"}
    there.files["me/stranger"] = {"model.safetensors": b"no such thing"}
    for name, options, says in (
        ("me/gated", {}, "gated: accept its terms at huggingface.co/me/gated"),
        ("me/absent", {}, "has no repository me/absent, or a private one.*log in.*no folder"),
        ("me/other", {}, r"me/other on the Hub has no model\.safetensors"),
        ("me/other", {"revision": "v9"}, "no such branch, tag or commit"),
        ("me/stranger", {}, r"model\.safetensors"),
        ("me/a--b", {}, "cannot be a repository's name"),
    ):
        with pytest.raises(UserError, match=says) as told:
            from_pretrained(name, **options)
        assert "\n" not in str(told.value)
    there.broken = True
    with pytest.raises(UserError, match="me/mine.*500|cannot be reached"):
        from_pretrained("me/mine")
    assert not any("pytorch_model" in line for line in there.asked)


def test_pushing_without_the_right_to(there: Repositories) -> None:
    there.read_only = True
    with pytest.raises(UserError, match=r"me/mine on the Hub: .*403.*right to write"):
        push_to_hub(network(), "me/mine")
    assert not there.files


def test_nothing_is_made_for_a_network_that_cannot_be_saved(there: Repositories) -> None:
    with pytest.raises(UserError, match="carries no card"):
        push_to_hub(nn.Linear(1, 1), "me/mine")
    broken = network()
    nn.init.constant_(next(broken.parameters()), float("nan"))
    with pytest.raises(UserError, match="no finite numbers"):
        push_to_hub(broken, "me/mine")
    with pytest.raises(UserError, match="OWNER/NAME; it came as 'mine'"):
        push_to_hub(network(), "mine")
    assert not there.asked


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nothing listens
        _point(monkeypatch, held.getsockname()[1], tmp_path)
        with pytest.raises(UserError, match=r"cannot be reached \(.*refused.*\), and me/mine is"):
            from_pretrained("me/mine")
        with pytest.raises(UserError, match="me/mine on the Hub: .*refused"):
            push_to_hub(network(), "me/mine")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(UserError, match="cannot be reached"):
            from_pretrained("me/mine")


def test_a_name_that_can_be_nothing(tmp_path: Path) -> None:
    for name in ("slowfast-i3d-nln", "./mine", "a/b/c", "", "/nowhere", Path("runs/mine"), "a/.."):
        with pytest.raises(UserError, match="no file or folder|no model"):
            from_pretrained(name)
    with pytest.raises(UserError, match="no repository of the Hub; leave out revision='v1'"):
        from_pretrained(tmp_path, revision="v1")


def test_a_published_model_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, name = network(), next(iter(PUBLISHED))

    def made(name: str, folder: Path | None) -> Path:
        assert folder == tmp_path
        save(model, tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    monkeypatch.setattr(hub, "ready", made)
    assert_same(model, from_pretrained(name, cache_dir=tmp_path))


def test_without_the_library() -> None:
    script = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "import nonlocalnet\n"
        "try: nonlocalnet.from_pretrained\n"
        "except ImportError as error: print(error)"
    )
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 'pip install "nonlocalnet[hub]"' in said


@pytest.mark.skipif(not (ROOT / "hubconf.py").exists(), reason="an installed package has none")
def test_torch_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    save(model, tmp_path / "mine.safetensors")
    name = next(iter(PUBLISHED))
    save(model, tmp_path / f"{name}.safetensors")  # as if fetched before
    monkeypatch.setenv("NONLOCALNET_HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        where: dict[str, Any] = {"repo_or_dir": str(ROOT), "source": "local"}
        built = torch.hub.load(model="create_model", name="tsm_tiny", num_classes=2, **where)
        loaded = torch.hub.load(**where, model="load", path=tmp_path / "mine.safetensors")
        fetched = torch.hub.load(str(ROOT), "pretrained", name, source="local")
    assert card_of(built).architecture["name"] == "tsm_tiny"
    assert_same(model, loaded)
    assert_same(model, fetched)
