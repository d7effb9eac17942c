//! A headless Chromium, driven over its own protocol through a pair of pipes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);
const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// `scripts/test` installs it; TRUEUP_TEST_CHROMIUM names another.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("TRUEUP_TEST_CHROMIUM") {
        return named.into();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/bin"]);
    folders
        .flat_map(|folder| NAMES.iter().map(move |name| Path::new(folder).join(name)))
        .find(|path| path.exists())
        .expect("there is no Chromium: scripts/test installs it, TRUEUP_TEST_CHROMIUM names another")
}

/// One browser with one page; ends when dropped.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: mpsc::Receiver<Value>,
    session: String,
    next: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The browser reads from descriptor 3 and writes to 4, which a shell can lay.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh"])
            .arg(program())
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args([
                "--hide-scrollbars",
                "--force-device-scale-factor=1",
                "--lang=en",
                "--window-size=1200,900",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let (tell, from) = mpsc::channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if tell.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser = Self { child, to, from, session: String::new(), next: 0, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        browser.call("Page.enable", json!({}));
        browser
    }

    fn receive(&self, until: Instant, what: &str) -> Value {
        let left = until.saturating_duration_since(Instant::now());
        self.from.recv_timeout(left).unwrap_or_else(|_| panic!("the browser did not answer: {what}"))
    }

    fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        self.next
    }

    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let (id, until) = (self.send(method, &params), Instant::now() + DEADLINE);
        loop {
            let told = self.receive(until, method);
            if told["id"] == id {
                assert!(told["error"].is_null(), "{method}: {told}");
                return told["result"].clone();
            }
        }
    }

    /// Does something that loads another page, and waits until that is there.
    fn loading(&mut self, method: &str, params: &Value) {
        let (id, until) = (self.send(method, params), Instant::now() + DEADLINE);
        let (mut answered, mut loaded) = (false, false);
        while !(answered && loaded) {
            let told = self.receive(until, method);
            assert!(told["error"].is_null(), "{method}: {told}");
            answered |= told["id"] == id;
            loaded |= told["method"] == "Page.loadEventFired";
        }
        // The focus goes where the page wants it when it is first drawn, which may come later.
        self.eval("new Promise(r => { requestAnimationFrame(() => requestAnimationFrame(r)); setTimeout(r, 1000) }).then(() => 0)");
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.loading("Page.navigate", &json!({ "url": url }));
    }

    /// The value of an expression of JavaScript; a promise is waited for.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let told = self.call("Runtime.evaluate", params);
        assert!(told["exceptionDetails"].is_null(), "{expression:.200}: {told}");
        told["result"]["value"].clone()
    }

    pub(crate) fn text(&mut self, expression: &str) -> String {
        self.eval(expression).as_str().unwrap_or_default().to_owned()
    }

    /// Types as from a keyboard into what has the focus.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    pub(crate) fn press_tab(&mut self) {
        for kind in ["keyDown", "keyUp"] {
            let key = json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// Presses Enter, which loads another page.
    pub(crate) fn press_enter(&mut self) {
        let enter = json!({ "type": "keyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r" });
        self.loading("Input.dispatchKeyEvent", &enter);
    }

    pub(crate) fn scheme(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    pub(crate) fn window(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// The window as PNG, in base64.
    pub(crate) fn screenshot(&mut self) -> String {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png", "optimizeForSpeed": false }));
        shot["data"].as_str().unwrap().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.send("Browser.close", &json!({}));
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
