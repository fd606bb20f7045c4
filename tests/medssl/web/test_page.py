"""The page in a real Chromium: from a file to the result that is shown and saved, and not a word to any other machine.

Without a Chromium these tests are skipped, and say so: `apt-get install chromium`.
"""

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from browser import Browser, find_chromium
from served import Served
from test_api import case_of, predicted

from medssl.web.limits import Limits

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")
VENDOR = Path(__file__).parents[3] / "medssl/web/vendor"
ENDED = "document.getElementById('work').hidden && !document.getElementById('result').hidden"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


def ready(browser: Browser, served: Served, **how: object) -> None:
    browser.open(f"{served.url}/", **how)  # type: ignore[arg-type]
    browser.until("!document.getElementById('ask').hidden")


def choose(browser: Browser, model: str) -> None:
    browser.evaluate(
        f"(() => {{ const model = document.getElementById('model'); model.value = '{model}';"
        " model.dispatchEvent(new Event('change')) }})()".replace("}}", "}")
    )


def text(browser: Browser, name: str) -> str:
    return str(browser.evaluate(f"document.getElementById('{name}').innerText"))


def click(browser: Browser, selector: str) -> None:
    browser.evaluate(f"document.querySelector('{selector}').click()")


def saved(browser: Browser, file: str) -> tuple[str, bytes]:
    return browser.downloaded(lambda: click(browser, f'[data-file="{file}"]'))


def only_this_server(browser: Browser, served: Served) -> None:
    strange = [url[:80] for url in browser.requests if not url.startswith((f"{served.url}/", f"blob:{served.url}/", "data:"))]
    assert not strange
    assert any(url.startswith(f"{served.url}/api/predict") for url in browser.requests)


def colours(path: Path) -> np.ndarray:
    """The different colours of a picture (n, 3)."""
    with PIL.Image.open(path) as picture:
        packed = np.unique(np.asarray(picture.convert("RGB"), np.uint32) @ np.array([65536, 256, 1], np.uint32))
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1)


@pytest.mark.skipif(not (VENDOR / "niivue.umd.js").exists(), reason="no NiiVue: make viewer")
@pytest.mark.slow
def test_a_volume_is_marked_shown_and_saved(served: Served, browser: Browser, segmenter: Path, tmp_path: Path) -> None:
    image = case_of(segmenter)
    out = predicted(segmenter, image, tmp_path / "out")
    browser.faults.clear()
    ready(browser, served)
    choose(browser, "volumes")
    browser.choose("#file", image)
    browser.until(ENDED)
    numbers = json.loads((out / "statistics.json").read_text())
    rows = text(browser, "classes").splitlines()
    for name, found in numbers["classes"].items():
        line = next(row for row in rows if name in row)
        assert (f"{found['volume'] / 1000:.4g}" if found["voxels"] else "\u2013") in line
    assert "right is on the left" in text(browser, "convention")
    browser.until("document.querySelector('.where').innerText.includes('mm')")
    with_labels = colours(browser.picture(tmp_path / "with.png"))
    slider = "document.getElementById('opacity')"
    browser.evaluate(f"{slider}.value = 0; {slider}.dispatchEvent(new Event('input'))")
    without = colours(browser.picture(tmp_path / "without.png"))
    greys = [int((np.ptp(found, axis=1) < 6).sum()) for found in (with_labels, without)]
    assert min(greys) > 50  # the scan is drawn
    assert len(with_labels) > 2 * len(without)  # and its labels over it
    before = text(browser, "view")
    browser.evaluate("document.getElementById('volume').focus()")
    browser.key("PageUp", 33)
    browser.until(f"document.getElementById('view').innerText !== {json.dumps(before)}")
    click(browser, "#neurological")
    assert "right is on the right" in text(browser, "convention")
    stem = image.name.removesuffix(".nii.gz")
    assert saved(browser, "image_dseg.nii.gz") == (f"{stem}_dseg.nii.gz", (out / f"{stem}_dseg.nii.gz").read_bytes())
    assert not browser.faults
    only_this_server(browser, served)


