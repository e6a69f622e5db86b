"""Page and documents in a real browser: filled in, asked, answered, refused; no outside address; narrow and dark."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from serve_app.http.page import PATHS
from tests.support.paths import ROOT
from tests.support.serving.client import Client
from tests.support.serving.requests import EXAMPLE
from transforms.listings import CONTRACT

STATIC = ROOT / "serve_app" / "http" / "static"
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
browser_needed = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield browser
    browser.quit()


def opened(browser: webdriver.Chrome, address: str) -> None:
    browser.get(address)
    WebDriverWait(browser, 20).until(lambda page: page.find_elements(By.NAME, "room_type"))


def logged(browser: webdriver.Chrome) -> list[Any]:
    """What the browser has complained of since last asked: refused sources among it."""
    entries: list[Any] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return entries


def assert_no_outside_address(browser: webdriver.Chrome, address: str) -> None:
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded
    assert all(str(name).startswith(address) for name in loaded)


def bars(browser: webdriver.Chrome, where: str) -> dict[str, float]:
    found = browser.find_elements(By.CSS_SELECTOR, f"#{where} .bar")
    return {str(bar.get_attribute("data-name")): float(str(bar.get_attribute("data-value"))) for bar in found}


def answered(browser: webdriver.Chrome) -> str:
    WebDriverWait(browser, 20).until(lambda page: page.find_element(By.ID, "result").is_displayed())
    return browser.find_element(By.ID, "label").text


@browser_needed
def test_the_example_is_filled_in_and_answered(browser: webdriver.Chrome, address: str, client: Client) -> None:
    opened(browser, address)
    expected = client.post("/v1/explain", EXAMPLE).json()

    browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()

    assert answered(browser) == expected["price_category"]
    assert bars(browser, "probabilities") == expected["probabilities"]
    contributions = bars(browser, "contributions")
    assert contributions == expected["contributions"][expected["price_category"]]
    assert set(contributions) == set(CONTRACT.features)
    assert logged(browser) == []
    assert_no_outside_address(browser, address)


@browser_needed
def test_it_works_with_the_keyboard_alone(browser: webdriver.Chrome, address: str) -> None:
    opened(browser, address)
    box = browser.find_element(By.NAME, "accommodates")

    box.send_keys(Keys.CONTROL, "a")
    box.send_keys("2", Keys.ENTER)

    assert answered(browser)


@browser_needed
def test_a_wrong_field_is_marked_and_explained(browser: webdriver.Chrome, address: str) -> None:
    opened(browser, address)
    box = browser.find_element(By.NAME, "beds")

    box.send_keys(Keys.CONTROL, "a")
    box.send_keys("1000", Keys.ENTER)

    said = WebDriverWait(browser, 20).until(lambda page: page.find_element(By.ID, "field-beds-problem").text)
    assert said == "beds: found 1000, expected a number from 0 to 100."
    assert box.get_attribute("aria-invalid") == "true"
    assert browser.switch_to.active_element == box


@browser_needed
def test_it_fits_a_phone_and_the_dark(browser: webdriver.Chrome, address: str) -> None:
    def emulate(command: str, **options: Any) -> None:
        browser.execute_cdp_cmd(f"Emulation.{command}", options)

    emulate("setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    light = background(browser, address)
    emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = background(browser, address)

    browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
    assert answered(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert sum(light) > 700
    assert sum(dark) < 100


def background(browser: webdriver.Chrome, address: str) -> list[int]:
    opened(browser, address)
    color = str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    return [int(number) for number in re.findall(r"\d+", color)[:3]]


@browser_needed
def test_the_documents_are_shown_and_can_be_tried(browser: webdriver.Chrome, address: str, client: Client) -> None:
    def await_all(selector: str) -> list[WebElement]:
        return WebDriverWait(browser, 20).until(lambda page: page.find_elements(By.CSS_SELECTOR, selector))

    logged(browser)
    browser.get(f"{address}docs")

    assert len(await_all(".opblock")) > 10
    await_all("#operations-Predictions-predict .opblock-summary-control")[0].click()
    (execute,) = await_all("button.execute")
    assert json.loads(str(browser.find_element(By.CSS_SELECTOR, "textarea").get_attribute("value"))) == EXAMPLE
    execute.click()
    (answer,) = await_all(".live-responses-table .highlight-code code")
    assert json.loads(answer.text) == client.post("/v1/predict", EXAMPLE).json()
    # Nothing was kept out by the content security policy, and nothing came from elsewhere.
    assert logged(browser) == []
    assert_no_outside_address(browser, address)


def test_headers_keep_everything_else_out(client: Client) -> None:
    for path in PATHS:
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"


def test_no_file_names_an_outside_address() -> None:
    files = [path for path in STATIC.iterdir() if path.is_file()]
    assert {"page.html", "page.js", "docs.html", "docs.js"} <= {path.name for path in files}
    for path in files:
        outside = re.sub(r'"http://www\.w3\.org/2000/svg"', "", path.read_text())
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", outside), path.name
