//! A real Firefox, without a driver: it loads one page, which says to a node what it gets.

use std::fmt::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::process::{Process, TempDir};

/// A browser that shows one page; ended with everything it started.
pub struct Firefox {
    _process: Process,
    _dir: TempDir,
}

/// Nothing but this machine is asked for anything, and nothing is shown first.
const PREFERENCES: &[(&str, &str)] = &[
    ("network.proxy.type", "1"),
    ("network.proxy.http", "\"127.0.0.1\""),
    ("network.proxy.http_port", "9"),
    ("network.proxy.ssl", "\"127.0.0.1\""),
    ("network.proxy.ssl_port", "9"),
    ("network.captive-portal-service.enabled", "false"),
    ("network.connectivity-service.enabled", "false"),
    ("services.settings.server", "\"http://127.0.0.1:9\""),
    ("browser.safebrowsing.malware.enabled", "false"),
    ("browser.safebrowsing.phishing.enabled", "false"),
    ("datareporting.policy.dataSubmissionEnabled", "false"),
    ("toolkit.telemetry.enabled", "false"),
    ("app.update.enabled", "false"),
    ("extensions.update.enabled", "false"),
    ("browser.shell.checkDefaultBrowser", "false"),
    ("browser.aboutwelcome.enabled", "false"),
    ("startup.homepage_welcome_url", "\"\""),
];

impl Firefox {
    /// Starts one that shows this page and asks for these encodings, also without TLS.
    pub fn show(page: &str, encodings: &str) -> Firefox {
        let dir = TempDir::new();
        let mut preferences = String::new();
        let encodings = format!("\"{encodings}\"");
        let asked = ["network.http.accept-encoding", "network.http.accept-encoding.secure"];
        let asked = asked.map(|name| (name, encodings.as_str()));
        for (name, value) in PREFERENCES.iter().copied().chain(asked) {
            writeln!(preferences, "user_pref(\"{name}\", {value});").unwrap();
        }
        std::fs::write(dir.0.join("user.js"), preferences).unwrap();
        let browser = Command::new("firefox")
            .args(["--headless", "--no-remote", "--profile"])
            .arg(&dir.0)
            .arg(page)
            .env("HOME", &dir.0)
            .env("MOZ_DISABLE_CONTENT_SANDBOX", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: its processes end together.
            .process_group(0)
            .spawn()
            .expect("Firefox is installed (package firefox-esr)");
        Firefox { _process: Process::group(browser), _dir: dir }
    }
}
