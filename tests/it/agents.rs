//! Two processes: agents that listen, with TLS and tokens, in every pairing; and peers that must be refused.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::support::process::{Agent, Output, trueup, trueup_with};
use super::support::servers::SqliteDb;

const QUICK: &[&str] = &["--quiet", "--recheck-delay", "10ms", "--format", "json"];

fn pair() -> (SqliteDb, SqliteDb) {
    let (source, target) = (SqliteDb::create(), SqliteDb::create());
    for db in [&source, &target] {
        db.execute(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); CREATE TABLE other (id INTEGER PRIMARY KEY)",
        );
        db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i, 'row ' || i FROM n");
    }
    target.execute("DELETE FROM t WHERE id BETWEEN 100 AND 1900; UPDATE t SET a = 'x' WHERE id = 4000; INSERT INTO t VALUES (9999, 'extra')");
    (source, target)
}

fn repair(source: &str, target: &str, more: &[&str]) -> Output {
    let mut args = vec![
        "repair",
        source,
        target,
        "-t",
        "t",
        "--allow",
        "insert,update,delete",
        "--max-changes",
        "9999999",
    ];
    args.extend(QUICK);
    args.extend(more);
    trueup(&args)
}

fn agent(db: &SqliteDb, more: &[&str]) -> Agent {
    let url = db.url();
    let mut args = vec!["--database", &url];
    args.extend(more);
    Agent::start(&args, &[])
}

fn assert_repaired(output: &Output, source: &SqliteDb, target: &SqliteDb) {
    assert_eq!(output.status, 0, "{output:?}");
    let table = &output.json()["tables"][0];
    assert_eq!([&table["inserted"], &table["updated"], &table["deleted"]], [1801, 1, 1], "{output:?}");
    let all = "SELECT group_concat(id || a) FROM (SELECT * FROM t ORDER BY id)";
    assert_eq!(source.scalar(all), target.scalar(all));
}

#[test]
fn every_pairing_of_here_and_there_repairs() {
    for (source_there, target_there) in [(true, false), (false, true), (true, true)] {
        let (source, target) = pair();
        let source_agent = source_there.then(|| agent(&source, &[]));
        let target_agent = target_there.then(|| agent(&target, &["--allow-write"]));
        let url = |agent: &Option<Agent>, db: &SqliteDb| {
            agent.as_ref().map_or_else(|| db.url(), |agent| format!("grpc://{}", agent.address))
        };
        let output = repair(&url(&source_agent, &source), &url(&target_agent, &target), &[]);
        assert_repaired(&output, &source, &target);
    }
}

