//! A running `trueup serve`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::process::command;

pub(crate) struct Serve {
    child: Child,
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
}

/// Its arguments: a free port, and rows that differ read again at once.
pub(crate) fn arguments<'a>(config: &'a Path, ledger: &'a str) -> [&'a str; 9] {
    let config = config.to_str().unwrap();
    ["serve", "-c", config, "--ledger", ledger, "--listen", "127.0.0.1:0", "--recheck-delay", "1ms"]
}

impl Serve {
    /// Starts it on a free port and waits until it is ready.
    pub(crate) fn start(config: &Path, ledger: &str, env: &[(&str, &str)]) -> Self {
        let mut command = command(&arguments(config, ledger), env);
        command.stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let (stderr, notes) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut notes = notes.lock().unwrap();
                notes.push_str(&line);
                notes.push('\n');
            }
        });
        let mut serve = Self { child, address: String::new(), log };
        serve.until_logged("trueup serve is ready");
        let log = serve.log();
        let (_, rest) = log.split_once("trueup serve is ready: http://").unwrap();
        serve.address = rest.split('/').next().unwrap().to_owned();
        serve
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn until_logged(&mut self, what: &str) {
        let began = Instant::now();
        while !self.log().contains(what) {
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended: {}", self.log());
            assert!(began.elapsed() < Duration::from_secs(120), "{what:?} is not in the log: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = std::process::Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Exit status, once it has ended.
    pub(crate) fn wait(&mut self) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Status and body.
    pub(crate) fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n", self.address)
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
