"""The page in a browser: it shows what /status says, keeps up, says when it does not, and serves every reader."""

import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, ViewportSize, expect, sync_playwright

from tests.netd_process import NETDCTL, Netd, running

PATIENCE = 60.0
"""Seconds until something must be seen; a browser on a machine that has much else to do is slow."""
expect.set_options(timeout=PATIENCE * 1000)

FLAGS = [
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CONFIG = """
[admin]
listen = "127.0.0.1:{port}"
[echo.plain]
listen = "127.0.0.1:0"
[echo.small]
listen = "127.0.0.1:0"
max_connections = 1
[cache.main]
listen_memcached = "127.0.0.1:0"
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS, timeout=PATIENCE * 1000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def netd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netd]:
    with running(tmp_path_factory.mktemp("netd"), CONFIG.format(port=0)) as netd:
        yield netd


def address(netd: Netd) -> str:
    return f"http://127.0.0.1:{netd.port('admin', 1)}/"


@pytest.fixture
def page(browser: Browser, netd: Netd) -> Iterator[Page]:
    """The page of a daemon; whatever the browser has to complain about fails the test."""
    complaints: list[str] = []

    def complain(request: Request) -> None:
        if not request.url.endswith("/events"):  # which end with their page
            complaints.append(f"failed: {request.url}")

    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", complain)
    page.goto(address(netd))
    expect(page.locator("#ready")).to_have_text("ready")
    yield page
    context.close()
    assert complaints == []


def status(netd: Netd) -> dict[str, Any]:
    with urllib.request.urlopen(address(netd) + "status", timeout=60) as answer:
        document: dict[str, Any] = json.load(answer)
        return document


def connect(netd: Netd, service: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", netd.port(service)), timeout=60)


def cell(page: Page, service: str, column: int) -> Any:
    return page.locator(f'tr[data-service="{service}"] > *').nth(column)


def test_values_are_those_of_status_under_traffic(page: Page, netd: Netd) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(netd, "echo.plain")) for _ in range(7)]
        for client in clients:
            client.sendall(b"x" * 1000)
            assert len(client.recv(1000, socket.MSG_WAITALL)) == 1000
        expect(cell(page, "echo.plain", 3)).to_have_text("7")
        told = next(each for each in status(netd)["services"] if each["name"] == "echo.plain")
        assert (told["connections"], told["bytes_in"], told["bytes_out"]) == (7, 7000, 7000)
        page.locator("section#echo\\.plain summary").click()
        figures = page.locator("section#echo\\.plain details tbody tr")
        expect(figures.filter(has_text="bytes in").locator("td").first).to_have_text("6.8 KiB")
        expect(figures.filter(has_text="connections").locator("td").first).to_have_text("7")
        expect(page.locator("#process-pid")).to_have_text(str(status(netd)["pid"]))
    expect(cell(page, "echo.plain", 3)).to_have_text("0")


def test_charts_are_drawn_and_say_their_newest_value(page: Page, netd: Netd) -> None:
    chart = page.locator('section#echo\\.plain [data-chart="Connections"]')
    with connect(netd, "echo.plain"):
        expect(chart.locator("output")).to_have_text("1")
        expect(chart.get_by_role("img")).to_have_accessible_name("Connections: 1")
        inked = chart.locator("canvas").evaluate(
            "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"
        )
        assert inked


def test_a_cache_is_drawn_as_it_says_itself(page: Page, netd: Netd) -> None:
    chart = page.locator('section#cache\\.main [data-chart="Hit ratio"]')
    expect(chart.locator("output")).to_have_text("\N{EN DASH}")
    with connect(netd, "cache.main") as client:
        client.sendall(b"set a 0 0 1\r\nx\r\n")
        assert client.recv(100) == b"STORED\r\n"
        with ThreadPoolExecutor(1) as threads:
            seen = Event()
            asking = threads.submit(ask_again_and_again, client, seen)
            try:
                expect(chart.locator("output")).to_have_text("25 %")
            finally:
                seen.set()
    figure = page.locator("section#cache\\.main details tbody tr").filter(has_text="get misses")
    expect(figure.locator("td").first).to_have_text(f"{asking.result() * 3:,}")
    assert "Keys not found" in (figure.text_content() or "")


def ask_again_and_again(client: socket.socket, enough: Event) -> int:
    """Ask for one key that is there and three that are not until it is enough; how often."""
    times = 0
    while not enough.wait(0.05):
        client.sendall(b"get a\r\nget b\r\nget c\r\nget d\r\n")
        answer = b""
        while answer.count(b"END\r\n") < 4:
            answer += client.recv(1000)
        times += 1
    return times


def test_a_refused_client_shows_at_once(page: Page, netd: Netd) -> None:
    with connect(netd, "echo.small") as first:
        first.sendall(b"x")
        assert first.recv(1) == b"x"
        with connect(netd, "echo.small") as second:
            assert second.recv(1) == b""
        expect(cell(page, "echo.small", 5)).not_to_have_text("0")
        expect(page.locator("#log")).to_contain_text("echo.small: refused 1 connection(s) by max_connections")


PHONE: ViewportSize = {"width": 360, "height": 740}
WIDEST_CHART = "Math.max(...[...document.querySelectorAll('canvas')].map(each => each.getBoundingClientRect().right))"
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_it_works_on_a_phone(page: Page) -> None:
    page.set_viewport_size(PHONE)
    expect(page.locator("section#echo\\.plain canvas").first).to_be_visible()
    page.wait_for_function(f"{WIDEST_CHART} <= 360")
    assert page.evaluate(TOO_WIDE) == 0


def test_a_chart_still_as_wide_as_before_does_not_widen_the_page(browser: Browser, netd: Netd) -> None:
    """Charts hear of their new width a moment after the page has it."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.add_init_script("ResizeObserver = class { observe() {} }")
        page.goto(address(netd))
        expect(page.locator("section#echo\\.plain canvas").first).to_be_visible()
        page.set_viewport_size(PHONE)
        page.wait_for_function("innerWidth === 360")
        assert page.evaluate(WIDEST_CHART) > 360
        assert page.evaluate(TOO_WIDE) == 0


def test_the_keyboard_reaches_everything(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to services")).to_be_focused()
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"window", "theme", "echo.plain", "All figures", "log"} <= reached


def test_light_and_dark_and_the_choice_is_kept(page: Page) -> None:
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = background()
    page.emulate_media(color_scheme="dark")
    dark = background()
    assert light != dark
    page.get_by_label("Theme").select_option("light")
    assert background() == light
    page.reload()
    expect(page.get_by_label("Theme")).to_have_value("light")
    assert background() == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_on_what_is_behind_them(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    pale = page.evaluate(CONTRASTS)
    assert pale == []


CONTRASTS = """
() => {
  const numbers = colour => colour.match(/[0-9.]+/g).map(Number);
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  const rgb = colour => { context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
                          return context.getImageData(0, 0, 1, 1).data; };
  const light = colour => { const [r, g, b] = [...rgb(colour)].map(each => each / 255)
      .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = node => { for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (rgb(colour)[3] === 255) return colour; } return 'white'; };
  const pale = new Set();
  for (const node of document.querySelectorAll('body *')) {
    const words = [...node.childNodes].some(each => each.nodeType === 3 && each.textContent.trim());
    if (!words || !node.checkVisibility() || node.closest('option')) continue;
    const [one, other] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) pale.add(`${node.tagName} ${node.className} ${node.textContent.slice(0, 20)} ${contrast}`);
  }
  return [...pale];
}
"""
"""What has less than WCAG's 4.5 to 1 between its words and what is behind them."""


def test_it_says_when_it_is_stale_and_comes_back_by_itself(browser: Browser, tmp_path: Path, free_port: int) -> None:
    config = CONFIG.format(port=free_port)
    page = browser.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    with running(tmp_path, config) as netd:
        page.goto(address(netd))
        expect(page.locator("#ready")).to_have_text("ready")
        pid = page.locator("#process-pid").text_content()
        assert netd.stop() == 0
    expect(page.get_by_role("alert")).to_contain_text("No news from netd since")
    with running(tmp_path, config):
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.locator("#process-pid")).not_to_have_text(str(pid))
    page.close()


def test_a_service_that_a_reload_brings_is_drawn_at_once(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    with running(tmp_path, CONFIG.format(port=0)) as netd:
        page.goto(address(netd))
        expect(page.locator("#ready")).to_have_text("ready")
        netd.config.write_text(netd.config.read_text() + '[cache.more]\nlisten_memcached = "127.0.0.1:0"\n')
        subprocess.run([NETDCTL, "--socket", tmp_path / "state" / "netd.sock", "reload"], check=True)
        expect(page.locator('section#cache\\.more [data-chart="Hit ratio"]')).to_be_visible()
        expect(page.locator("tr[data-service]")).to_have_count(5)
    page.close()


def test_figures_are_written_as_the_console_writes_them(page: Page) -> None:
    told = page.evaluate(
        """async () => {
          const { bytes, count, duration, share, short } = await import('/format.js');
          return [bytes(0), bytes(1023), bytes(1024), bytes(1536), bytes(10 * 1024), bytes(1048575),
                  count(12345), count(0.254), duration(0), duration(0.00042), duration(0.0421), duration(312),
                  duration(93600), share(0.256), short(12345), short(0)];
        }"""
    )
    assert told == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 KiB", "1.0 MiB",
        "12,345", "0.25", "0", "420 µs", "42.1 ms", "5 m 12 s",
        "1 d 2 h", "25.6 %", "12.3k", "0",
    ]  # fmt: skip


def test_what_is_drawn_follows_from_samples(page: Page) -> None:
    told = page.evaluate(
        """async () => {
          const { Series, shareOf } = await import('/series.js');
          const series = new Series();
          series.load({ clock: [1, 2], figures: { a: { hits: [0, 10], misses: [0, 30] } } });
          series.add([4, { a: { hits: 20, misses: 50 }, b: { hits: 1 } }]);
          series.add([4, { a: { hits: 99, misses: 99 } }]);
          series.add([5, { a: { hits: 5, misses: 50 } }]);
          const rates = ['hits', 'misses'].map(name => series.rates('a', name));
          return [series.clock, rates, shareOf(rates), series.values('b', 'hits'), series.values('c', 'x')];
        }"""
    )
    assert told == [
        [1, 2, 4, 5],
        [[None, 10, 5, None], [None, 30, 10, 0]],
        [None, 0.25, 5 / 15, None],
        [None, None, 1, None],
        [None, None, None, None],
    ]
