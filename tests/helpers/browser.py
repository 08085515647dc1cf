"""Debian's Chromium, headless, by Selenium with Debian's driver: nothing is fetched from a vendor."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_PACKAGES = ("chromium", "chromium-driver")
_PROGRAMS = ("chromium", "chromedriver")


def require():
    """Install Chromium where the test may; skip, saying what is missing, where it cannot."""
    if not all(map(shutil.which, _PROGRAMS)) and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", *_PACKAGES]
        subprocess.run(
            install, capture_output=True, check=False, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        )
    if missing := [name for name in _PROGRAMS if not shutil.which(name)]:
        pytest.skip(
            f"no browser: {', '.join(missing)} missing, and could not be installed; apt-get install {' '.join(_PACKAGES)}"
        )


@contextmanager
def chromium():
    """Yield a browser that logs its console and sees no network but this machine's."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(_PROGRAMS[0])
    # Its sandbox does not start as root, nor in most containers; pages are ours.
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which(_PROGRAMS[1])))
    driver.set_page_load_timeout(120)
    try:
        yield driver
    finally:
        driver.quit()


def width(driver, pixels, height=900):
    """Let pages have a width: a window cannot be as narrow as a telephone."""
    metrics = {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def complaints(driver):
    """What the console has to say that is more than information, since it was last asked."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
