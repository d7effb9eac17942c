//! Every command in README is run, section by section, on databases like those it speaks of.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use super::agents::Pki;
use super::support::process::Agent;
use super::support::serve::Serve;
use super::support::servers::{MysqlDb, PostgresDb};

/// Run elsewhere: the demo and this very test run.
const ELSEWHERE: &[&str] = &["cargo run --release -- demo", "scripts/test"];

const ROWS: &str =
    "INSERT INTO orders (id, amount, note) VALUES (1, 1.5, 'a'), (150, 2, 'b'), (151, 3, NULL)";

/// The commands of each section, by its heading.
fn sections() -> Vec<(String, Vec<String>)> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut sections = vec![(String::new(), Vec::new())];
    for line in readme.lines() {
        if let Some(heading) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            sections.push((heading.to_owned(), Vec::new()));
        } else if let Some(command) = line.strip_prefix("$ ") {
            sections.last_mut().unwrap().1.push(command.to_owned());
        }
    }
    sections.retain(|(_, commands)| !commands.is_empty());
    sections
}

/// Words as a shell splits them; README uses double quotes only.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in command.chars() {
        match c {
            '"' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => word.push(c),
        }
    }
    words.push(word);
    words
}

#[test]
fn every_command_in_readme_works() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    for name in ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"] {
        std::fs::copy(pki.path(name), dir.path().join(name)).unwrap();
    }
    let mut ran = 0;
    for (heading, commands) in sections() {
        let (source, target, lite) = (PostgresDb::create(), PostgresDb::create(), MysqlDb::create());
        for db in [&source, &target] {
            db.execute("CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(12,2), note text, placed_at timestamptz DEFAULT '2024-03-01')");
        }
        lite.execute("CREATE TABLE orders (id BIGINT PRIMARY KEY, amount DECIMAL(12,2), note TEXT)");
        lite.execute(ROWS);
        source.execute(ROWS);
        target.execute("CREATE TABLE customers (email text PRIMARY KEY, name text NOT NULL, credit numeric(10,2), since date)");
        let from = if heading.starts_with("MySQL") { lite.url() } else { source.url() };
        let env = [("SOURCE", from), ("TARGET", target.url())];
        let mut agents: BTreeMap<&str, Agent> = BTreeMap::new();
        for command in &commands {
            if ELSEWHERE.contains(&command.as_str()) {
                continue;
            }
            ran += 1;
            let mut words = words(command);
            for (port, agent) in &agents {
                words
                    .iter_mut()
                    .for_each(|word| *word = word.replace(&format!("127.0.0.1:{port}"), &agent.address));
            }
            match words[0].as_str() {
                "sqlite3" => {
                    rusqlite::Connection::open(dir.path().join(&words[1]))
                        .unwrap()
                        .execute_batch(&words[2])
                        .unwrap();
                }
                "trueup" if words[1] == "agent" => {
                    let port = if command.contains(":7443") { "7443" } else { "7444" };
                    let args: Vec<String> = words[2..]
                        .iter()
                        .filter(|word| !word.starts_with("127.0.0.1:") && *word != "--listen")
                        .map(|word| match word.rsplit_once('.') {
                            Some((_, "pem" | "key")) => dir.path().join(word).to_str().unwrap().to_owned(),
                            _ => word.clone(),
                        })
                        .collect();
                    let args: Vec<&str> = args.iter().map(String::as_str).collect();
                    let env: Vec<(&str, &str)> =
                        env.iter().map(|(name, value)| (*name, value.as_str())).collect();
                    agents.insert(port, Agent::start(&args, &env));
                }
                "trueup" if words[1] == "serve" => {
                    let env: Vec<(&str, &str)> =
                        env.iter().map(|(name, value)| (*name, value.as_str())).collect();
                    let ledger = dir.path().join("serve.db");
                    let config = dir.path().join("trueup.toml");
                    let mut serve = Serve::start(&config, ledger.to_str().unwrap(), &env);
                    serve.until_logged("checks ran");
                    serve.signal("TERM");
                    assert_eq!(serve.wait(), 0);
                }
                "trueup" => {
                    let output = Command::new(env!("CARGO_BIN_EXE_trueup"))
                        .args(&words[1..])
                        .current_dir(dir.path())
                        .env("XDG_STATE_HOME", dir.path())
                        .envs(env.iter().map(|(name, value)| (*name, value.as_str())))
                        .stdin(Stdio::null())
                        .output()
                        .unwrap();
                    let status = output.status.code();
                    let told = String::from_utf8_lossy(&output.stdout).into_owned()
                        + &String::from_utf8_lossy(&output.stderr);
                    assert!(matches!(status, Some(0 | 1)), "{heading}: {command}: {status:?}\n{told}");
                    let repairs =
                        words[1] == "repair" && !command.contains("--dry-run") && !command.contains("--sql");
                    assert!(!repairs || status == Some(0), "{heading}: {command}: not proved\n{told}");
                }
                other => panic!("README names {other}, which this test does not know"),
            }
        }
    }
    assert!(ran >= 15, "README has lost its commands");
}
