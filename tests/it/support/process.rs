//! The built binary, run with an environment of its own and a deadline.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(120);

#[must_use = "look at the status or the output"]
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

/// Where the ledger of every test's runs lies: one for the whole test binary, as on a user's machine.
pub(crate) fn state_home() -> &'static std::path::Path {
    static HOME: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
    HOME.get_or_init(|| {
        let home =
            std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("state-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        home
    })
}

pub(crate) fn command(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trueup"));
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("NO_COLOR", "1")
        .env("XDG_STATE_HOME", state_home())
        // What a process covers is counted with the tests that started it.
        .envs(std::env::var_os("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)))
        .envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn trueup(args: &[&str]) -> Output {
    trueup_with(args, &[])
}

pub(crate) fn trueup_with(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut child = command(args, env).spawn().unwrap();
    let read = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            from.read_to_string(&mut text).unwrap();
            text
        })
    };
    let stdout = read(Box::new(child.stdout.take().unwrap()));
    let stderr = read(Box::new(child.stderr.take().unwrap()));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > DEADLINE {
            let _ = child.kill();
            panic!("{args:?} did not end within {DEADLINE:?}: {}", stderr.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Output {
        status: status.code().unwrap_or(-1),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// Runs the command and kills it as soon as `now` says so; whether it was killed before it ended.
pub(crate) fn killed_after(args: &[&str], now: impl Fn() -> bool) -> bool {
    let mut child = command(args, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let killed = loop {
        if child.try_wait().unwrap().is_some() {
            break false;
        }
        if now() || began.elapsed() > DEADLINE {
            child.kill().unwrap();
            break true;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let _ = child.wait();
    killed
}

/// A command that goes on; killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = command(args, &[]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// It lives, and does nothing.
    pub(crate) fn stop(&self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    }

    /// As `kill -9`.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `trueup agent`; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    pub(crate) address: String,
    lines: mpsc::Receiver<String>,
}

impl Agent {
    /// Starts it on a free port and waits until it listens.
    pub(crate) fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut all = vec!["agent", "--listen", "127.0.0.1:0"];
        all.extend(args);
        let mut child = command(&all, env).spawn().unwrap();
        let (tx, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = tx.send(line);
            }
        });
        let mut seen = Vec::new();
        loop {
            let line = lines
                .recv_timeout(Duration::from_secs(20))
                .unwrap_or_else(|_| panic!("the agent did not start: {seen:?}"));
            if let Some(address) = line.strip_prefix("listening on ") {
                let address = address.to_owned();
                return Self { child, address, lines };
            }
            seen.push(line);
        }
    }

    /// What it has written to standard error so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