@pytest.mark.skipif((VENDOR / "niivue.umd.js").exists(), reason="NiiVue is there")
def test_without_a_viewer_a_volume_is_shown_as_slices(
    served: Served, browser: Browser, segmenter: Path, tmp_path: Path
) -> None:
    image = case_of(segmenter)
    out = predicted(segmenter, image, tmp_path / "out")
    ready(browser, served)
    choose(browser, "volumes")
    browser.choose("#file", image)
    browser.until(ENDED)
    browser.until("document.querySelector('#view img')?.naturalWidth > 100")
    stem = image.name.removesuffix(".nii.gz")
    assert saved(browser, "image_dseg.nii.gz") == (f"{stem}_dseg.nii.gz", (out / f"{stem}_dseg.nii.gz").read_bytes())
    only_this_server(browser, served)


def test_a_picture_is_told_shown_and_saved(served: Served, browser: Browser, classifier: Path, tmp_path: Path) -> None:
    image = case_of(classifier)
    out = predicted(classifier, image, tmp_path / "out")
    numbers = json.loads((out / "statistics.json").read_text())
    browser.faults.clear()
    ready(browser, served, width=390, height=844)
    choose(browser, "pictures")
    browser.choose("#file", image)
    browser.until(ENDED)
    share = numbers["probabilities"][numbers["predicted"]]
    assert text(browser, "title") == f"{image.name}: {numbers['predicted']}, {100 * share:.1f} %"
    assert len(text(browser, "bars").splitlines()) >= len(numbers["probabilities"])
    assert browser.evaluate("document.getElementById('saliency').naturalWidth") > 100
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    stem = image.stem
    assert saved(browser, "saliency.png") == (f"{stem}_saliency.png", (out / "saliency.png").read_bytes())
    assert saved(browser, "statistics.json") == (f"{stem}_statistics.json", (out / "statistics.json").read_bytes())
    assert not browser.faults
    only_this_server(browser, served)
    click(browser, "#kept button")
    browser.until("document.getElementById('result').hidden")


def test_what_is_wrong_is_said(served: Served, browser: Browser, tmp_path: Path) -> None:
    served.idle()
    name = tmp_path / "<b>notes.png"
    name.write_bytes(b"only words")
    for file, words in ((name, "a name with a path, signs"), (tmp_path / "notes.png", "found another format, expected PNG")):
        file.write_bytes(b"only words")
        ready(browser, served, dark=True)
        choose(browser, "pictures")
        browser.choose("#file", file)
        browser.until("!document.getElementById('refusal').hidden")
        assert words in text(browser, "refusal")
        assert browser.evaluate("document.getElementById('result').hidden && document.getElementById('work').hidden")
    broken = tmp_path / "broken.png"  # which is seen as such only when it is read
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(broken)
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(bytes(content))
    browser.choose("#file", broken)
    browser.until("document.getElementById('refusal').innerText.includes('a broken picture')")
    only_this_server(browser, served)


def test_keys_and_the_token_suffice(serving: Callable[..., Served], browser: Browser, classifier: Path) -> None:
    served = serving({"pictures": classifier}, Limits(), token="aWord8letters")
    browser.requests.clear()
    browser.open(f"{served.url}/")
    browser.until("!document.getElementById('unlock').hidden")
    assert browser.evaluate("document.getElementById('ask').hidden")
    browser.key("Tab", 9)
    assert browser.evaluate("document.activeElement.id") == "token"
    browser.call("Input.insertText", text="aWord8letters")
    browser.key("Enter", 13)
    browser.until("!document.getElementById('ask').hidden")
    for _ in range(12):
        browser.key("Tab", 9)
        if browser.evaluate("document.activeElement.id") == "example":
            break
    assert browser.evaluate("document.activeElement.matches(':focus-visible')")
    browser.key("Enter", 13)
    browser.until(ENDED)
    assert browser.evaluate("document.activeElement.id") == "title"
    assert text(browser, "title").startswith("example.png: ")
    browser.call("Page.navigate", url="about:blank")
    browser.open(f"{served.url}/#token=aWord8letters")
    browser.until("!document.getElementById('ask').hidden")
    assert "aWord" not in browser.evaluate("location.href")
    only_this_server(browser, served)


def test_the_code_of_others_is_what_its_table_says() -> None:
    table = (VENDOR / "README.md").read_text()
    for path in VENDOR.glob("*.js"):
        assert f"`{sha256(path.read_bytes()).hexdigest()}`" in table
        assert os.stat(path).st_size < 4 * 2**20
