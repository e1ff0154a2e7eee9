//! A real Chromium, driven through chromedriver.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use fantoccini::{Client, ClientBuilder};
use serde_json::{Value, json};

use super::process::{Process, TempDir};
use super::{until, within};

/// A browser with one window; ended with everything it started.
pub struct Chromium {
    pub client: Client,
    driver: Process,
    _dir: TempDir,
}

impl Chromium {
    pub async fn start() -> Chromium {
        Chromium::start_with(&[]).await
    }

    /// Starts one with these flags, too.
    pub async fn start_with(flags: &[&str]) -> Chromium {
        let dir = TempDir::new();
        // It takes a free port of one kind of address and ends if that of the other is taken.
        let (driver, port) =
            (0..10).find_map(|_| start_driver()).expect("chromedriver says its port");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--ignore-certificate-errors",
            "--window-size=1200,800",
            &format!("--user-data-dir={}", dir.0.display()),
        ];
        let arguments = [&arguments, flags].concat();
        let mut capabilities = serde_json::Map::new();
        let options = json!({ "binary": "/usr/bin/chromium", "args": arguments });
        capabilities.insert("goog:chromeOptions".to_owned(), options);
        capabilities.insert("acceptInsecureCerts".to_owned(), true.into());
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("Chromium starts");
        Chromium { client, driver, _dir: dir }
    }

    /// Loads a page. An origin whose six connections are all taken by streams cannot be loaded
    /// from: that would wait for ever, and so there is a limit.
    pub async fn open(&self, url: &str) {
        within(&format!("{url} to load"), self.client.goto(url)).await.unwrap();
    }

    /// The value of a JavaScript expression in the current page.
    pub async fn value(&self, expression: &str) -> Value {
        self.client.execute(&format!("return {expression}"), Vec::new()).await.unwrap()
    }

    /// Waits until a JavaScript expression is true.
    pub async fn until(&self, expression: &str) {
        let what = format!("{expression} holds in the page");
        until(&what, async || (self.value(expression).await == true).then_some(())).await;
    }

    /// Puts a picture of the page where people can look at it.
    pub async fn picture(&self, name: &str) {
        let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let picture = self.client.screenshot().await.unwrap();
        std::fs::write(dir.join(format!("{name}.png")), picture).unwrap();
    }

    /// Closes all windows.
    pub async fn close(mut self) {
        let _ = self.client.clone().close().await;
        self.driver.kill();
    }
}

/// chromedriver and its port, unless it ended before it had one.
fn start_driver() -> Option<(Process, u16)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // A group of its own: the browser's processes end with the driver's.
        .process_group(0)
        .spawn()
        .expect("chromedriver is installed (package chromium-driver)");
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let driver = Process::group(driver);
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    // What it says later must go somewhere.
    std::thread::spawn(move || lines.for_each(drop));
    Some((driver, port?))
}
