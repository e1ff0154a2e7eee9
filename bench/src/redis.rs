//! [`Redis`]: a redis-server of the bench's own, and the few things it is asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::process::{self, Process};

/// A Redis in memory, on a free port.
pub(crate) struct Redis {
    process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Redis {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no `redis-server`, or it does not start.
    pub(crate) fn start() -> Result<Redis, String> {
        let port = process::free_port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
        command.arg(port.to_string()).current_dir(std::env::temp_dir());
        let process = Process::start(&mut command)?;
        process::until_listening("redis-server", port)?;
        Ok(Redis { process, port })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends one command and returns the answer, if that is a text or a number.
    ///
    /// # Errors
    /// When there is no answer, or it is an error.
    pub(crate) fn ask(&self, command: &[&str]) -> Result<String, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            let mut request = format!("*{}\r\n", command.len());
            for argument in command {
                request += &format!("${}\r\n{argument}\r\n", argument.len());
            }
            stream.write_all(request.as_bytes())?;
            let mut answer = BufReader::new(stream);
            let mut line = String::new();
            answer.read_line(&mut line)?;
            let line = line.trim_end();
            let Some(length) = line.strip_prefix('$') else { return Ok(line.to_owned()) };
            let mut text = vec![0; length.parse().unwrap_or_default()];
            answer.read_exact(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        match ask() {
            Ok(text) if !text.starts_with('-') => Ok(text),
            Ok(text) => Err(format!("Redis: {text}")),
            Err(error) => Err(format!("Redis: {error}")),
        }
    }

    /// How many commands it has processed, from clients and from scripts.
    ///
    /// # Errors
    /// When Redis does not say.
    pub(crate) fn commands(&self) -> Result<f64, String> {
        let statistics = self.ask(&["INFO", "commandstats"])?;
        let calls = statistics.lines().filter_map(|line| line.split_once(":calls="));
        let calls = calls.filter_map(|(_, rest)| rest.split(',').next()?.parse::<f64>().ok());
        Ok(calls.sum())
    }

    /// How often a command was called, by itself or by a script.
    ///
    /// # Errors
    /// When Redis does not say.
    pub(crate) fn calls(&self, command: &str) -> Result<f64, String> {
        let statistics = self.ask(&["INFO", "commandstats"])?;
        let start = format!("cmdstat_{command}:calls=");
        let line = statistics.lines().find_map(|line| line.strip_prefix(start.as_str()));
        let calls = line.and_then(|line| line.split(',').next()?.parse().ok());
        Ok(calls.unwrap_or_default())
    }
}
