"""A reader of the web page: what somebody in front of a browser sees and does."""

from urllib.parse import urlencode

HOSTILE = "velvet sofa <img src=x onerror=\"window.hacked='title'\"><script>window.hacked='script'</script>"
SECONDS = 10
_LISTEN = """
window.asked = [];
const real = window.fetch;
window.fetch = (path, request) => {
  if (request?.body) window.asked.push([path, JSON.parse(request.body).space ?? null]);
  return real(path, request);
};
"""
"""Notes what the page asks for once it is open."""


class Page:
    """What a reader sees and does."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url

    def open(self, **state):
        """Open the page at a state of its address, in a tab that keeps nothing."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/?{urlencode(state)}" if state else f"{self.url}/")
        self.js(_LISTEN)
        return self

    def asked(self, method):
        """The spaces that the page named in its calls of ``method`` since it was opened."""
        return self.js("return window.asked.filter(([path]) => path.endsWith(arguments[0])).map(([, s]) => s)", method)

    def until(self, condition, what):
        """Wait until ``condition`` holds; its value. What goes out of the page meanwhile is looked for again."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, SECONDS, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: condition(), what)

    def all(self, css):
        return self.driver.find_elements("css selector", css)

    def one(self, css):
        """The first visible element, waited for."""
        return self.until(lambda: next((each for each in self.all(css) if each.is_displayed()), None), f"no {css}")

    def gone(self, css):
        self.until(lambda: not any(each.is_displayed() for each in self.all(css)), f"{css} is still there")

    def told(self, text):
        """Wait until the live region says ``text``."""
        self.until(lambda: text in self.text("#told"), f"the live region does not say {text!r}")
        return self

    def text(self, css):
        """Text of the first match as it stands in the document, "" where there is none."""
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", css)

    def js(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def use(self, module, code, *arguments):
        """The value of ``code`` over ``m``, a module of the page."""
        done = f"const [done, ...a] = [arguments[arguments.length - 1], ...arguments]; import('/page/{module}').then("
        script = f"{done}(m) => done({code}), (e) => done(String(e)))"
        return self.driver.execute_async_script(script, *arguments)

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def type(self, css, *keys):
        """Replace what a field holds."""
        field = self.one(css)
        field.clear()
        field.send_keys(*keys)

    def tab_to(self, css, most=40):
        """Go with the Tab key until what has the focus matches ``css``."""
        for _ in range(most):
            self.press("\ue004")
            if self.js("return document.activeElement.matches(arguments[0])", css):
                return
        raise AssertionError(f"Tab does not reach {css}")

    def pins(self, within="#answer"):
        """Ids of the pins shown, in order."""
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.dataset.pin)", f"{within} .pin"
        )

    def shown(self, text):
        """The address in the browser holds ``text``."""
        self.until(lambda: text in self.driver.current_url, f"{text} is not in the address")

    def foreign(self):
        """Addresses of other origins that the page asked for."""
        names = self.js("return performance.getEntries().map((e) => e.name).filter((n) => n.includes(':'))")
        return [name for name in names if not name.startswith(self.url)]