/// A CA, a certificate for 127.0.0.1 of it, and one for a client.
pub(crate) struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let pki = Self { dir: tempfile::tempdir().unwrap() };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap();
        std::fs::write(pki.path("ca.pem"), ca.pem()).unwrap();
        let issuer = Issuer::new(params, ca_key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            std::fs::write(pki.path(&format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem())
                .unwrap();
            std::fs::write(pki.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn mutual_tls_lets_in_whom_it_should_and_nobody_else() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let (source, target) = pair();
    let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| pki.arg(name));
    let listening = agent(&source, &["--cert", &cert, "--key-file", &key, "--client-ca", &ca]);
    let url = format!("grpcs://{}", listening.address);
    let [client, client_key] = ["client.pem", "client.key"].map(|name| pki.arg(name));
    for (args, words) in [(vec![], "certificate"), (vec!["--ca", &ca], "cannot connect")] {
        let output = repair(&url, &target.url(), &args);
        assert_eq!(output.status, 2, "{args:?} {output:?}");
        assert!(output.stderr.contains(words) || output.stderr.contains("agent at"), "{args:?} {output:?}");
    }
    let [other, other_key, other_ca] = ["client.pem", "client.key", "ca.pem"].map(|name| stranger.arg(name));
    assert_eq!(
        repair(&url, &target.url(), &["--ca", &ca, "--cert", &other, "--key-file", &other_key]).status,
        2
    );
    assert_eq!(
        repair(&url, &target.url(), &["--ca", &other_ca, "--cert", &client, "--key-file", &client_key])
            .status,
        2
    );
    assert_eq!(
        repair(&url.replace("grpcs", "grpc"), &target.url(), &[]).status,
        2,
        "plaintext to a TLS agent"
    );
    let output = repair(&url, &target.url(), &["--ca", &ca, "--cert", &client, "--key-file", &client_key]);
    assert_repaired(&output, &source, &target);
}

#[test]
fn a_token_over_tls_lets_in_whom_it_should() {
    let pki = Pki::new();
    let (source, target) = pair();
    let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| pki.arg(name));
    let (url, token) = (source.url(), "0123456789abcdef0123456789abcdef");
    let args = ["--database", &url, "--cert", &cert, "--key-file", &key, "--token-env", "TOKEN"];
    let listening = Agent::start(&args, &[("TOKEN", token)]);
    let address = format!("grpcs://{}", listening.address);
    let target_url = target.url();
    let args = ["diff", &address, &target_url, "-t", "t", "--ca", &ca, "--quiet"];
    let none = trueup(&args);
    assert!(none.status == 2 && none.stderr.contains("asks for a token"), "{none:?}");
    let with: Vec<&str> = args.iter().copied().chain(["--token-env", "TOKEN"]).collect();
    let wrong = trueup_with(&with, &[("TOKEN", "another-token-of-length")]);
    assert!(wrong.status == 2 && wrong.stderr.contains("not the one"), "{wrong:?}");
    assert!(!wrong.stderr.contains("another-token"), "{wrong:?}");
    assert_eq!(trueup_with(&with, &[("TOKEN", token)]).status, 1);
    let file = pki.path("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let with: Vec<&str> = args.iter().copied().chain(["--token-file", file.to_str().unwrap()]).collect();
    assert_eq!(trueup(&with).status, 1);
    std::fs::write(&file, "short").unwrap();
    assert_eq!(trueup(&with).status, 2);
    assert!(listening.log().iter().all(|line| !line.contains(token)));
}

#[test]
fn an_agent_serves_only_what_it_was_started_with() {
    let (source, target) = pair();
    let source_agent = agent(&source, &["--table", "t"]);
    let target_agent = agent(&target, &[]);
    let (s, t) = (format!("grpc://{}", source_agent.address), format!("grpc://{}", target_agent.address));
    let output = trueup(&["diff", &s, &t, "-t", "other", "-q"]);
    assert!(output.status == 2 && output.stdout.contains("does not serve table other"), "{output:?}");
    let output = repair(&s, &t, &[]);
    assert!(output.status == 2 && output.stderr.contains("read-only"), "{output:?}");
    assert_eq!(target.scalar("SELECT count(*) FROM t WHERE a = 'extra'").as_deref(), Some("1"));
    assert_eq!(repair(&s, &t, &["--dry-run"]).status, 1, "a dry run needs no right to write");
}

#[test]
fn open_doors_are_refused() {
    let (source, _) = pair();
    let url = source.url();
    let pki = Pki::new();
    let [cert, key] = ["server.pem", "server.key"].map(|name| pki.arg(name));
    for (more, words) in
        [(vec![], "without TLS"), (vec!["--cert", &cert, "--key-file", &key], "would serve anyone")]
    {
        let mut args = vec!["agent", "--database", &url, "--listen", "0.0.0.0:0"];
        args.extend(more);
        let output = trueup(&args);
        assert!(output.status == 2 && output.stderr.contains(words), "{output:?}");
        assert!(!output.stderr.starts_with("listening"), "{output:?}");
    }
}

#[test]
fn what_is_no_agent_is_told_apart() {
    let (_, target) = pair();
    // Answers, but not as an agent would.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream: TcpStream = stream;
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let output = trueup(&["diff", &format!("grpc://{address}"), &target.url(), "-q"]);
    assert!(output.status == 2 && output.stderr.contains("error: source:"), "{output:?}");
}

#[test]
fn a_peer_that_dies_in_mid_run_ends_it_with_an_error() {
    let (source, target) = pair();
    source.execute("WITH RECURSIVE n(i) AS (SELECT 10000 UNION ALL SELECT i + 1 FROM n WHERE i < 400000) INSERT INTO t SELECT i, 'row ' || i FROM n");
    let mut source_agent = agent(&source, &[]);
    let url = format!("grpc://{}", source_agent.address);
    let target_url = target.url();
    let running = std::thread::spawn(move || repair(&url, &target_url, &[]));
    std::thread::sleep(Duration::from_millis(300));
    assert!(source_agent.is_running());
    drop(source_agent);
    let output = running.join().unwrap();
    assert_eq!(output.status, 2, "{output:?}");
    // And again, with the agent back: it is safe to repeat.
    let source_agent = agent(&source, &[]);
    let output = repair(&format!("grpc://{}", source_agent.address), &target.url(), &[]);
    assert_eq!(output.status, 0, "{output:?}");
}

#[test]
fn a_peer_that_freezes_is_given_up_within_its_time() {
    for frozen_is_target in [false, true] {
        let (source, target) = pair();
        source.execute("WITH RECURSIVE n(i) AS (SELECT 10000 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) INSERT INTO t SELECT i, 'row ' || i FROM n");
        let slow = ["--peer-timeout", "4s", "--max-rows-per-second", "2000"];
        let (source_agent, target_agent) = (agent(&source, &slow), agent(&target, &slow));
        let frozen = if frozen_is_target { target_agent.pid() } else { source_agent.pid() };
        let urls = [&source_agent, &target_agent].map(|agent| format!("grpc://{}", agent.address));
        let began = Instant::now();
        let running = std::thread::spawn(move || {
            trueup(&["diff", &urls[0], &urls[1], "-t", "t", "-q", "--no-ledger", "--peer-timeout", "4s"])
        });
        std::thread::sleep(Duration::from_secs(2));
        let signal = |name: &str| {
            assert!(
                std::process::Command::new("kill")
                    .args([name, &frozen.to_string()])
                    .status()
                    .unwrap()
                    .success()
            );
        };
        signal("-STOP");
        let output = running.join().unwrap();
        signal("-CONT");
        let side = if frozen_is_target { "target" } else { "source" };
        assert_eq!(output.status, 2, "{output:?}");
        assert!(output.stdout.contains(side) && output.stdout.contains("answer"), "{side} {output:?}");
        assert!(began.elapsed() < Duration::from_secs(25), "{side} {:?} {output:?}", began.elapsed());
    }
}
